//! Which routes are taken from a peer or told to it, and what is changed of them.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::message::{Attributes, Community, LargeCommunity, NextHop};

/// Rules, of which the first that a route meets decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// In order.
    pub rules: Vec<Rule>,
    /// What becomes of a route that meets none.
    pub otherwise: Verdict,
}

/// What becomes of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is taken, or told.
    Accept,
    /// It is not.
    Reject,
    /// The rules that follow decide.
    Next,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// All of these must hold.
    pub matches: Vec<Match>,
    /// What is changed then.
    pub set: Vec<Set>,
    /// What becomes of it then.
    pub then: Verdict,
}

/// A prefix, and how long those inside of it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefixes {
    /// What they are inside of.
    pub inside: IpNet,
    /// Their lengths.
    pub lengths: RangeInclusive<u8>,
}

impl Prefixes {
    /// That prefix alone.
    pub fn exactly(prefix: IpNet) -> Prefixes {
        Prefixes { inside: prefix, lengths: prefix.prefix_len()..=prefix.prefix_len() }
    }

    /// It and all that is inside of it.
    pub fn within(prefix: IpNet) -> Prefixes {
        Prefixes { inside: prefix, lengths: prefix.prefix_len()..=prefix.max_prefix_len() }
    }

    fn contains(&self, prefix: &IpNet) -> bool {
        self.inside.contains(prefix) && self.lengths.contains(&prefix.prefix_len())
    }
}

/// What a route may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// To one of these prefixes.
    Prefix(Vec<Prefixes>),
    /// Of this neighbouring AS.
    Neighbour(u32),
    /// Of this AS in the beginning.
    OriginAs(u32),
    /// Through this AS.
    Through(u32),
    /// Of an AS path of such a length.
    PathLength(RangeInclusive<usize>),
    /// With one of these communities.
    Community(Vec<Community>),
    /// With one of these large communities.
    LargeCommunity(Vec<LargeCommunity>),
    /// Of this next hop.
    NextHop(NextHop),
    /// Not so.
    Not(Box<Match>),
    /// One of these holds.
    Any(Vec<Match>),
}

/// What is changed of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Set {
    /// LOCAL_PREF.
    LocalPref(u32),
    /// MULTI_EXIT_DISC, or none.
    Med(Option<u32>),
    /// An AS before the AS path, so many times.
    Prepend(u32, u8),
    /// The next hop.
    NextHop(NextHop),
    /// A community more.
    Add(Community),
    /// A community less.
    Remove(Community),
    /// A large community more.
    AddLarge(LargeCommunity),
    /// A large community less.
    RemoveLarge(LargeCommunity),
}

impl Policy {
    /// One that takes all routes as they are.
    pub fn accept() -> Policy {
        Policy { rules: Vec::new(), otherwise: Verdict::Accept }
    }

    /// One that takes these alone.
    pub fn only(prefixes: Vec<Prefixes>) -> Policy {
        let rule = Rule { matches: vec![Match::Prefix(prefixes)], set: Vec::new(), then: Verdict::Accept };
        Policy { rules: vec![rule], otherwise: Verdict::Reject }
    }

    /// The route's attributes as they are afterwards, or `None` where it is rejected.
    pub fn apply<'a>(&self, prefix: &IpNet, attributes: &'a Attributes) -> Option<Cow<'a, Attributes>> {
        let mut attributes = Cow::Borrowed(attributes);
        for rule in &self.rules {
            if !rule.matches.iter().all(|match_| match_.holds(prefix, &attributes)) {
                continue;
            }
            for set in &rule.set {
                set.apply(attributes.to_mut());
            }
            match rule.then {
                Verdict::Accept => return Some(attributes),
                Verdict::Reject => return None,
                Verdict::Next => {}
            }
        }
        (self.otherwise == Verdict::Accept).then_some(attributes)
    }

    /// Whether it asks for the prefix, so that routes of the same attributes may come out differently.
    pub(crate) fn asks_for_prefix(&self) -> bool {
        self.rules.iter().flat_map(|rule| &rule.matches).any(Match::asks_for_prefix)
    }
}

impl Match {
    fn holds(&self, prefix: &IpNet, attributes: &Attributes) -> bool {
        match self {
            Match::Prefix(prefixes) => prefixes.iter().any(|one| one.contains(prefix)),
            Match::Neighbour(asn) => attributes.as_path.neighbour() == Some(*asn),
            Match::OriginAs(asn) => attributes.as_path.origin() == Some(*asn),
            Match::Through(asn) => attributes.as_path.numbers().any(|number| number == *asn),
            Match::PathLength(lengths) => lengths.contains(&attributes.as_path.length()),
            Match::Community(any) => any.iter().any(|community| attributes.has(*community)),
            Match::LargeCommunity(any) => any.iter().any(|one| attributes.large_communities.contains(one)),
            Match::NextHop(next_hop) => attributes.next_hop == *next_hop,
            Match::Not(other) => !other.holds(prefix, attributes),
            Match::Any(any) => any.iter().any(|one| one.holds(prefix, attributes)),
        }
    }

    fn asks_for_prefix(&self) -> bool {
        match self {
            Match::Prefix(_) => true,
            Match::Not(other) => other.asks_for_prefix(),
            Match::Any(any) => any.iter().any(Match::asks_for_prefix),
            _ => false,
        }
    }
}

impl Set {
    fn apply(&self, attributes: &mut Attributes) {
        match self {
            Set::LocalPref(preference) => attributes.local_pref = Some(*preference),
            Set::Med(med) => attributes.med = *med,
            Set::Prepend(asn, times) => {
                attributes.as_path = attributes.as_path.prepend(*asn, usize::from(*times));
            }
            Set::NextHop(next_hop) => attributes.next_hop = *next_hop,
            Set::Add(community) => add(&mut attributes.communities, *community),
            Set::Remove(community) => remove(&mut attributes.communities, community),
            Set::AddLarge(community) => add(&mut attributes.large_communities, *community),
            Set::RemoveLarge(community) => remove(&mut attributes.large_communities, community),
        }
    }
}

/// Adds one to a set.
pub(crate) fn add<T: Copy + PartialEq>(to: &mut Box<[T]>, one: T) {
    if !to.contains(&one) {
        *to = to.iter().copied().chain([one]).collect();
    }
}

fn remove<T: Copy + PartialEq>(from: &mut Box<[T]>, one: &T) {
    if from.contains(one) {
        *from = from.iter().copied().filter(|other| other != one).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::AsPath;

    fn route() -> Attributes {
        Attributes {
            as_path: AsPath::sequence(&[65001, 65002, 65003]),
            communities: [Community(1), Community(2)].into(),
            large_communities: [LargeCommunity(1, 2, 3)].into(),
            ..Attributes::new(NextHop::V4([192, 0, 2, 1].into()))
        }
    }

    fn net(prefix: &str) -> IpNet {
        prefix.parse().unwrap()
    }

    #[test]
    fn each_match_holds_for_what_it_says() {
        let prefixes = |inside, lengths| Match::Prefix(vec![Prefixes { inside: net(inside), lengths }]);
        let holds = [
            prefixes("10.0.0.0/8", 24..=26),
            Match::Prefix(vec![Prefixes::exactly(net("10.1.2.0/24"))]),
            Match::Prefix(vec![Prefixes::within(net("fd00::/8")), Prefixes::within(net("10.1.0.0/16"))]),
            Match::Neighbour(65001),
            Match::OriginAs(65003),
            Match::Through(65002),
            Match::PathLength(3..=3),
            Match::Community(vec![Community(9), Community(2)]),
            Match::LargeCommunity(vec![LargeCommunity(1, 2, 3)]),
            Match::NextHop(NextHop::V4([192, 0, 2, 1].into())),
            Match::Any(vec![Match::Neighbour(9), Match::OriginAs(65003)]),
        ];
        let fails = [
            prefixes("10.0.0.0/8", 8..=23),
            prefixes("10.2.0.0/16", 24..=24),
            Match::Prefix(vec![]),
            Match::Neighbour(65002),
            Match::OriginAs(65001),
            Match::Through(1),
            Match::PathLength(0..=2),
            Match::Community(vec![Community(9)]),
            Match::LargeCommunity(vec![LargeCommunity(1, 2, 4)]),
            Match::NextHop(NextHop::V4([192, 0, 2, 2].into())),
        ];
        let prefix = net("10.1.2.0/24");
        for one in holds {
            assert!(one.holds(&prefix, &route()), "{one:?}");
            assert!(!Match::Not(one.into()).holds(&prefix, &route()));
        }
        for one in fails {
            assert!(!one.holds(&prefix, &route()), "{one:?}");
        }
    }

    #[test]
    fn the_first_rule_that_a_route_meets_decides() {
        let rule = |matches, set, then| Rule { matches, set, then };
        let policy = Policy {
            rules: vec![
                rule(vec![Match::Neighbour(7)], vec![], Verdict::Accept),
                rule(
                    vec![],
                    vec![Set::LocalPref(50), Set::Add(Community(3)), Set::Remove(Community(1))],
                    Verdict::Next,
                ),
                rule(vec![Match::Community(vec![Community(1)])], vec![], Verdict::Accept),
                rule(
                    vec![Match::Community(vec![Community(3)])],
                    vec![Set::Med(Some(5)), Set::Prepend(9, 2)],
                    Verdict::Accept,
                ),
                rule(vec![], vec![Set::LocalPref(1)], Verdict::Accept),
            ],
            otherwise: Verdict::Reject,
        };
        let after = policy.apply(&net("10.0.0.0/8"), &route()).unwrap().into_owned();
        assert_eq!((after.local_pref, after.med), (Some(50), Some(5)));
        assert_eq!(*after.communities, [Community(2), Community(3)]);
        assert_eq!(after.as_path, AsPath::sequence(&[9, 9, 65001, 65002, 65003]));
        assert!(!policy.asks_for_prefix());
        let only = Policy::only(vec![Prefixes::exactly(net("10.0.0.0/8"))]);
        assert!(only.asks_for_prefix());
        assert_eq!(only.apply(&net("10.0.0.0/8"), &route()), Some(Cow::Owned(route())));
        assert_eq!(only.apply(&net("10.0.0.0/9"), &route()), None);
        assert!(matches!(Policy::accept().apply(&net("::/0"), &route()), Some(Cow::Borrowed(_))));
    }
}
