//! Which of the addresses this node has. Who has one says so again and again; who hears nothing of those
//! that go before him takes it when his turn comes. Nothing is written to the API, whose answers may be late.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::beat::{Beat, Word};
use crate::rank;

/// Between two beats of who has an address.
const BEAT: Duration = Duration::from_millis(200);
/// So long is believed what a beat said: two of them may be lost. Also the time that each in the order gives
/// the one before.
pub(crate) const SILENCE: Duration = Duration::from_millis(700);
/// Who begins to take part listens first.
pub(crate) const LISTEN: Duration = Duration::from_millis(1000);
/// How long others are asked to wait for a restart.
pub(crate) const RESTART: Duration = Duration::from_secs(10);
/// When an address that was taken is announced.
const ANNOUNCE: [Duration; 3] = [Duration::ZERO, Duration::from_millis(200), Duration::from_millis(1000)];
/// An address that somebody else claims too is announced again, when he should have heard of it.
const AGAIN: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(1000)];
/// How often it is said that an address was let go.
const FAREWELLS: u8 = 3;
/// More addresses than these are not remembered because somebody else says that he has them.
const MOST: usize = 65_536;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Say it to the segment's nodes.
    Say(Beat),
    /// Answer for an address from now on.
    Take(IpAddr),
    /// Answer for it no more.
    Withdraw(IpAddr),
    /// Tell the segment where it is.
    Announce(IpAddr),
}

/// Why an address is where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It goes before all others for it.
    First,
    /// Those that go before it were not heard.
    Silent,
    /// The one that had it was heard no more.
    Lost(Arc<str>),
    /// The one that had it let it go.
    LetGo(Arc<str>),
    /// It says so.
    Says,
    /// It restarts, and its kernel goes on forwarding.
    Restarts,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::First => f.write_str("it is the first of the candidates"),
            Why::Silent => f.write_str("those before it were not heard"),
            Why::Lost(node) => write!(f, "{node} was heard no more"),
            Why::LetGo(node) => write!(f, "{node} let it go"),
            Why::Says => f.write_str("it says so"),
            Why::Restarts => f.write_str("it restarts, and its kernel goes on forwarding"),
        }
    }
}

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The node.
    pub node: Arc<str>,
    /// As far as is known here.
    pub why: Why,
}

/// What somebody else said of an address, while it is believed.
#[derive(Clone, Copy, Debug)]
struct Claim {
    until: Duration,
    restarts: bool,
}

/// An address that this node has.
#[derive(Debug)]
struct Mine {
    why: Why,
    /// When it is announced next, the next last.
    announce: Vec<Duration>,
}

/// An address that is to be somebody's.
#[derive(Debug, Default)]
struct Place {
    candidates: BTreeSet<Arc<str>>,
    /// Since when this node could have it.
    since: Option<Duration>,
    claims: BTreeMap<Arc<str>, Claim>,
    /// When the last claim of one that goes before this node ended, whose it was and how.
    ended: Option<(Duration, Arc<str>, End)>,
    /// Who let it go since he last had it.
    let_go: BTreeSet<Arc<str>>,
    mine: Option<Mine>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Silence,
    Said,
}

/// The addresses of a segment as one node sees them.
#[derive(Debug)]
pub struct Election {
    node: Arc<str>,
    run: u64,
    places: BTreeMap<IpAddr, Place>,
    /// Whether this node may have addresses, and since when it listens.
    able: Option<Duration>,
    /// Nodes that were heard no more while they had something.
    dead: BTreeSet<Arc<str>>,
    next_beat: Duration,
    /// What was let go, and how often that is still to be said.
    farewells: BTreeMap<IpAddr, u8>,
    next_farewell: Duration,
}

impl Election {
    /// That of the node `node`; `run` is a random number.
    pub fn new(node: Arc<str>, run: u64) -> Election {
        Election {
            node,
            run,
            places: BTreeMap::new(),
            able: None,
            dead: BTreeSet::new(),
            next_beat: Duration::ZERO,
            farewells: BTreeMap::new(),
            next_farewell: Duration::ZERO,
        }
    }

    /// Takes in which addresses there are, with the names of those who may have them.
    pub fn set_wanted(&mut self, wanted: BTreeMap<IpAddr, BTreeSet<Arc<str>>>) {
        for (address, candidates) in wanted.iter() {
            self.places.entry(*address).or_default().candidates.clone_from(candidates);
        }
        for (address, place) in &mut self.places {
            if !wanted.contains_key(address) {
                place.candidates.clear();
            }
        }
    }

    /// Forgets nodes that the cluster no longer has.
    pub fn retain_nodes(&mut self, known: impl Fn(&str) -> bool, now: Duration) {
        for (address, place) in &mut self.places {
            let gone: Vec<Arc<str>> = place.claims.keys().filter(|node| !known(node)).cloned().collect();
            gone.iter().for_each(|node| place.end(*address, &self.node, node, now, End::Said));
        }
        self.dead.retain(|node| known(node));
    }

    /// Says whether this node may have addresses: its link carries packets and its kernel forwards
    /// them. Who begins to listens first.
    pub fn set_able(&mut self, able: bool, now: Duration) {
        if able != self.able.is_some() {
            self.able = able.then_some(now);
        }
    }

    /// Takes in what another node says.
    pub fn hear(&mut self, beat: &Beat, now: Duration) {
        if beat.node == self.node {
            return;
        }
        self.dead.remove(&beat.node);
        for address in &beat.addresses {
            if self.places.len() >= MOST && !self.places.contains_key(address) {
                continue;
            }
            match beat.word {
                Word::LetsGo => {
                    let Some(place) = self.places.get_mut(address) else { continue };
                    place.end(*address, &self.node, &beat.node, now, End::Said);
                    place.let_go.insert(beat.node.clone());
                }
                Word::Has | Word::Restarts(_) => {
                    let (wait, restarts) = match beat.word {
                        Word::Restarts(wait) => (wait.max(SILENCE), true),
                        _ => (SILENCE, false),
                    };
                    // Also what is not known here yet: the API tells one node sooner than the other.
                    let place = self.places.entry(*address).or_default();
                    place.claims.insert(beat.node.clone(), Claim { until: now + wait, restarts });
                    place.let_go.remove(&beat.node);
                    if place.is_before(*address, &beat.node, &self.node) {
                        place.ended = None;
                    } else if let Some(mine) = &mut place.mine {
                        // He has not heard of it: told at once, and all others where it is.
                        self.next_beat = self.next_beat.min(now + BEAT / 4);
                        if mine.announce.is_empty() {
                            mine.announce = AGAIN.iter().rev().map(|after| now + *after).collect();
                        }
                    }
                }
            }
        }
    }

    /// What is to be done now.
    pub fn poll(&mut self, now: Duration) -> Vec<Action> {
        self.forget(now);
        let mut actions = Vec::new();
        let listened = self.able.map(|since| since + LISTEN);
        let mut said_soon = false;
        for (address, place) in &mut self.places {
            let able = place.candidates.contains(&self.node) && listened.is_some_and(|from| from <= now);
            place.since = able.then(|| place.since.unwrap_or(now));
            let yields = place.claims.keys().any(|node| place.is_before(*address, node, &self.node));
            match &place.mine {
                Some(_) if !able || yields => {
                    place.mine = None;
                    actions.push(Action::Withdraw(*address));
                    if !able && self.farewells.insert(*address, FAREWELLS).is_none() {
                        self.next_farewell = now;
                    }
                }
                None if able && !yields && place.turn(*address, &self.node, &self.dead) <= Some(now) => {
                    let why = place.why(*address, &self.node);
                    let announce = ANNOUNCE.iter().rev().map(|after| now + *after).collect();
                    place.mine = Some(Mine { why, announce });
                    self.farewells.remove(address);
                    actions.push(Action::Take(*address));
                    said_soon = true;
                }
                _ => {}
            }
        }
        self.places.retain(|_, place| {
            place.mine.is_some() || !place.candidates.is_empty() || !place.claims.is_empty()
        });
        self.speak(now, said_soon, &mut actions);
        for (address, place) in &mut self.places {
            let Some(mine) = &mut place.mine else { continue };
            while mine.announce.last().is_some_and(|at| *at <= now) {
                mine.announce.pop();
                actions.push(Action::Announce(*address));
            }
        }
        actions
    }

    /// What no beat confirmed in time is believed no more.
    fn forget(&mut self, now: Duration) {
        for (address, place) in &mut self.places {
            let lapsed = place.claims.iter().filter(|(_, claim)| claim.until <= now);
            let lapsed: Vec<(Arc<str>, Duration)> =
                lapsed.map(|(node, claim)| (node.clone(), claim.until)).collect();
            for (node, until) in lapsed {
                place.end(*address, &self.node, &node, until, End::Silence);
                self.dead.insert(node);
            }
        }
        // Who still has something lives, though one of his beats was lost.
        for place in self.places.values() {
            self.dead.retain(|node| !place.claims.contains_key(node));
        }
    }

    fn speak(&mut self, now: Duration, soon: bool, actions: &mut Vec<Action>) {
        let mine = self.places.iter().filter(|(_, place)| place.mine.is_some());
        let mine: Vec<IpAddr> = mine.map(|(address, _)| *address).collect();
        if !mine.is_empty() && (soon || self.next_beat <= now) {
            self.next_beat = now + BEAT;
            actions.push(Action::Say(self.beat(Word::Has, mine)));
        }
        if !self.farewells.is_empty() && self.next_farewell <= now {
            self.next_farewell = now + BEAT / 4;
            let gone = self.farewells.keys().copied().collect();
            self.farewells.values_mut().for_each(|left| *left -= 1);
            self.farewells.retain(|_, left| *left > 0);
            actions.push(Action::Say(self.beat(Word::LetsGo, gone)));
        }
    }

    fn beat(&self, word: Word, addresses: Vec<IpAddr>) -> Beat {
        Beat { node: self.node.clone(), run: self.run, word, addresses }
    }

    /// When [`poll`](Self::poll) is to be called again; none where only something new would change anything.
    pub fn wakes(&self, now: Duration) -> Option<Duration> {
        let mut times = Vec::new();
        if !self.farewells.is_empty() {
            times.push(self.next_farewell);
        }
        if let Some(since) = self.able.filter(|since| *since + LISTEN > now) {
            times.push(since + LISTEN);
        }
        for (address, place) in &self.places {
            times.extend(place.claims.values().map(|claim| claim.until));
            match &place.mine {
                Some(mine) => times.extend(mine.announce.last().copied().into_iter().chain([self.next_beat])),
                None => {
                    let yields = place.claims.keys().any(|node| place.is_before(*address, node, &self.node));
                    times.extend(place.turn(*address, &self.node, &self.dead).filter(|_| !yields));
                }
            }
        }
        times.into_iter().min()
    }

    /// The last words before a restart: others are to wait, since this node's kernel goes on forwarding. None
    /// where it has nothing.
    pub fn restarts(&self) -> Option<Beat> {
        let mine = self.places.iter().filter(|(_, place)| place.mine.is_some());
        let mine: Vec<IpAddr> = mine.map(|(address, _)| *address).collect();
        (!mine.is_empty()).then(|| self.beat(Word::Restarts(RESTART), mine))
    }

    /// Whether this node has an address.
    pub fn has(&self, address: IpAddr) -> bool {
        self.places.get(&address).is_some_and(|place| place.mine.is_some())
    }

    /// Who has each address, of those that somebody has.
    pub fn owners(&self) -> BTreeMap<IpAddr, Owner> {
        let owner = |(address, place): (&IpAddr, &Place)| {
            let owner = match &place.mine {
                Some(mine) => Owner { node: self.node.clone(), why: mine.why.clone() },
                None => {
                    let (node, claim) = place.claims.iter().min_by(|a, b| rank::order(*address, a.0, b.0))?;
                    let why = if claim.restarts { Why::Restarts } else { Why::Says };
                    Owner { node: node.clone(), why }
                }
            };
            Some((*address, owner))
        };
        self.places.iter().filter_map(owner).collect()
    }
}

impl Place {
    fn is_before(&self, address: IpAddr, a: &str, b: &str) -> bool {
        rank::order(address, a, b).is_lt()
    }

    /// The claim of `node` ends; `own` is this node.
    fn end(&mut self, address: IpAddr, own: &str, node: &Arc<str>, at: Duration, how: End) {
        if self.claims.remove(node).is_some() && self.is_before(address, node, own) {
            self.ended = Some((at, node.clone(), how));
        }
    }

    /// Who goes before `own` and may still take it. Of those that went before one that was then lost
    /// nothing was heard while he had it, so that nobody waits for them again.
    fn before<'a>(
        &'a self,
        address: IpAddr,
        own: &'a str,
        dead: &'a BTreeSet<Arc<str>>,
    ) -> impl Iterator<Item = &'a Arc<str>> {
        let after = match &self.ended {
            Some((_, node, End::Silence)) => Some(node),
            _ => None,
        };
        self.candidates.iter().filter(move |node| {
            self.is_before(address, node, own)
                && after.is_none_or(|after| self.is_before(address, after, node))
                && !dead.contains(*node)
                && !self.let_go.contains(*node)
        })
    }

    /// When it is this node's turn, while nobody that goes before it has the address.
    fn turn(&self, address: IpAddr, own: &str, dead: &BTreeSet<Arc<str>>) -> Option<Duration> {
        let from =
            self.ended.as_ref().map_or(self.since?, |(at, ..)| self.since.max(Some(*at)).unwrap_or(*at));
        let waits = self.before(address, own, dead).count();
        Some(from + SILENCE * u32::try_from(waits).unwrap_or(u32::MAX))
    }

    fn why(&self, address: IpAddr, own: &str) -> Why {
        match &self.ended {
            _ if !self.candidates.iter().any(|node| self.is_before(address, node, own)) => Why::First,
            Some((_, node, End::Silence)) => Why::Lost(node.clone()),
            Some((_, node, End::Said)) => Why::LetGo(node.clone()),
            None => Why::Silent,
        }
    }
}
