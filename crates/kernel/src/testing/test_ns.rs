use std::collections::BTreeMap;

use ipnet::IpNet;

use super::require_root;
use crate::{Address, LinkKind, LinkSet, Netlink, Netns, NetnsGuard, NewLink, Op};

/// A fresh network namespace that the calling test thread is in until this is dropped. Child
/// processes started from the thread are in it too.
#[derive(Debug)]
pub struct TestNs {
    ns: Netns,
    extra: BTreeMap<String, Netns>,
    /// Dropped last: brings the thread back. The namespaces go with their descriptors.
    _guard: NetnsGuard,
}

impl TestNs {
    /// Moves the calling thread into a fresh namespace whose loopback is up.
    #[expect(clippy::new_without_default, reason = "it moves the thread, which a default should not")]
    pub fn new() -> TestNs {
        require_root();
        let ns = Netns::create_unpinned().expect("make a network namespace");
        let guard = ns.guard().expect("enter the namespace just made");
        TestNs { ns, extra: BTreeMap::new(), _guard: guard }
    }

    /// The namespace the thread is in.
    pub fn ns(&self) -> &Netns {
        &self.ns
    }

    /// A routing socket in it.
    pub fn netlink(&self) -> Netlink {
        Netlink::open_in(&self.ns).expect("open a routing socket")
    }

    /// One more namespace, unpinned, known by `name` from now on (the same one on a second
    /// call). It is gone with this value.
    pub fn extra(&mut self, name: &str) -> Netns {
        let make = || Netns::create_unpinned().expect("make a network namespace");
        self.extra.entry(name.to_owned()).or_insert_with(make).clone()
    }

    /// Joins two namespaces by a veth pair that is up: namespace, interface name and address
    /// with prefix length (`10.0.0.1/24`) of each end. IPv6 addresses are usable at once.
    pub fn join(&mut self, a: (&Netns, &str, &str), b: (&Netns, &str, &str)) {
        let kind = LinkKind::Veth {
            peer_name: b.1.to_owned(),
            peer_netns: Some(b.0.clone()),
            peer_mac: None,
            peer_mtu: None,
            peer_up: false,
        };
        let pair = NewLink { netns: Some(a.0.clone()), ..NewLink::new(a.1, kind) };
        self.netlink().apply(&Op::LinkAdd(pair)).expect("make a veth pair");
        for (ns, name, address) in [a, b] {
            bring_up(ns, name, address);
        }
    }
}

fn bring_up(ns: &Netns, name: &str, address: &str) {
    let net: IpNet = address.parse().expect("an address with prefix length");
    let mut netlink = Netlink::open_in(ns).expect("open a routing socket");
    let index = netlink.link(name).expect("read the link").expect("the link just made").index;
    let address = Address { no_dad: true, ..Address::new(index, net) };
    let up = LinkSet { index, up: Some(true), ..LinkSet::default() };
    for result in netlink.batch(&[Op::LinkSet(up), Op::AddrAdd(address)]) {
        result.expect("bring the link up with its address");
    }
}
