//! Others that claim what this node has (RFC 5227, 2.4): told, and answered once in a while, but not fought.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use weft_model::Mac;

/// Not sooner is one address defended again (RFC 5227, DEFEND_INTERVAL).
const DEFEND: Duration = Duration::from_secs(10);
/// Who was not heard for so long claims it no more.
const FORGET: Duration = Duration::from_secs(300);
/// More of them are not remembered.
const MOST: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Conflicts {
    /// When who was last heard.
    heard: BTreeMap<(IpAddr, Mac), Duration>,
    /// When what this node has was last defended.
    defended: BTreeMap<IpAddr, Duration>,
}

impl Conflicts {
    /// Takes in that `mac` claims `address`, which this node has. Says whether it is to be told and
    /// defended now.
    pub(super) fn claimed(&mut self, address: IpAddr, mac: Mac, now: Duration) -> bool {
        if self.heard.len() < MOST || self.heard.contains_key(&(address, mac)) {
            self.heard.insert((address, mac), now);
        }
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

    /// Those that are heard of, each in one sentence.
    pub(super) fn told(&mut self, now: Duration) -> Vec<String> {
        self.heard.retain(|_, heard| now < *heard + FORGET);
        self.heard
            .keys()
            .map(|(address, mac)| format!("{mac} claims {address}, which this node has"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_defended_once_in_a_while_whoever_claims_it() {
        let mut conflicts = Conflicts::default();
        let (ip, mac) = (IpAddr::from([10, 0, 0, 200]), |i| Mac([2, 0, 0, 0, 0, i]));
        let at = Duration::from_secs;
        assert!(conflicts.claimed(ip, mac(1), at(1)));
        assert!(!conflicts.claimed(ip, mac(1), at(2)));
        assert!(!conflicts.claimed(ip, mac(2), at(3)));
        assert!(conflicts.claimed(ip, mac(1), at(11)));
        assert!(conflicts.claimed(IpAddr::from([10, 0, 0, 201]), mac(1), at(12)), "another address");
        assert_eq!(conflicts.told(at(12)).len(), 3);
        assert_eq!(conflicts.told(at(311)).len(), 1);
        for i in 0..200 {
            conflicts.claimed(ip, mac(i), at(400));
        }
        assert!(conflicts.told(at(400)).len() <= MOST, "a flood takes no room");
    }
}
