//! From the virtual servers that there are to those that are wanted. Pure.
//!
//! A destination that is not wanted any more gets weight 0, so that its connections go on and no new ones
//! come, and goes when it has none; likewise a virtual server.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use weft_kernel::ipvs::{Change, Listed, Server, ServerKey};

use super::state::Wanted;

/// What every destination has that is wanted.
const WEIGHT: u32 = 1;

/// A destination that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Destination {
    weight: u32,
    /// How many connections it has, where that was read.
    connections: Option<u64>,
}

/// A virtual server that there is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Actual {
    server: Server,
    to: BTreeMap<SocketAddr, Destination>,
}

/// The virtual servers that there are.
#[derive(Clone, Debug, Default)]
pub(super) struct Servers(BTreeMap<ServerKey, Actual>);

/// What is to be done: first, and when everything else leads where it should.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Steps {
    pub(super) first: Vec<Change>,
    pub(super) last: Vec<Change>,
}

impl Servers {
    /// Out of what the kernel says.
    pub(super) fn read(servers: BTreeMap<ServerKey, Server>, mut listed: Listed) -> Servers {
        let with = |(key, server)| {
            let to = listed.remove(&key).unwrap_or_default().into_iter().map(|(at, found)| {
                (at, Destination { weight: found.weight, connections: Some(found.connections) })
            });
            (key, Actual { server, to: to.collect() })
        };
        Servers(servers.into_iter().map(with).collect())
    }

    /// Which there are.
    pub(super) fn keys(&self) -> impl Iterator<Item = &ServerKey> {
        self.0.keys()
    }

    /// Whether there is one at an address.
    pub(super) fn any_at(&self, ip: IpAddr) -> bool {
        let key = |port, protocol| ServerKey { at: SocketAddr::new(ip, port), protocol };
        self.0.range(key(0, 0)..=key(u16::MAX, u8::MAX)).next().is_some()
    }

    /// Takes in what was done.
    pub(super) fn note(&mut self, change: &Change) {
        let mut put = |key: &ServerKey, at: &SocketAddr, weight| {
            let new = Destination { weight, connections: None };
            self.0.get_mut(key).map(|server| server.to.insert(*at, new))
        };
        match change {
            Change::Add(key, server) => {
                self.0.insert(*key, Actual { server: server.clone(), to: BTreeMap::new() });
            }
            Change::Set(key, server) => {
                if let Some(actual) = self.0.get_mut(key) {
                    actual.server.clone_from(server);
                }
            }
            Change::Remove(key) => _ = self.0.remove(key),
            Change::AddDestination(key, at, weight) | Change::SetDestination(key, at, weight) => {
                put(key, at, *weight);
            }
            Change::RemoveDestination(key, at) => {
                if let Some(actual) = self.0.get_mut(key) {
                    actual.to.remove(at);
                }
            }
        }
    }

    /// Adds what makes one virtual server as wanted. `drains`: connections are waited for, where they end.
    pub(super) fn compare(&self, key: &ServerKey, wanted: Option<&Wanted>, drains: bool, steps: &mut Steps) {
        let none = BTreeSet::new();
        let to = wanted.map_or(&none, |wanted| &wanted.to);
        let actual = self.0.get(key);
        match (wanted, actual) {
            (Some(wanted), None) => steps.first.push(Change::Add(*key, wanted.server.clone())),
            (Some(wanted), Some(actual)) if wanted.server != actual.server => {
                steps.first.push(Change::Set(*key, wanted.server.clone()));
            }
            _ => {}
        }
        let there = |at: &SocketAddr| actual.and_then(|actual| actual.to.get(at));
        for at in to {
            match there(at) {
                None => steps.first.push(Change::AddDestination(*key, *at, WEIGHT)),
                Some(known) if known.weight != WEIGHT => {
                    steps.first.push(Change::SetDestination(*key, *at, WEIGHT));
                }
                Some(_) => {}
            }
        }
        let Some(actual) = actual else { return };
        let unwanted = || actual.to.iter().filter(|(at, _)| !to.contains(at));
        let is_done = |known: &Destination| !drains || (known.weight == 0 && known.connections == Some(0));
        if wanted.is_none() && unwanted().all(|(_, known)| is_done(known)) {
            steps.last.push(Change::Remove(*key));
            return;
        }
        for (at, known) in unwanted() {
            if is_done(known) {
                steps.last.push(Change::RemoveDestination(*key, *at));
            } else if known.weight != 0 {
                steps.last.push(Change::SetDestination(*key, *at, 0));
            }
        }
    }
}

#[cfg(test)]
#[path = "servers_tests.rs"]
mod tests;
