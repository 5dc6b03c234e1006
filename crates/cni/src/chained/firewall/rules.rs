//! The rules of the iptables backend and of the ingress policies, in the `filter` tables.

use std::collections::BTreeSet;

use ipnet::IpNet;
use weft_kernel::nft::{Family, Table};
use weft_kernel::xtables::{CtState, Edit, Edits, Is, Match, Rule, Target, Xtables};

use crate::netfilter::{family, missing};
use crate::protocol::config::invalid;
use crate::protocol::error::{CniError, code};
use crate::protocol::result::CniResult;

const FILTER: &str = "filter";
const FORWARD: &str = "FORWARD";
const PRIVATE: &str = "CNI-FORWARD";
const STAGE_1: &str = "CNI-ISOLATION-STAGE-1";
const STAGE_2: &str = "CNI-ISOLATION-STAGE-2";

/// Where connections to the container may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    /// Anywhere.
    Open,
    /// Not from other bridges.
    SameBridge,
    /// Nor from containers at the same bridge.
    Isolated,
}

impl Policy {
    pub(super) fn of(named: Option<&str>) -> Result<Policy, CniError> {
        match named {
            None | Some("" | "open") => Ok(Policy::Open),
            Some("same-bridge") => Ok(Policy::SameBridge),
            Some("isolated") => Ok(Policy::Isolated),
            Some(other) => {
                let message =
                    format!("ingressPolicy: {other:?} is not supported: use open, same-bridge or isolated");
                Err(CniError::new(code::UNSUPPORTED_FIELD, message))
            }
        }
    }

    /// The bridge that the policy is for: the first interface of the result, as `bridge` has it.
    pub(super) fn bridge<'a>(&self, prev: &'a CniResult) -> Result<Option<&'a str>, CniError> {
        if *self == Policy::Open {
            return Ok(None);
        }
        let name = prev.interfaces.first().map(|interface| interface.name.as_str()).unwrap_or_default();
        let odd = |c: char| c == '/' || c == '+' || c.is_whitespace() || c.is_control();
        if name.is_empty() || name.len() > 15 || name.contains(odd) {
            return Err(invalid(
                "ingressPolicy: prevResult does not begin with a bridge: use this plugin after bridge",
            ));
        }
        Ok(Some(name))
    }

    /// Shared by all containers of the bridge, so no DEL removes it.
    pub(super) fn edits(&self, bridge: &str, addresses: &[IpNet]) -> Vec<Edits> {
        families(addresses).into_iter().map(|family| self.isolation(family, bridge)).collect()
    }

    fn isolation(&self, family: Family, bridge: &str) -> Edits {
        let of_both = "CNI firewall plugin rules (ingressPolicy: same-bridge|isolated)";
        let of_policy = match self {
            Policy::Isolated => "CNI firewall plugin rules (ingressPolicy: isolated)",
            _ => "CNI firewall plugin rules (ingressPolicy: same-bridge)",
        };
        let interface = |rule: Rule, from: Option<&str>, to: Option<Is<&str>>| Rule {
            in_interface: from.map(|name| Is::so(name.to_owned())),
            out_interface: to.map(|is| Is { not: is.not, value: is.value.to_owned() }),
            ..rule
        };
        let leaves = interface(Rule::jump(STAGE_2).comment(of_policy), Some(bridge), Some(Is::not(bridge)));
        let stays = interface(Rule::to(Target::Drop).comment(of_policy), Some(bridge), Some(Is::so(bridge)));
        let enters = interface(Rule::to(Target::Drop).comment(of_both), None, Some(Is::so(bridge)));
        let back = Rule::to(Target::Return).comment(of_both);
        let mut edits = Edits::of(family, FILTER)
            .edit(Edit::Chain(STAGE_1.into()))
            .edit(Edit::Chain(STAGE_2.into()))
            .insert(FORWARD, Rule::jump(STAGE_1).comment(of_both))
            .insert(STAGE_1, leaves);
        if *self == Policy::Isolated {
            edits = edits.insert(STAGE_1, stays);
        }
        edits.append(STAGE_1, back.clone()).insert(STAGE_2, enters).append(STAGE_2, back)
    }
}

fn families(addresses: &[IpNet]) -> BTreeSet<Family> {
    addresses.iter().map(|net| family(net.addr())).collect()
}

/// The rules that let the containers' traffic be forwarded.
pub(super) fn forward(admin_chain: &str, addresses: &[IpNet]) -> Vec<Edits> {
    let of = |of: Family| {
        let edits = Edits::of(of, FILTER)
            .edit(Edit::Chain(PRIVATE.into()))
            .edit(Edit::Chain(admin_chain.into()))
            .insert(FORWARD, Rule::jump(PRIVATE).comment("CNI firewall plugin rules"))
            .insert(PRIVATE, Rule::jump(admin_chain).comment("CNI firewall plugin admin overrides"));
        let ours = addresses.iter().filter(|net| family(net.addr()) == of).flat_map(own);
        ours.fold(edits, |edits, rule| edits.edit(Edit::Append { chain: PRIVATE.into(), rule }))
    };
    families(addresses).into_iter().map(of).collect()
}

/// Answers to the container, and all that it sends.
fn own(net: &IpNet) -> [Rule; 2] {
    let answers = Match::State(Is::so(CtState(CtState::RELATED.0 | CtState::ESTABLISHED.0)));
    [Rule::to(Target::Accept).towards(*net).matching(answers), Rule::to(Target::Accept).from(*net)]
}

pub(super) fn removal(addresses: &[IpNet]) -> Vec<Edits> {
    let of = |of: Family| {
        let ours = addresses.iter().filter(|net| family(net.addr()) == of).flat_map(own);
        ours.fold(Edits::of(of, FILTER), |edits, rule| {
            edits.edit(Edit::RemoveRule { chain: PRIVATE.into(), rule })
        })
    };
    families(addresses).into_iter().map(of).collect()
}

pub(super) fn check(xtables: &mut Xtables, admin_chain: &str, addresses: &[IpNet]) -> Result<(), CniError> {
    for edits in forward(admin_chain, addresses) {
        let table = Table::new(edits.table.family, FILTER);
        for edit in &edits.edits {
            let (Edit::Rule { chain, rule, .. } | Edit::Append { chain, rule }) = edit else { continue };
            let rules = xtables.rules(&table, chain)?.unwrap_or_default();
            if !rules.contains(rule) {
                return Err(missing(format!("chain {chain} of table {table} has no rule `{rule}`")));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_the_policies() {
        let shown = |policy: Policy| {
            let edits = policy.edits("br0", &["10.9.0.2/32".parse().unwrap()]);
            let line = |edit: &Edit| match edit {
                Edit::Rule { chain, rule, first } => {
                    format!("{} {chain} {rule}", if *first { "-I" } else { "-A" })
                }
                other => format!("{other:?}"),
            };
            edits[0]
                .edits
                .iter()
                .map(line)
                .collect::<Vec<_>>()
                .join("\n")
                .replace("CNI firewall plugin rules ", "")
        };
        let both = "-m comment --comment \"(ingressPolicy: same-bridge|isolated)\"";
        let same = "-m comment --comment \"(ingressPolicy: same-bridge)\"";
        let expected = format!(
            "Chain(\"CNI-ISOLATION-STAGE-1\")\nChain(\"CNI-ISOLATION-STAGE-2\")\n\
             -I FORWARD {both} -j CNI-ISOLATION-STAGE-1\n\
             -I CNI-ISOLATION-STAGE-1 -i br0 ! -o br0 {same} -j CNI-ISOLATION-STAGE-2\n\
             -A CNI-ISOLATION-STAGE-1 {both} -j RETURN\n\
             -I CNI-ISOLATION-STAGE-2 -o br0 {both} -j DROP\n\
             -A CNI-ISOLATION-STAGE-2 {both} -j RETURN"
        );
        assert_eq!(shown(Policy::SameBridge), expected);
        let isolated = shown(Policy::Isolated);
        assert!(isolated.contains("-I CNI-ISOLATION-STAGE-1 -i br0 -o br0"), "{isolated}");
        assert_eq!(isolated.lines().count(), expected.lines().count() + 1);
    }

    #[test]
    fn a_policy_wants_a_bridge_and_a_known_name() {
        assert_eq!(Policy::of(Some("closed")).unwrap_err().code, code::UNSUPPORTED_FIELD);
        assert!(Policy::SameBridge.bridge(&CniResult::default()).is_err());
        assert_eq!(Policy::Open.bridge(&CniResult::default()).unwrap(), None);
    }
}
