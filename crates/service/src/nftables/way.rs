//! The chains that Services share: one for each way of leading a connection, whatever Services go it.

use weft_kernel::nft::{Change, Expr, Field, Rule, Side};
use weft_model::mark::MASQUERADE;

use super::maps::{Map, affinity};
use crate::{Choice, Frontend, FrontendKey, Place, Policy};

/// From which slot on the backends on this node are, where they are counted apart.
pub(super) const LOCAL_SLOTS: u32 = 1 << 20;
/// Pods.
pub(crate) const PODS: &str = "pods";
/// IANA's number of TCP.
pub(crate) const TCP: u8 = 6;

/// What is done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// It goes to one of so many backends.
    Pick(u32),
    Reject,
    Drop,
}

impl Outcome {
    fn of(choice: &Choice) -> Outcome {
        match choice {
            Choice::Backends(backends) => Outcome::Pick(u32::try_from(backends.len()).unwrap_or(u32::MAX)),
            Choice::Reject => Outcome::Reject,
            Choice::Drop => Outcome::Drop,
        }
    }

    fn name(self) -> String {
        match self {
            Outcome::Pick(count) => count.to_string(),
            // Not the words of nft, which takes a chain of such a name for them.
            Outcome::Reject => "refused".into(),
            Outcome::Drop => "dropped".into(),
        }
    }
}

/// The ways with up to so many backends that are always there: a rule that looks something up in a map has the kernel
/// look through all of the map, unless that is still empty.
const COMMON: u32 = 16;

/// All that connections of frontends of one chain have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Way {
    /// Whether it leads from node ports, which have no address of their own.
    pub(super) node: bool,
    pub(super) policy: Policy,
    pub(super) all: Outcome,
    pub(super) local: Outcome,
    pub(super) affinity: Option<u32>,
}

impl Way {
    /// Those that are always there.
    pub(super) fn common() -> impl Iterator<Item = Way> {
        let kinds = [(false, Policy::Internal), (false, Policy::Cluster), (true, Policy::Cluster)];
        kinds.into_iter().flat_map(|(node, policy)| {
            let outcome = (1..=COMMON).map(Outcome::Pick);
            outcome.map(move |all| Way { node, policy, all, local: all, affinity: None })
        })
    }

    /// The way that a frontend's connections go.
    pub(super) fn of(at: &FrontendKey, frontend: &Frontend) -> Way {
        let all = Outcome::of(&frontend.all);
        let local = if frontend.policy == Policy::Local { Outcome::of(&frontend.local) } else { all };
        let policy = frontend.policy;
        let way = Way {
            node: matches!(at.place, Place::NodePort { .. }),
            policy,
            all,
            local,
            affinity: frontend.affinity,
        };
        match (all, local) {
            (Outcome::Pick(_), _) | (_, Outcome::Pick(_)) => way,
            // Where nobody is led anywhere nothing else matters.
            (all, local) => {
                let policy = if all == local { Policy::Cluster } else { policy };
                Way { node: false, policy, affinity: None, ..way }
            }
        }
    }

    /// The chain's name.
    pub(super) fn chain(&self) -> String {
        let node = if self.node { "node-" } else { "" };
        let name = match (self.policy, self.all) {
            (Policy::Cluster, Outcome::Reject | Outcome::Drop) => return self.all.name(),
            (Policy::Internal, all) => format!("{node}cluster-{}", all.name()),
            (Policy::Cluster, all) => format!("{node}external-{}", all.name()),
            (Policy::Local, all) => format!("{node}local-{}-{}", all.name(), self.local.name()),
        };
        match self.affinity {
            Some(seconds) => format!("{name}-affinity-{seconds}"),
            None => name,
        }
    }

    /// The chain's rules.
    pub(super) fn rules(&self, ipv6: bool) -> Vec<Rule> {
        let mark = Expr::SetMark { mask: !MASQUERADE, xor: MASQUERADE };
        let from_pods = Expr::saddr_in(PODS, ipv6);
        let mut rules = Vec::new();
        match self.policy {
            Policy::Internal if matches!(self.all, Outcome::Pick(_)) => {
                rules.push(Rule::new("who is no pod is masqueraded", [from_pods.negated(), mark]));
            }
            Policy::Cluster if matches!(self.all, Outcome::Pick(_)) => {
                rules.push(Rule::new("", [mark]));
            }
            Policy::Internal | Policy::Cluster => {}
            Policy::Local => {
                rules.push(Rule::new("this node's own are masqueraded", [Expr::LocalSource, mark]));
                let own = Expr::Mark { value: MASQUERADE, mask: MASQUERADE };
                self.outcome(self.all, false, Some(from_pods), ipv6, &mut rules);
                self.outcome(self.all, false, Some(own), ipv6, &mut rules);
            }
        }
        let local = self.policy == Policy::Local;
        self.outcome(self.local, local, None, ipv6, &mut rules);
        rules
    }

    fn outcome(&self, outcome: Outcome, local: bool, who: Option<Expr>, ipv6: bool, rules: &mut Vec<Rule>) {
        let rule = |exprs: Vec<Expr>| Rule::new("", who.iter().cloned().chain(exprs));
        match outcome {
            Outcome::Reject => {
                rules.push(rule(vec![Expr::l4proto(TCP), Expr::Reject { tcp_reset: true }]));
                rules.push(rule(vec![Expr::Reject { tcp_reset: false }]));
            }
            Outcome::Drop => rules.push(rule(vec![Expr::Drop])),
            Outcome::Pick(count) => {
                let pick = Pick { node: self.node, local, count, ipv6 };
                let found = match self.affinity {
                    None => vec![Rule::new("", pick.plain())],
                    Some(seconds) => vec![
                        Rule::new("to where it was led before, if that is there", pick.recall(seconds)),
                        Rule::new("somewhere, and remember it", pick.remember(Some(seconds))),
                        Rule::new("no room to remember", pick.remember(None)),
                    ],
                };
                for mut found in found {
                    found.exprs = who.iter().cloned().chain(found.exprs).collect();
                    rules.push(found);
                }
            }
        }
    }
}

/// The field that says where a packet goes, or comes from.
pub(super) fn address(side: Side, ipv6: bool) -> Field {
    Field::Address { side, ipv6 }
}

/// The fields of a frontend's key.
pub(super) fn frontend(node: bool, ipv6: bool) -> Vec<Field> {
    let to = (!node).then(|| address(Side::Destination, ipv6));
    to.into_iter().chain([Field::Protocol, Field::Port(Side::Destination)]).collect()
}

/// The choice of one backend.
struct Pick {
    node: bool,
    local: bool,
    count: u32,
    ipv6: bool,
}

impl Pick {
    fn slot(&self) -> Field {
        Field::Random { modulus: self.count, offset: if self.local { LOCAL_SLOTS } else { 0 } }
    }

    /// Without memory.
    fn plain(&self) -> Vec<Expr> {
        let slot = [self.slot()];
        let (mut exprs, end) = Expr::load(0, frontend(self.node, self.ipv6).into_iter().chain(slot));
        let map = Map::Endpoints.name(self.node).into();
        exprs.extend([Expr::Map { at: 0, map, to: end }, Expr::DnatTo { at: end, ipv6: self.ipv6 }]);
        exprs
    }

    /// The fields of a client's key, and behind it room for an address and a port.
    ///
    /// The maps of affinity have one more field before the address: nft (1.0.6) cannot list a rule where
    /// what a map has is part of a key. It takes it for what was loaded into the same registers before if the
    /// map's data begin earlier, in the register that is loaded again behind.
    fn client(&self, slot: Option<Field>) -> (Vec<Expr>, u8) {
        let from = [address(Side::Source, self.ipv6)];
        let room = [address(Side::Destination, self.ipv6), Field::Port(Side::Destination)];
        let key = from.into_iter().chain(frontend(self.node, self.ipv6)).chain(slot);
        let (mut exprs, end) = Expr::load(0, key);
        exprs.extend(Expr::load(end, room).0);
        (exprs, end)
    }

    fn change(change: Change, set: &str, data: u8) -> Expr {
        Expr::Change { change, set: set.into(), key: 0, data: Some(data), timeout: 0 }
    }

    fn recall(&self, seconds: u32) -> Vec<Expr> {
        let (mut exprs, end) = self.client(None);
        let known = affinity(self.node, seconds);
        let valid = if self.local { Map::AffineHere } else { Map::Affine };
        exprs.extend([
            Expr::Map { at: 0, map: known.clone(), to: end - 1 },
            Expr::Load { at: end - 1, field: Field::Port(Side::Destination) },
            Expr::Lookup {
                at: address(Side::Source, self.ipv6).registers(),
                set: valid.name(self.node).into(),
                negate: false,
            },
            Self::change(Change::Update, &known, end - 1),
            Expr::DnatTo { at: end, ipv6: self.ipv6 },
        ]);
        exprs
    }

    fn remember(&self, seconds: Option<u32>) -> Vec<Expr> {
        let (mut exprs, end) = self.client(Some(self.slot()));
        exprs.extend([
            Expr::Map {
                at: address(Side::Source, self.ipv6).registers(),
                map: Map::Remembered.name(self.node).into(),
                to: end - 1,
            },
            Expr::Load { at: end - 1, field: Field::Port(Side::Destination) },
        ]);
        if let Some(seconds) = seconds {
            let known = affinity(self.node, seconds);
            // An update leaves the data of an element that is there as they are.
            exprs.push(Self::change(Change::Delete, &known, end - 1));
            exprs.push(Self::change(Change::Update, &known, end - 1));
        }
        exprs.push(Expr::DnatTo { at: end, ipv6: self.ipv6 });
        exprs
    }
}
