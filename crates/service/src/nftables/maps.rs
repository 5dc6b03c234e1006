//! The maps that Services are elements of.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use weft_kernel::nft::{Bytes, Datum, Element, Shape, Type};

use super::way::LOCAL_SLOTS;
use crate::{Frontend, FrontendKey, Place, Policy};

/// The most clients that one map of affinity remembers.
const MOST_CLIENTS: u32 = 1 << 18;

/// A map or set whose elements follow from the plan. Those that have to do with frontends there are
/// twice: for addresses, and for node ports, whose keys have no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Map {
    /// Frontend to the number of its way.
    Services,
    /// The number of a way to its chain.
    Ways,
    /// Frontend to the chain of who may connect to it.
    Firewall,
    /// Frontend and slot to a backend.
    Endpoints,
    /// The same where clients are remembered.
    Remembered,
    /// Frontend and backend: where clients may be led that were led there before.
    Affine,
    /// The same for clients from outside where they are led to this node's backends alone.
    AffineHere,
    /// Backends on this node, twice: as source and destination.
    Hairpin,
    /// Cluster IPs.
    ClusterIps,
}

impl Map {
    const ALL: [Map; 9] = [
        Map::Services,
        Map::Ways,
        Map::Firewall,
        Map::Endpoints,
        Map::Remembered,
        Map::Affine,
        Map::AffineHere,
        Map::Hairpin,
        Map::ClusterIps,
    ];

    /// All there are, and for which of both they are.
    pub(super) fn all() -> impl Iterator<Item = (Map, bool)> {
        Map::ALL.into_iter().flat_map(|map| [(map, false), (map, true)]).filter(|(map, node)| {
            let once = matches!(map, Map::Ways | Map::Firewall | Map::Hairpin | Map::ClusterIps);
            !once || !node
        })
    }

    /// Its name.
    pub(super) fn name(self, node: bool) -> &'static str {
        match (self, node) {
            (Map::Services, false) => "services",
            (Map::Services, true) => "node-ports",
            (Map::Ways, _) => "ways",
            (Map::Firewall, _) => "firewall",
            (Map::Endpoints, false) => "endpoints",
            (Map::Endpoints, true) => "node-endpoints",
            (Map::Remembered, false) => "affinity-endpoints",
            (Map::Remembered, true) => "node-affinity-endpoints",
            (Map::Affine, false) => "affine",
            (Map::Affine, true) => "node-affine",
            (Map::AffineHere, false) => "affine-here",
            (Map::AffineHere, true) => "node-affine-here",
            (Map::Hairpin, _) => "hairpin",
            (Map::ClusterIps, _) => "cluster-ips",
        }
    }

    /// What it is.
    pub(super) fn shape(self, node: bool, ipv6: bool) -> Shape {
        let address = address(ipv6);
        let frontend = frontend(node, ipv6);
        let with = |more: &[Type]| [&frontend[..], more].concat();
        match self {
            // The number is the second, for the sake of nft as with affinity.
            Map::Services => Shape::map(frontend, [Type::Mark, Type::Mark]),
            Map::Ways => Shape::verdicts([Type::Mark]),
            Map::Firewall => Shape::verdicts(frontend),
            Map::Endpoints => Shape::map(with(&[Type::Mark]), [address, Type::Port]),
            Map::Remembered => Shape::map(with(&[Type::Mark]), [Type::Port, address, Type::Port]),
            Map::Affine | Map::AffineHere => Shape::set(with(&[address, Type::Port])),
            Map::Hairpin => Shape::set([address, address]),
            Map::ClusterIps => Shape::set([address]),
        }
    }
}

fn address(ipv6: bool) -> Type {
    if ipv6 { Type::Ipv6 } else { Type::Ipv4 }
}

fn frontend(node: bool, ipv6: bool) -> Vec<Type> {
    (!node).then(|| address(ipv6)).into_iter().chain([Type::Protocol, Type::Port]).collect()
}

/// The map that packets fill: client and frontend to the backend of before.
pub(super) fn affinity(node: bool, seconds: u32) -> String {
    let node = if node { "node-" } else { "" };
    format!("{node}affinity-{seconds}")
}

/// What that map is.
pub(super) fn affinity_shape(node: bool, seconds: u32, ipv6: bool) -> Shape {
    let address = address(ipv6);
    let key = [&[address][..], &frontend(node, ipv6)].concat();
    Shape {
        dynamic: true,
        timeout: Some(Duration::from_secs(seconds.into())),
        size: Some(MOST_CLIENTS),
        ..Shape::map(key, [Type::Port, address, Type::Port])
    }
}

/// The name of the chain of who may connect: of these networks.
pub(crate) fn sources_chain(sources: &[IpNet]) -> String {
    let text: Vec<String> = sources.iter().map(IpNet::to_string).collect();
    // FNV-1a of 64 bits.
    let hash = text
        .join(" ")
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("sources-{hash:016x}")
}

/// The element of a backend that is its own client.
pub(crate) fn hairpin(address: IpAddr) -> Element {
    Element { key: Bytes::EMPTY.address(address).address(address), data: Datum::None }
}

/// The element of a cluster IP.
pub(super) fn cluster_ip(address: IpAddr) -> Element {
    Element { key: Bytes::EMPTY.address(address), data: Datum::None }
}

/// The element of a way.
pub(super) fn way(number: u32, chain: &str) -> Element {
    Element { key: Bytes::EMPTY.mark(number), data: Datum::Goto(Arc::from(chain)) }
}

/// A frontend's elements, whose way has this number.
pub(super) fn elements(
    at: &FrontendKey,
    frontend: &Frontend,
    number: u32,
    mut put: impl FnMut(Map, Element),
) {
    let key = match at.place {
        Place::Address(address) => Bytes::EMPTY.address(address),
        Place::NodePort { .. } => Bytes::EMPTY,
    };
    let key = key.protocol(at.protocol.number()).port(at.port);
    let fields = Datum::Fields;
    put(Map::Services, Element { key, data: fields(Bytes::EMPTY.mark(0).mark(number)) });
    if let Some(sources) = &frontend.sources {
        put(Map::Firewall, Element { key, data: Datum::Jump(sources_chain(sources).into()) });
    }
    let here = if frontend.policy == Policy::Local { frontend.local.backends() } else { &[] };
    for (backends, first, affine) in
        [(frontend.all.backends(), 0, Map::Affine), (here, LOCAL_SLOTS, Map::AffineHere)]
    {
        for (slot, backend) in (first..).zip(backends) {
            let (ip, port) = (backend.address.ip(), backend.address.port());
            let slot = key.mark(slot);
            if frontend.affinity.is_some() {
                let data = fields(Bytes::EMPTY.port(0).address(ip).port(port));
                put(Map::Remembered, Element { key: slot, data });
                put(affine, Element { key: key.address(ip).port(port), data: Datum::None });
            } else {
                put(Map::Endpoints, Element { key: slot, data: fields(Bytes::EMPTY.address(ip).port(port)) });
            }
        }
    }
}
