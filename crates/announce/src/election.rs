//! Which of the addresses this node has. Who has one says so again and again; who hears nothing of those
//! that go before him takes it when his turn comes. Nothing is written to the API, whose answers may be late.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::beat::{Beat, Word};
use crate::place::{End, Mine, Own, Place};

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
/// The same, where a host outside of the election claims it: when that should have heard of it.
const CONTESTED: [Duration; 3] =
    [Duration::from_millis(300), Duration::from_millis(1000), Duration::from_millis(2500)];
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
    /// It goes behind, but says so again and again and knows what the API says now, which this node does not.
    Insists,
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
            Why::Insists => f.write_str("it says so, and knows what the API says now"),
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

/// The addresses of a segment as one node sees them.
#[derive(Debug)]
pub struct Election {
    node: Arc<str>,
    run: u64,
    /// Whether this node knows what the API says now.
    current: bool,
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
            current: false,
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

    /// Says whether this node knows what the API says now, or only what it said once.
    pub fn set_current(&mut self, current: bool) {
        self.current = current;
    }

    fn own(&self) -> Own<'_> {
        Own { node: &self.node, current: self.current }
    }

    /// Somebody who takes no part claims an address: it is announced again, if this node has it.
    pub fn contested(&mut self, address: IpAddr, now: Duration) {
        if let Some(mine) = self.places.get_mut(&address).and_then(|place| place.mine.as_mut()) {
            mine.announce = CONTESTED.iter().rev().map(|after| now + *after).collect();
        }
    }

    /// Takes in what somebody says whom the cluster does not have. A node that does not know what the API says now
    /// believes him: he may be new, or knows that this node is none any more. Else gives what he claims of
    /// what this node has.
    pub fn hear_unknown(&mut self, beat: &Beat, now: Duration) -> Vec<IpAddr> {
        let mut beat = beat.clone();
        if !self.current {
            beat.addresses.retain(|address| self.places.contains_key(address));
            self.hear(&beat, now);
            return Vec::new();
        }
        beat.addresses.retain(|address| beat.word != Word::LetsGo && self.has(*address));
        beat.addresses
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
            let own = Own { node: &self.node, current: self.current };
            let (wait, restarts) = match beat.word {
                Word::LetsGo => {
                    if let Some(place) = self.places.get_mut(address) {
                        place.let_go(*address, own.node, &beat.node, now);
                    }
                    continue;
                }
                Word::Restarts(wait) => (wait.max(SILENCE), true),
                Word::Has => (SILENCE, false),
            };
            // Also what is not known here yet: the API tells one node sooner than the other.
            let place = self.places.entry(*address).or_default();
            if place.claim(*address, own, &beat.node, (wait, restarts, beat.current), now) {
                // He has not heard of it: told at once, and all others where it is.
                self.next_beat = self.next_beat.min(now + BEAT / 4);
            }
        }
    }

    /// What is to be done now.
    pub fn poll(&mut self, now: Duration) -> Vec<Action> {
        self.forget(now);
        let mut actions = Vec::new();
        let listened = self.able.map(|since| since + LISTEN);
        let mut said_soon = false;
        let own = Own { node: &self.node, current: self.current };
        for (address, place) in &mut self.places {
            let able = place.candidates.contains(&self.node) && listened.is_some_and(|from| from <= now);
            place.since = able.then(|| place.since.unwrap_or(now));
            let yields = place.yields(*address, own);
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
                if self.dead.len() < MOST {
                    self.dead.insert(node);
                }
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
        Beat { node: self.node.clone(), run: self.run, word, current: self.current, addresses }
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
                None if place.yields(*address, self.own()) => {}
                None => times.extend(place.turn(*address, &self.node, &self.dead)),
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

    /// Who has an address, if anybody.
    pub fn owner(&self, address: IpAddr) -> Option<Owner> {
        self.places.get(&address)?.owner(address, self.own(), &self.node)
    }
}
