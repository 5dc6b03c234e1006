use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use weft_model::{Mac, Node, mark};

use crate::flannel;

/// A node that claims something; the one that is longer in the cluster goes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Holder {
    created: Arc<str>,
    pub(crate) name: Arc<str>,
}

impl Holder {
    pub(crate) fn of(node: &Node) -> Holder {
        Holder { created: node.created.clone(), name: node.name.clone() }
    }
}

/// Which node claims which address and which pod CIDR, indexed so that one node's conflicts
/// are found without walking the others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims {
    addresses: BTreeMap<IpAddr, BTreeSet<Holder>>,
    cidrs: BTreeMap<IpNet, BTreeSet<Holder>>,
    macs: BTreeMap<Mac, BTreeSet<Holder>>,
}

impl Claims {
    pub(crate) fn insert(&mut self, node: &Node) {
        let holder = Holder::of(node);
        for address in addresses(node) {
            self.addresses.entry(address).or_default().insert(holder.clone());
        }
        for mac in macs(node) {
            self.macs.entry(mac).or_default().insert(holder.clone());
        }
        for cidr in &node.pod_cidrs {
            self.cidrs.entry(cidr.trunc()).or_default().insert(holder.clone());
        }
    }

    pub(crate) fn remove(&mut self, node: &Node) {
        let holder = Holder::of(node);
        for address in addresses(node) {
            withdraw(&mut self.addresses, &address, &holder);
        }
        for mac in macs(node) {
            withdraw(&mut self.macs, &mac, &holder);
        }
        for cidr in &node.pod_cidrs {
            withdraw(&mut self.cidrs, &cidr.trunc(), &holder);
        }
    }

    /// The nodes that claim `address`, the oldest first.
    pub(crate) fn holders(&self, address: &IpAddr) -> impl Iterator<Item = &Holder> {
        self.addresses.get(address).into_iter().flatten()
    }

    /// The nodes whose VXLAN device says that it has `mac`, the oldest first.
    pub(crate) fn mac_holders(&self, mac: &Mac) -> impl Iterator<Item = &Holder> {
        self.macs.get(mac).into_iter().flatten()
    }

    /// Every claimed pod CIDR that shares an address with `cidr`, with its claimant.
    pub(crate) fn overlapping(&self, cidr: &IpNet) -> impl Iterator<Item = (IpNet, &Holder)> {
        let cidr = cidr.trunc();
        let wider = supernets(cidr).skip(1);
        let wider = wider.filter_map(|net| self.cidrs.get(&net).map(|names| (net, names)));
        let inside = self.cidrs.range(cidr..=narrowest_last(cidr)).map(|(net, names)| (*net, names));
        wider.chain(inside).flat_map(|(net, names)| names.iter().map(move |name| (net, name)))
    }

    /// Every claimed node address inside `cidr`, with its claimant.
    pub(crate) fn addresses_in(&self, cidr: &IpNet) -> impl Iterator<Item = (IpAddr, &Holder)> {
        let range = self.addresses.range(cidr.network()..=cidr.broadcast());
        range.flat_map(|(address, names)| names.iter().map(move |name| (*address, name)))
    }

    /// The nodes whose verdict can depend on what `node` claims.
    pub(crate) fn touching(&self, node: &Node) -> BTreeSet<Arc<str>> {
        let mut names: BTreeSet<Arc<str>> = [node.name.clone()].into();
        for address in addresses(node) {
            names.extend(self.holders(&address).map(|holder| holder.name.clone()));
            names.extend(self.overlapping(&IpNet::from(address)).map(|(_, holder)| holder.name.clone()));
        }
        for mac in macs(node) {
            names.extend(self.mac_holders(&mac).map(|holder| holder.name.clone()));
        }
        for cidr in &node.pod_cidrs {
            names.extend(self.overlapping(cidr).map(|(_, holder)| holder.name.clone()));
        }
        names
    }
}

/// Where packets for the node's pods may go.
pub(crate) fn addresses(node: &Node) -> BTreeSet<IpAddr> {
    let announced = flannel::neighbour(node).and_then(Result::ok);
    let ends = announced.iter().flat_map(|announced| announced.ends().map(|end| end.address));
    node.addresses.iter().copied().chain(ends).collect()
}

/// The hardware addresses of the node's VXLAN devices.
fn macs(node: &Node) -> BTreeSet<Mac> {
    match flannel::neighbour(node) {
        None => [mark::vtep_mac(&node.name)].into(),
        Some(announced) => {
            let announced = announced.ok();
            announced
                .iter()
                .flat_map(|it| it.ends().filter_map(|end| end.vtep.map(|vtep| vtep.mac)))
                .collect()
        }
    }
}

fn withdraw<K: Ord>(claims: &mut BTreeMap<K, BTreeSet<Holder>>, key: &K, holder: &Holder) {
    let Some(names) = claims.get_mut(key) else { return };
    names.remove(holder);
    if names.is_empty() {
        claims.remove(key);
    }
}

/// `cidr`, the network twice its size around it, and so on to the whole family.
fn supernets(cidr: IpNet) -> impl Iterator<Item = IpNet> {
    std::iter::successors(Some(cidr), IpNet::supernet)
}

/// The last network, in `IpNet`'s order, that lies inside `cidr`.
fn narrowest_last(cidr: IpNet) -> IpNet {
    match cidr {
        IpNet::V4(net) => Ipv4Net::from(net.broadcast()).into(),
        IpNet::V6(net) => Ipv6Net::from(net.broadcast()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use weft_model::network::overlaps;

    fn node(name: &str, cidrs: &[IpNet]) -> Node {
        Node { name: name.into(), pod_cidrs: cidrs.to_vec(), ..Node::default() }
    }

    fn any_net() -> impl Strategy<Value = IpNet> {
        let v4 = (0u32..64, 26u8..=32)
            .prop_map(|(host, len)| Ipv4Net::new((0x0a00_0000 + host).into(), len).unwrap().into());
        let v6 = (0u128..64, 122u8..=128)
            .prop_map(|(host, len)| Ipv6Net::new(((0xfd_u128 << 120) + host).into(), len).unwrap().into());
        prop_oneof![v4, v6].prop_map(|net: IpNet| net.trunc())
    }

    proptest! {
        #[test]
        fn overlaps_are_those_a_plain_search_finds(nets in prop::collection::vec(any_net(), 0..12), asked in any_net()) {
            let mut claims = Claims::default();
            for (i, net) in nets.iter().enumerate() {
                claims.insert(&node(&format!("n{i:02}"), &[*net]));
            }
            let mut found: Vec<_> = claims.overlapping(&asked).map(|(net, holder)| (holder.name.to_string(), net)).collect();
            found.sort();
            let plain: Vec<_> = nets.iter().enumerate().filter(|(_, net)| overlaps(net, &asked))
                .map(|(i, net)| (format!("n{i:02}"), *net)).collect();
            prop_assert_eq!(found, plain);
        }
    }

    #[test]
    fn a_withdrawn_claim_leaves_nothing() {
        let mut claims = Claims::default();
        let one = Node {
            addresses: vec!["10.0.0.1".parse().unwrap()],
            ..node("a", &["10.1.0.0/24".parse().unwrap()])
        };
        claims.insert(&one);
        claims.remove(&one);
        assert!(claims.addresses.is_empty() && claims.cidrs.is_empty() && claims.macs.is_empty());
    }
}
