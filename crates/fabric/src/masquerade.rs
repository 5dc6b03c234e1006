//! The table `weft` of each family that has pods: what leaves the cluster is masqueraded, and what pods
//! send by TCP fits its path also where no ICMP arrives.

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use weft_kernel::nft::{ChainKind, Expr, Family, Hook, Nft, Rule, Ruleset, Set, SetKey, Transaction};
use weft_model::{Cluster, mark};

use crate::Error;

/// The priority at which source NAT runs (NF_IP_PRI_NAT_SRC).
const SRCNAT: i32 = 100;
/// That of what alters packets (NF_IP_PRI_MANGLE).
const MANGLE: i32 = -150;
/// IANA's number of TCP.
const TCP: u8 = 6;
/// Where pods' packets keep the pods' own addresses.
const NEVER: &str = "cluster";
/// The pods that leave under their node's address.
const SOURCES: &str = "masqueraded";
/// All pods.
const PODS: &str = "pods";

/// Where pods can have addresses of pools, and whether they leave under their node's: the pools, and the
/// blocks of pools that are gone.
pub(crate) type Pools = BTreeMap<IpNet, bool>;

/// The same for a cluster.
pub(crate) fn pools(cluster: &Cluster) -> Pools {
    let mut nets: Pools = cluster.pools.values().map(|pool| (pool.cidr, pool.nat_outgoing)).collect();
    let kept = |net: &IpNet| cluster.pools.values().any(|pool| pool.cidr.contains(net));
    let orphans = cluster.blocks.values().filter(|block| !kept(&block.cidr));
    nets.extend(orphans.map(|block| (block.cidr, block.nat_outgoing)));
    nets
}

/// What the node's nftables do. Source among `sources`, destination not among `never` and not
/// multicast: masquerade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masquerade {
    /// The pods that leave under their node's address: all of the cluster's CIDRs, or where addresses
    /// come from pools those with natOutgoing. Merged and sorted.
    pub sources: Vec<IpNet>,
    /// Where pods' packets keep the pods' own addresses: the cluster's CIDRs, all pools and the
    /// configured exceptions. Merged and sorted.
    pub never: Vec<IpNet>,
    /// All pods: the segment size that their connections agree on is lowered to what the route takes.
    /// Merged and sorted.
    pub pods: Vec<IpNet>,
}

impl Masquerade {
    /// `pools` is given where addresses come from pools.
    pub(crate) fn of(cluster_cidrs: &[IpNet], pools: Option<&Pools>, exceptions: &[IpNet]) -> Masquerade {
        let merged = |nets: Vec<IpNet>| IpNet::aggregate(&nets.iter().map(IpNet::trunc).collect());
        let of_pools = pools.iter().flat_map(|pools| pools.keys()).copied();
        let pods: Vec<IpNet> = cluster_cidrs.iter().copied().chain(of_pools).collect();
        let never = merged(pods.iter().chain(exceptions).copied().collect());
        let sources = match pools {
            None => cluster_cidrs.to_vec(),
            Some(pools) => {
                pools.iter().filter(|(_, nat_outgoing)| **nat_outgoing).map(|(net, _)| *net).collect()
            }
        };
        Masquerade { sources: merged(sources), never, pods: merged(pods) }
    }
}

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

/// The table of one family; none where it has no pods.
fn ruleset(plan: &Masquerade, family: Family) -> Option<Ruleset> {
    let ipv6 = family == Family::Ip6;
    let of_family = |nets: &[IpNet]| -> Vec<IpNet> {
        nets.iter().filter(|n| n.addr().is_ipv6() == ipv6).copied().collect()
    };
    let pods = of_family(&plan.pods);
    if pods.is_empty() {
        return None;
    }
    let key = if ipv6 { SetKey::Ipv6 } else { SetKey::Ipv4 };
    // Both ways: what answers has a segment size of its own.
    let fits = |pod: Expr| {
        let exprs = [Expr::l4proto(TCP), Expr::TcpSyn, pod, Expr::ClampSegments];
        Rule::new("a connection fits its path", exprs)
    };
    let fits = [Expr::saddr_in(PODS, ipv6), Expr::daddr_in(PODS, ipv6)].map(fits);
    let ruleset = Ruleset::new(family, mark::TABLE).with_set(PODS, Set::nets(key, pods));
    let ruleset = ruleset.with_base_chain("forward", ChainKind::Filter, Hook::Forward, MANGLE, fits.into());
    let (sources, never) = (of_family(&plan.sources), of_family(&plan.never));
    if sources.is_empty() {
        return Some(ruleset);
    }
    let leaves = Rule::new(
        "a pod leaves the cluster",
        [
            Expr::saddr_in(SOURCES, ipv6),
            Expr::daddr_in(NEVER, ipv6).negated(),
            Expr::daddr(multicast(ipv6)).negated(),
            Expr::Masquerade { random_fully: true },
        ],
    );
    let ruleset = ruleset.with_set(NEVER, Set::nets(key, never)).with_set(SOURCES, Set::nets(key, sources));
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
        Masquerade::of(&cidrs, None, &[])
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
        let pools = |pools: &[(&str, bool)]| -> Pools {
            pools.iter().map(|(cidr, nat_outgoing)| (cidr.parse().unwrap(), *nat_outgoing)).collect()
        };
        let plan = Masquerade::of(
            &["10.244.0.0/16".parse().unwrap()],
            Some(&pools(&[("10.244.0.0/17", true), ("10.9.0.0/16", false)])),
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
        let none = Masquerade::of(&[], Some(&pools(&[("10.9.0.0/16", false)])), &[]);
        let table = ruleset(&none, Family::Ip).unwrap();
        assert_eq!(table.chains.keys().collect::<Vec<_>>(), ["forward"], "nothing is masqueraded");
    }

    #[test]
    fn a_family_without_pods_has_no_table() {
        assert_eq!(ruleset(&plan(&["10.244.0.0/16"]), Family::Ip6), None);
    }
}
