//! Leaving the cluster: the table `weft` of each family that has a cluster CIDR.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use weft_kernel::nft::{ChainKind, Expr, Family, Hook, Nft, Rule, Ruleset, Set, SetKey, Transaction};
use weft_model::mark;

use crate::{Error, Masquerade};

/// The priority at which source NAT runs (NF_IP_PRI_NAT_SRC).
const SRCNAT: i32 = 100;
/// Where pods' packets keep the pods' own addresses.
const NEVER: &str = "cluster";
/// The pods that leave under their node's address.
const SOURCES: &str = "masqueraded";

/// Makes the tables as planned, each in one transaction, and only where they differ from what
/// is there. Returns how many were changed.
pub fn ensure(nft: &mut Nft, plan: &Masquerade) -> Result<usize, Error> {
    let mut changed = 0;
    for family in [Family::Ip, Family::Ip6] {
        let found = nft.dump(family, mark::TABLE)?;
        let transaction = match (ruleset(plan, family), &found) {
            (Some(wanted), _) => wanted.replace_transaction(found.as_ref()),
            (None, Some(orphan)) => removal(orphan),
            (None, None) => continue,
        };
        if !transaction.is_empty() {
            nft.apply(&transaction)?;
            changed += 1;
        }
    }
    Ok(changed)
}

fn removal(orphan: &Ruleset) -> Transaction {
    let mut transaction = Transaction::default();
    transaction.delete_table(&orphan.table);
    transaction
}

/// The table of one family; none where no pods of it leave under their node's address.
fn ruleset(plan: &Masquerade, family: Family) -> Option<Ruleset> {
    let ipv6 = family == Family::Ip6;
    let of_family = |nets: &[IpNet]| -> Vec<IpNet> {
        nets.iter().filter(|n| n.addr().is_ipv6() == ipv6).copied().collect()
    };
    let (sources, never) = (of_family(&plan.sources), of_family(&plan.never));
    if sources.is_empty() {
        return None;
    }
    let key = if ipv6 { SetKey::Ipv6 } else { SetKey::Ipv4 };
    let leaves = Rule::new(
        "a pod leaves the cluster",
        [
            Expr::saddr_in(SOURCES, ipv6),
            Expr::daddr_in(NEVER, ipv6).negated(),
            Expr::daddr(multicast(ipv6)).negated(),
            Expr::Masquerade { random_fully: true },
        ],
    );
    let ruleset = Ruleset::new(family, mark::TABLE).with_set(NEVER, Set::nets(key, never));
    let ruleset = ruleset.with_set(SOURCES, Set::nets(key, sources));
    Some(ruleset.with_base_chain("postrouting", ChainKind::Nat, Hook::Postrouting, SRCNAT, vec![leaves]))
}

fn multicast(ipv6: bool) -> IpNet {
    if ipv6 {
        IpNet::V6(Ipv6Net::new_assert([0xff00, 0, 0, 0, 0, 0, 0, 0].into(), 8))
    } else {
        IpNet::V4(Ipv4Net::new_assert([224, 0, 0, 0].into(), 4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_kernel::nft::Side;
    use weft_model::pools::IpPool;

    /// Follows a packet through the rules: whether it is masqueraded. Panics at a rule text
    /// that it does not know.
    fn masquerades(ruleset: &Ruleset, from: &str, to: &str) -> bool {
        let (from, to): (std::net::IpAddr, std::net::IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let address = |side: &Side| -> &std::net::IpAddr { if *side == Side::Source { &from } else { &to } };
        let chain = &ruleset.chains["postrouting"];
        chain.rules.iter().any(|rule| {
            rule.exprs.iter().all(|expr| match expr {
                Expr::Address { side, net, negate } => net.contains(address(side)) != *negate,
                Expr::AddressIn { side, set, negate, .. } => {
                    ruleset.sets[set].elements().iter().any(|net| net.contains(address(side))) != *negate
                }
                Expr::Masquerade { random_fully } => *random_fully,
                other => panic!("unknown rule text {other:?}"),
            })
        })
    }

    fn plan(cidrs: &[&str]) -> Masquerade {
        let cidrs: Vec<IpNet> = cidrs.iter().map(|c| c.parse().unwrap()).collect();
        Masquerade::of(&cidrs, &[], &[])
    }

    #[test]
    fn only_what_leaves_the_cluster_is_masqueraded() {
        let v4 = ruleset(&plan(&["10.244.0.0/16", "10.245.0.0/16", "fd00:244::/48"]), Family::Ip).unwrap();
        for (from, to, masqueraded) in [
            ("10.244.0.5", "192.0.2.1", true),
            ("10.244.0.5", "10.168.0.3", true),
            ("10.244.0.5", "10.244.1.5", false),
            ("10.244.0.5", "10.245.1.5", false),
            ("10.168.0.2", "192.0.2.1", false),
            ("10.168.0.2", "10.244.1.5", false),
            ("10.244.0.5", "239.1.2.3", false),
        ] {
            assert_eq!(masquerades(&v4, from, to), masqueraded, "{from} to {to}");
        }
        let v6 = ruleset(&plan(&["fd00:244::/48"]), Family::Ip6).unwrap();
        assert!(masquerades(&v6, "fd00:244::5", "2001:db8::1"));
        assert!(!masquerades(&v6, "fd00:244::5", "fd00:244:0:1::5"));
        assert!(!masquerades(&v6, "fd00:244::5", "ff0e::1"));
    }

    #[test]
    fn pools_say_for_themselves_and_exceptions_are_kept() {
        let pool = |cidr: &str, nat_outgoing| IpPool {
            name: cidr.into(),
            uid: cidr.into(),
            created: "".into(),
            cidr: cidr.parse().unwrap(),
            block_size: 26,
            disabled: false,
            nat_outgoing,
            manual: false,
            node_selector: Default::default(),
            namespace_selector: Default::default(),
        };
        let pools = [pool("10.244.0.0/17", true), pool("10.9.0.0/16", false)];
        let plan = Masquerade::of(
            &["10.244.0.0/16".parse().unwrap()],
            &pools.iter().collect::<Vec<_>>(),
            &["192.0.2.0/24".parse().unwrap()],
        );
        let table = ruleset(&plan, Family::Ip).unwrap();
        for (from, to, masqueraded) in [
            ("10.244.0.5", "198.51.100.1", true),
            ("10.244.0.5", "192.0.2.1", false),
            ("10.244.0.5", "10.9.0.1", false),
            ("10.244.200.5", "198.51.100.1", false),
            ("10.9.0.5", "198.51.100.1", false),
        ] {
            assert_eq!(masquerades(&table, from, to), masqueraded, "{from} to {to}");
        }
        let none = Masquerade::of(&[], &[&pool("10.9.0.0/16", false)], &[]);
        assert_eq!(ruleset(&none, Family::Ip), None);
    }

    #[test]
    fn a_family_without_pods_has_no_table() {
        assert_eq!(ruleset(&plan(&["10.244.0.0/16"]), Family::Ip6), None);
    }
}
