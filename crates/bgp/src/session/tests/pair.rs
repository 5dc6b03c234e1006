//! Two sessions and a network between them, with a clock of its own.

use super::*;

/// So much lies in a connection unread before no more can be written.
const WINDOW: usize = 64 * 1024;

enum Item {
    Bytes(Vec<u8>),
    End,
}

/// A connection, and what is on its way to each end.
struct Link {
    dialler: usize,
    ways: [VecDeque<(Duration, Item)>; 2],
    /// Ends that know of it.
    open: [bool; 2],
}

impl Link {
    fn side(&self, who: usize) -> Side {
        if self.dialler == who { Side::Dialled } else { Side::Accepted }
    }

    fn unread(&self, who: usize) -> usize {
        let length = |item: &(Duration, Item)| if let Item::Bytes(bytes) = &item.1 { bytes.len() } else { 0 };
        self.ways[who].iter().map(length).sum()
    }
}

pub(super) struct Pair {
    pub(super) now: Duration,
    pub(super) sessions: [Session; 2],
    /// What each told, but for dialling and closing.
    pub(super) told: [Vec<Seen>; 2],
    pub(super) dialled: usize,
    /// Nothing arrives any more, not even that it does not.
    pub(super) cut: bool,
    /// Who does not read.
    pub(super) deaf: [bool; 2],
    latency: Duration,
    dials: Vec<(Duration, usize)>,
    links: Vec<Link>,
}

impl Pair {
    pub(super) fn new(a: Config, b: Config, latency: Duration, seed: u64) -> Pair {
        let mut sessions = [Session::new(a, seed * 2), Session::new(b, seed * 2 + 101)];
        sessions.iter_mut().for_each(|session| session.start(Duration::ZERO));
        Pair {
            now: Duration::ZERO,
            sessions,
            told: Default::default(),
            dialled: 0,
            cut: false,
            deaf: [false; 2],
            latency,
            dials: Vec::new(),
            links: Vec::new(),
        }
    }

    /// Lets time pass up to `time`.
    pub(super) fn run_until(&mut self, time: Duration) {
        self.pump();
        for _ in 0..1_000_000 {
            let Some(next) = self.next().filter(|next| *next <= time) else {
                self.now = time;
                return;
            };
            self.now = self.now.max(next);
            self.arrive();
            for session in &mut self.sessions {
                session.handle_timeout(self.now);
            }
            self.pump();
        }
        panic!("it does not come to rest");
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    pub(super) fn both_are(&self, state: State) -> bool {
        self.sessions.iter().all(|session| session.state() == state)
    }

    pub(super) fn connections(&self) -> usize {
        self.links.iter().filter(|link| link.open == [true; 2]).count()
    }

    /// `who` dies without a word, and another begins in its place.
    pub(super) fn replace(&mut self, who: usize, mut session: Session) {
        self.links.retain(|link| link.open[1 - who]);
        for link in &mut self.links {
            link.open[who] = false;
            link.ways = Default::default();
        }
        session.start(self.now);
        self.sessions[who] = session;
        self.pump();
    }

    /// All connections end, as both are told.
    pub(super) fn break_all(&mut self) {
        for link in std::mem::take(&mut self.links) {
            for who in [0, 1] {
                if link.open[who] {
                    self.sessions[who].handle_closed(link.side(who), self.now);
                }
            }
        }
        self.pump();
    }

    fn next(&self) -> Option<Duration> {
        let wakes = self.sessions.iter().filter_map(Session::wakes);
        let dials = self.dials.iter().map(|(at, _)| *at);
        let way = |link: &Link, who: usize| link.ways[who].front().map(|(at, _)| *at);
        let ways = self.links.iter().flat_map(|link| {
            [0, 1].into_iter().filter(|who| !self.deaf[*who]).filter_map(move |who| way(link, who))
        });
        wakes.chain(dials).chain(ways).min()
    }

    fn arrive(&mut self) {
        let now = self.now;
        let due: Vec<usize> = self.dials.iter().filter(|(at, _)| *at <= now).map(|(_, who)| *who).collect();
        self.dials.retain(|(at, _)| *at > now);
        for who in due {
            let link = Link { dialler: who, ways: Default::default(), open: [true; 2] };
            if self.cut || !self.sessions[1 - who].handle_connected(Side::Accepted, now) {
                self.sessions[who].handle_unreachable(now);
            } else if self.sessions[who].handle_connected(Side::Dialled, now) {
                self.links.push(link);
            } else {
                self.sessions[1 - who].handle_closed(Side::Accepted, now);
            }
        }
        for i in 0..self.links.len() {
            for who in [0, 1] {
                while !self.deaf[who] && self.links[i].ways[who].front().is_some_and(|(at, _)| *at <= now) {
                    let side = self.links[i].side(who);
                    match self.links[i].ways[who].pop_front() {
                        _ if !self.links[i].open[who] => {}
                        Some((_, Item::Bytes(bytes))) => {
                            let taken = self.sessions[who].handle_bytes(side, &bytes);
                            self.poll(who);
                            if taken < bytes.len() {
                                self.links[i].ways[who]
                                    .push_front((now, Item::Bytes(bytes[taken..].to_vec())));
                            }
                        }
                        Some((_, Item::End)) => {
                            self.links[i].open[who] = false;
                            self.sessions[who].handle_closed(side, now);
                        }
                        None => {}
                    }
                }
            }
        }
        self.links.retain(|link| link.open != [false; 2]);
    }

    /// Tells and sends what there is.
    pub(super) fn pump(&mut self) {
        for who in [0, 1] {
            self.poll(who);
            for i in 0..self.links.len() {
                let side = self.links[i].side(who);
                while self.links[i].open[who]
                    && self.links[i].unread(1 - who) < WINDOW
                    && let Some(bytes) = self.sessions[who].poll_transmit(side, self.now)
                {
                    self.post(i, 1 - who, Item::Bytes(bytes.to_vec()));
                }
            }
        }
    }

    fn post(&mut self, link: usize, to: usize, item: Item) {
        if !self.cut {
            self.links[link].ways[to].push_back((self.now + self.latency, item));
        }
    }

    fn poll(&mut self, who: usize) {
        for seen in events(&mut self.sessions[who], self.now) {
            match seen {
                Seen::Dial => {
                    self.dialled += 1;
                    self.dials.push((self.now + self.latency, who));
                }
                Seen::Close(side, last) => {
                    let link = self.links.iter().position(|link| link.open[who] && link.side(who) == side);
                    let Some(link) = link else { continue };
                    self.links[link].open[who] = false;
                    self.post(link, 1 - who, Item::Bytes(last));
                    self.post(link, 1 - who, Item::End);
                }
                seen => self.told[who].push(seen),
            }
        }
    }
}
