//! The chains that a connection's first packet passes, one for each way of leading it, whatever Services go it.

use weft_kernel::nft::{Expr, Field, Rule, Side};
use weft_model::mark::MASQUERADE;

use super::tables::Map;
use crate::nftables::way::{PODS, TCP};
use crate::{Choice, Frontend, FrontendKey, Place, Policy};

/// What becomes of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lead {
    /// A virtual server leads them on.
    Serve,
    Refuse,
    Drop,
}

impl Lead {
    const ALL: [Lead; 3] = [Lead::Serve, Lead::Refuse, Lead::Drop];

    fn of(choice: &Choice) -> Lead {
        match choice {
            Choice::Backends(_) => Lead::Serve,
            Choice::Reject => Lead::Refuse,
            Choice::Drop => Lead::Drop,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Lead::Serve => "served",
            // Not the words of nft, which takes a chain of such a name for them.
            Lead::Refuse => "refused",
            Lead::Drop => "dropped",
        }
    }
}

/// Where the virtual server of a frontend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// At the frontend's address.
    Own,
    /// At an inner address, since the frontend's is the node's own.
    Inner,
    /// At an inner address that all node ports share.
    Node,
}

/// All that connections of frontends of one chain have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) door: Door,
    pub(super) policy: Policy,
    pub(super) all: Lead,
    pub(super) local: Lead,
}

impl Way {
    /// Every way there is.
    pub(super) fn every() -> Vec<Way> {
        let mut ways = Vec::new();
        for door in [Door::Own, Door::Inner, Door::Node] {
            for policy in [Policy::Internal, Policy::Cluster, Policy::Local] {
                for (all, local) in Lead::ALL.into_iter().flat_map(|a| Lead::ALL.map(|l| (a, l))) {
                    let way = Way { door, policy, all, local };
                    if way == way.plainest() {
                        ways.push(way);
                    }
                }
            }
        }
        ways
    }

    /// The way that a frontend's connections go.
    pub(super) fn of(at: &FrontendKey, frontend: &Frontend, is_own: bool) -> Way {
        let door = match at.place {
            Place::NodePort { .. } => Door::Node,
            Place::Address(_) if is_own => Door::Inner,
            Place::Address(_) => Door::Own,
        };
        let (all, local) = (Lead::of(&frontend.all), Lead::of(&frontend.local));
        Way { door, policy: frontend.policy, all, local }.plainest()
    }

    /// The same without what makes no difference.
    fn plainest(self) -> Way {
        let local = if self.policy == Policy::Local { self.local } else { self.all };
        match (self.all, local) {
            (Lead::Serve, _) | (_, Lead::Serve) => Way { local, ..self },
            (all, _) if all == local => Way { door: Door::Own, policy: Policy::Cluster, all, local },
            _ => Way { door: Door::Own, local, ..self },
        }
    }

    /// The number by which frontends name it.
    pub(super) fn number(&self) -> u32 {
        let [door, policy, all, local] =
            [self.door as u32, self.policy as u32, self.all as u32, self.local as u32];
        ((door * 3 + policy) * 3 + all) * 3 + local
    }

    /// The chain's name.
    pub(super) fn chain(&self) -> String {
        let door = match self.door {
            Door::Own => "",
            Door::Inner => "inner-",
            Door::Node => "node-",
        };
        let Way { all, local, .. } = self;
        match (self.policy, all) {
            (Policy::Cluster, Lead::Refuse | Lead::Drop) => all.name().into(),
            (Policy::Internal, _) => format!("{door}cluster"),
            (Policy::Cluster, _) => format!("{door}external"),
            (Policy::Local, _) => format!("{door}local-{}-{}", all.name(), local.name()),
        }
    }

    /// The chain's rules.
    pub(super) fn rules(&self, ipv6: bool) -> Vec<Rule> {
        let mark = Expr::SetMark { mask: !MASQUERADE, xor: MASQUERADE };
        let from_pods = Expr::saddr_in(PODS, ipv6);
        let mut rules = Vec::new();
        match (self.policy, self.all) {
            (Policy::Internal, Lead::Serve) => {
                rules.push(Rule::new("who is no pod is masqueraded", [from_pods.negated(), mark]));
            }
            (Policy::Cluster, Lead::Serve) => rules.push(Rule::new("", [mark])),
            (Policy::Internal | Policy::Cluster, _) => {}
            (Policy::Local, _) => {
                rules.push(Rule::new("this node's own are masqueraded", [Expr::LocalSource, mark]));
                let own = Expr::Mark { value: MASQUERADE, mask: MASQUERADE };
                self.outcome(self.all, false, Some(from_pods), ipv6, &mut rules);
                self.outcome(self.all, false, Some(own), ipv6, &mut rules);
            }
        }
        self.outcome(self.local, self.policy == Policy::Local, None, ipv6, &mut rules);
        rules
    }

    /// `here`: to this node's endpoints alone.
    fn outcome(&self, lead: Lead, here: bool, who: Option<Expr>, ipv6: bool, rules: &mut Vec<Rule>) {
        let rule = |exprs: Vec<Expr>| Rule::new("", who.iter().cloned().chain(exprs));
        match lead {
            Lead::Refuse => {
                rules.push(rule(vec![Expr::l4proto(TCP), Expr::Reject { tcp_reset: true }]));
                rules.push(rule(vec![Expr::Reject { tcp_reset: false }]));
            }
            Lead::Drop => rules.push(rule(vec![Expr::Drop])),
            // Where it goes there is a virtual server.
            Lead::Serve if self.door == Door::Own && !here => rules.push(rule(vec![Expr::Accept])),
            Lead::Serve => {
                let node = self.door == Door::Node;
                let (mut exprs, end) = Expr::load(0, frontend(node, ipv6));
                let map = Map::servers(node, here).name().into();
                exprs.extend([Expr::Map { at: 0, map, to: end }, Expr::DnatTo { at: end, ipv6 }]);
                rules.push(rule(exprs));
            }
        }
    }
}

/// The fields of a frontend's key.
pub(super) fn frontend(node: bool, ipv6: bool) -> Vec<Field> {
    let to = (!node).then_some(Field::Address { side: Side::Destination, ipv6 });
    to.into_iter().chain([Field::Protocol, Field::Port(Side::Destination)]).collect()
}
