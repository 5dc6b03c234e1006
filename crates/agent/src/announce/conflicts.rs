//! Others that claim what this node has (RFC 5227, 2.4): told, and answered once in a while, but not fought.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use weft_model::Mac;

/// Not sooner is one address defended again (RFC 5227, DEFEND_INTERVAL).
const DEFEND: Duration = Duration::from_secs(10);
/// Who was not heard for so long claims it no more.
const FORGET: Duration = Duration::from_secs(300);
/// More of them are not remembered.
const MOST: usize = 64;

/// Who else claims an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claimant {
    /// A host, by ARP or NDP.
    Host(Mac),
    /// One that says that it is this node, which the cluster does not have.
    NoNode(Arc<str>),
}

impl fmt::Display for Claimant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Claimant::Host(mac) => mac.fmt(f),
            Claimant::NoNode(name) => {
                write!(f, "{}, which is no node of the cluster,", name.escape_debug())
            }
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Conflicts {
    /// When who was last heard.
    heard: BTreeMap<(IpAddr, Claimant), Duration>,
    /// When what this node has was last defended.
    defended: BTreeMap<IpAddr, Duration>,
}

impl Conflicts {
    /// Takes in that `who` claims `address`, which this node has. Says whether that is new.
    pub(super) fn claimed(&mut self, address: IpAddr, who: &Claimant, now: Duration) -> bool {
        let one = (address, who.clone());
        let known = self.heard.contains_key(&one);
        if known || self.heard.len() < MOST {
            self.heard.insert(one, now);
            return !known;
        }
        false
    }

    /// Whether `address` is to be defended now, which counts as done.
    pub(super) fn defend(&mut self, address: IpAddr, now: Duration) -> bool {
        let defend = self.defended.get(&address).is_none_or(|at| now >= *at + DEFEND);
        if defend {
            self.defended.insert(address, now);
        }
        defend
    }

    /// When one of them is to be forgotten.
    pub(super) fn wakes(&self) -> Option<Duration> {
        self.heard.values().map(|heard| *heard + FORGET).min()
    }

    /// Forgets who was not heard for long. Says whether there was one.
    pub(super) fn forget(&mut self, now: Duration) -> bool {
        let before = self.heard.len();
        self.heard.retain(|_, heard| now < *heard + FORGET);
        self.defended.retain(|_, at| now < *at + FORGET);
        self.heard.len() != before
    }

    /// Who is heard of, by address.
    pub(super) fn told(&self) -> BTreeMap<IpAddr, Vec<String>> {
        let mut told: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
        for (address, who) in self.heard.keys() {
            told.entry(*address).or_default().push(format!("{who} claims it too"));
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_told_once_and_an_address_is_defended_once_in_a_while_whoever_claims_it() {
        let mut conflicts = Conflicts::default();
        let (ip, host) = (|i| IpAddr::from([10, 0, 0, i]), |i| Claimant::Host(Mac([2, 0, 0, 0, 0, i])));
        let at = Duration::from_secs;
        assert!(conflicts.claimed(ip(200), &host(1), at(1)));
        assert!(!conflicts.claimed(ip(200), &host(1), at(2)));
        assert!(conflicts.claimed(ip(200), &host(2), at(3)));
        assert!(conflicts.defend(ip(200), at(3)));
        assert!(!conflicts.defend(ip(200), at(12)));
        assert!(conflicts.defend(ip(201), at(12)), "another address");
        assert!(conflicts.defend(ip(200), at(13)));
        let count = |conflicts: &Conflicts| conflicts.told().values().map(Vec::len).sum::<usize>();
        assert!(conflicts.claimed(ip(201), &Claimant::NoNode("node9".into()), at(20)));
        assert_eq!(conflicts.told()[&ip(201)], ["node9, which is no node of the cluster, claims it too"]);
        assert!(!conflicts.forget(at(12)));
        assert_eq!(count(&conflicts), 3);
        assert!(conflicts.forget(at(302)));
        assert_eq!(count(&conflicts), 2);
        for i in 0..200 {
            conflicts.claimed(ip(200), &host(i), at(400));
        }
        assert!(count(&conflicts) <= MOST, "a flood takes no room");
    }
}
