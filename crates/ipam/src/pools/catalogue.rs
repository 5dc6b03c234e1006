//! The pools of a cluster: which of them count, and who may use them.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use weft_model::Cluster;
use weft_model::network::overlaps;
use weft_model::pools::{IpPool, Labels, Namespace, Wish};

/// The pools that make sense, by name, and what is wrong with the others.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    pools: BTreeMap<Arc<str>, Arc<IpPool>>,
    /// What is wrong, each in one sentence.
    pub problems: Vec<String>,
}

/// The pools that the pods of a namespace can have addresses of on a node, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Choice {
    /// Out of which a pod gets its addresses when it asks for nothing.
    pub automatic: Vec<Arc<str>>,
    /// Which it may ask for.
    pub allowed: Vec<Arc<str>>,
}

impl Catalogue {
    /// Checks the pools of a cluster.
    pub fn of(cluster: &Cluster) -> Catalogue {
        let mut by_age: Vec<&Arc<IpPool>> = cluster.pools.values().collect();
        by_age.sort_by(|a, b| (&a.created, &a.name).cmp(&(&b.created, &b.name)));
        let mut catalogue = Catalogue::default();
        for pool in by_age {
            match catalogue.fault(pool) {
                Some(fault) => catalogue.problems.push(fault),
                None => _ = catalogue.pools.insert(pool.name.clone(), pool.clone()),
            }
        }
        catalogue
    }

    fn fault(&self, pool: &IpPool) -> Option<String> {
        let (name, cidr, size) = (&pool.name, pool.cidr, pool.block_size);
        let sizes = if cidr.addr().is_ipv4() { 20..=30 } else { 116..=126 };
        if !sizes.contains(&size) {
            let (from, to) = (sizes.start(), sizes.end());
            return Some(format!("pool {name}: blockSize {size} is not in {from} to {to}: it is not used"));
        }
        if cidr.prefix_len() > size {
            return Some(format!("pool {name}: {cidr} is smaller than a block (/{size}): it is not used"));
        }
        let other = self.pools.values().find(|other| overlaps(&other.cidr, &cidr))?;
        Some(format!(
            "pool {name}: {cidr} overlaps {} of the older pool {}: it is not used",
            other.cidr, other.name
        ))
    }

    /// A pool that counts.
    pub fn get(&self, name: &str) -> Option<&Arc<IpPool>> {
        self.pools.get(name)
    }

    /// All pools that count.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<IpPool>> {
        self.pools.values()
    }

    /// The pool that a network is part of.
    pub fn around(&self, net: &IpNet) -> Option<&Arc<IpPool>> {
        self.pools.values().find(|pool| pool.cidr.contains(net))
    }

    /// Whether pods of a node with these labels get new addresses of the pool.
    pub fn serves(&self, name: &str, node: &Labels) -> bool {
        self.get(name).is_some_and(|pool| !pool.disabled && pool.node_selector.matches(node))
    }

    /// What pods of a namespace get on a node with these labels.
    pub fn choice(&self, namespace: &Namespace, node: &Labels) -> Choice {
        let allowed: Vec<Arc<str>> = self
            .pools
            .values()
            .filter(|pool| {
                self.serves(&pool.name, node) && pool.namespace_selector.matches(&namespace.labels)
            })
            .map(|pool| pool.name.clone())
            .collect();
        let is_manual = |name: &Arc<str>| self.get(name).is_some_and(|pool| pool.manual);
        let automatic = if namespace.pools.is_empty() {
            allowed.iter().filter(|name| !is_manual(name)).cloned().collect()
        } else {
            namespace.pools.iter().filter(|name| allowed.contains(name)).cloned().collect()
        };
        Choice { automatic, allowed }
    }
}

impl Choice {
    /// The pools for a pod with this wish, in the order in which they are tried.
    pub fn for_wish(&self, wish: Option<&Wish>) -> Vec<Arc<str>> {
        match wish.filter(|wish| !wish.pools.is_empty()) {
            Some(wish) => wish.pools.iter().filter(|name| self.allowed.contains(name)).cloned().collect(),
            None => self.automatic.clone(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use weft_model::pools::LabelSelector;

    pub(crate) fn pool(name: &str, cidr: &str, block_size: u8) -> IpPool {
        IpPool {
            name: name.into(),
            uid: name.into(),
            created: "2026-01-01T00:00:00Z".into(),
            cidr: cidr.parse().unwrap(),
            block_size,
            disabled: false,
            nat_outgoing: false,
            manual: false,
            disable_bgp_export: false,
            node_selector: LabelSelector::default(),
            namespace_selector: LabelSelector::default(),
        }
    }

    pub(crate) fn cluster(pools: Vec<IpPool>) -> Cluster {
        let pools = pools.into_iter().map(|pool| (pool.name.clone(), Arc::new(pool)));
        Cluster { pools: pools.collect(), ..Cluster::default() }
    }

    fn selector(key: &str, value: &str) -> LabelSelector {
        LabelSelector { match_labels: [(key.into(), value.into())].into(), match_expressions: vec![] }
    }

    #[test]
    fn pools_that_make_no_sense_are_told_and_not_used() {
        let late = IpPool { created: "2026-02-01T00:00:00Z".into(), ..pool("a-late", "10.1.0.0/17", 26) };
        let found = Catalogue::of(&cluster(vec![
            pool("good", "10.1.0.0/16", 26),
            late,
            pool("tiny", "10.2.0.0/28", 26),
            pool("odd", "10.3.0.0/16", 12),
            pool("six", "fd00::/64", 122),
        ]));
        let names: Vec<&str> = found.pools().map(|pool| &*pool.name).collect();
        assert_eq!(names, ["good", "six"]);
        for word in [
            "tiny: 10.2.0.0/28 is smaller",
            "a-late: 10.1.0.0/17 overlaps 10.1.0.0/16 of the older pool good",
            "odd: blockSize 12",
        ] {
            assert!(found.problems.iter().any(|p| p.contains(word)), "{word}: {:?}", found.problems);
        }
    }

    #[test]
    fn namespaces_and_nodes_choose() {
        let gold = IpPool { namespace_selector: selector("tier", "gold"), ..pool("gold", "10.1.0.0/16", 26) };
        let manual = IpPool { manual: true, ..pool("manual", "10.2.0.0/16", 26) };
        let east = IpPool { node_selector: selector("zone", "east"), ..pool("east", "10.3.0.0/16", 26) };
        let off = IpPool { disabled: true, ..pool("off", "10.4.0.0/16", 26) };
        let found = Catalogue::of(&cluster(vec![gold, manual, east, off, pool("usual", "10.5.0.0/16", 26)]));
        let namespace = |labels: &[(&str, &str)], pools: &[&str]| Namespace {
            name: "n".into(),
            labels: labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            pools: pools.iter().map(|name| (*name).into()).collect(),
        };
        let names = |list: &[Arc<str>]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let west = Labels::new();
        let plain = found.choice(&namespace(&[], &[]), &west);
        assert_eq!((names(&plain.automatic), names(&plain.allowed)), ("usual".into(), "manual usual".into()));
        let eastern = [("zone".into(), "east".into())].into();
        assert_eq!(
            names(&found.choice(&namespace(&[("tier", "gold")], &[]), &eastern).automatic),
            "east gold usual"
        );
        let named = found.choice(&namespace(&[], &["manual", "gold", "off"]), &west);
        assert_eq!(names(&named.automatic), "manual", "only what it may use");
        let wish = Wish { pools: vec!["manual".into(), "gold".into()], ips: vec![] };
        assert_eq!(names(&plain.for_wish(Some(&wish))), "manual");
        assert_eq!(names(&plain.for_wish(None)), "usual");
    }
}
