//! Who speaks BGP with whom, and what is told: weft.dev/v1 BGPConfiguration, BGPPeer and BGPFilter, and what a Node
//! says of itself. Fields are named as Calico's; selectors are label selectors.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::pools::LabelSelector;

/// The AS of nodes, where nothing is said: of those for private use the first, as Calico's.
pub const AS_NUMBER: u32 = 64_512;
/// The port of BGP.
pub const PORT: u16 = 179;
/// How long peers wait for a speaker that restarts, in seconds, as Calico's.
pub const RESTART_TIME: u16 = 120;
/// The longest time for that (RFC 4724: 12 bits), in seconds.
pub const MOST_RESTART_TIME: u16 = 4095;
/// Annotations of a Node that say its AS, the first that is there.
pub const AS_ANNOTATIONS: [&str; 2] = ["weft.dev/bgp-as-number", "projectcalico.org/ASNumber"];
/// Annotations of a Node that make it a route reflector, and say of which cluster.
pub const CLUSTER_ANNOTATIONS: [&str; 2] =
    ["weft.dev/bgp-route-reflector-cluster-id", "projectcalico.org/RouteReflectorClusterID"];
/// The BGPConfiguration that counts.
pub const CONFIGURATION: &str = "default";

/// What a Node says of itself as a speaker of BGP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeBgp {
    /// Its AS, where it is not that of the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_number: Option<u32>,
    /// It is a route reflector of this cluster (RFC 4456).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<Ipv4Addr>,
    /// Which of its annotations make no sense, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nonsense: Vec<Arc<str>>,
}

impl NodeBgp {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == NodeBgp::default()
    }

    /// What annotations say.
    pub fn of<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> NodeBgp {
        let mut said = NodeBgp::default();
        let first = |keys: [&'static str; 2]| {
            keys.into_iter().find_map(|key| Some((key, annotation(key).filter(|text| !text.is_empty())?)))
        };
        if let Some((key, text)) = first(AS_ANNOTATIONS) {
            match as_number(text) {
                Ok(number) => said.as_number = Some(number),
                Err(error) => said.nonsense.push(format!("{key}: {error}").into()),
            }
        }
        if let Some((key, text)) = first(CLUSTER_ANNOTATIONS) {
            match text.parse() {
                Ok(id) => said.cluster_id = Some(id),
                Err(_) => said.nonsense.push(format!("{key}: {text:?} is no IPv4 address").into()),
            }
        }
        said
    }
}

/// An AS number as people write it: 4200000000, or 64086.59904 (RFC 5396).
pub fn as_number(text: &str) -> Result<u32, String> {
    let read = match text.split_once('.') {
        Some((high, low)) => match (high.parse::<u16>(), low.parse::<u16>()) {
            (Ok(high), Ok(low)) => Some(u32::from(high) << 16 | u32::from(low)),
            _ => None,
        },
        None => text.parse().ok(),
    };
    // RFC 7607, RFC 6793, RFC 7300.
    match read {
        Some(0 | 23_456 | 65_535 | u32::MAX) => Err(format!("AS {text} is reserved")),
        Some(number) => Ok(number),
        None => Err(format!("{text:?} is no AS number")),
    }
}

/// Which Secret has a password (core/v1 SecretKeySelector).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SecretKey {
    /// The Secret's namespace.
    pub namespace: Arc<str>,
    /// The Secret's name.
    pub name: Arc<str>,
    /// The key in its data.
    pub key: Arc<str>,
}

impl fmt::Display for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of the Secret {}/{}", self.key, self.namespace, self.name)
    }
}

/// Sessions of some nodes (weft.dev/v1 BGPPeer).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpPeer {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.creationTimestamp`: of two that say something of one session the older one counts.
    pub created: Arc<str>,
    /// `spec`, or what is wrong with it in one sentence.
    pub spec: Result<Peering, String>,
}

/// What a BGPPeer says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peering {
    /// Whose sessions.
    pub of: Speakers,
    /// With whom.
    pub with: Remote,
    /// `password.secretKeyRef`: TCP MD5 (RFC 2385).
    pub password: Option<SecretKey>,
    /// `sourceAddress` is UseNodeIP: the connection is from the node's address, and not from whichever the
    /// kernel takes.
    pub from_node_address: bool,
    /// `filters`: names of BGPFilters, in order.
    pub filters: Vec<Arc<str>>,
    /// `keepOriginalNextHop`: what is told to another AS keeps its next hop.
    pub keep_next_hop: bool,
    /// `maxRestartTime`: how long the peer may wait for us while we restart, in seconds.
    pub restart_time: u16,
    /// `ttlSecurity`: how many hops away the peer is at most (RFC 5082).
    pub ttl_security: Option<u8>,
    /// `numAllowedLocalASNumbers`: so often may our own AS be in the paths of its routes.
    pub allowed_own_as: u8,
    /// `reachableBy`: the gateway by which the peer is reached.
    pub reachable_by: Option<IpAddr>,
}

/// Nodes that an object chooses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Speakers {
    /// All of them.
    All,
    /// `node`: this one.
    Node(Arc<str>),
    /// `nodeSelector`: those with such labels.
    Labelled(LabelSelector),
}

impl Speakers {
    /// Whether a node is one of them.
    pub fn have(&self, node: &crate::Node) -> bool {
        match self {
            Speakers::All => true,
            Speakers::Node(name) => *name == node.name,
            Speakers::Labelled(selector) => selector.matches(&node.labels),
        }
    }
}

/// The other end of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Remote {
    /// `peerIP` and `asNumber`: a router.
    Router {
        /// Its address.
        ip: IpAddr,
        /// Its port.
        port: u16,
        /// Its AS; that of the node, where nothing is said.
        asn: Option<u32>,
    },
    /// `peerSelector`: nodes with such labels.
    Nodes(LabelSelector),
}

/// What holds for all sessions (weft.dev/v1 BGPConfiguration).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpConfiguration {
    /// `metadata.name`; [`CONFIGURATION`] counts.
    pub name: Arc<str>,
    /// `spec`, or what is wrong with it in one sentence.
    pub spec: Result<Speaking, String>,
}

/// What a BGPConfiguration says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Speaking {
    /// `asNumber`: the AS of nodes that say nothing else.
    pub as_number: u32,
    /// `nodeToNodeMeshEnabled`: every node has a session with every other.
    pub mesh: bool,
    /// `nodeMeshPassword.secretKeyRef`.
    pub mesh_password: Option<SecretKey>,
    /// `nodeMeshMaxRestartTime`, in seconds.
    pub mesh_restart_time: u16,
    /// `listenPort`.
    pub port: u16,
    /// `bindMode` is NodeIP: on the node's addresses alone.
    pub bind_node_address: bool,
    /// `serviceClusterIPs`: networks whose addresses of Services are told.
    pub cluster_ips: Vec<IpNet>,
    /// `serviceExternalIPs`: likewise.
    pub external_ips: Vec<IpNet>,
    /// `serviceLoadBalancerIPs`: likewise.
    pub load_balancer_ips: Vec<IpNet>,
    /// `prefixAdvertisements`: communities of what is told inside of a network.
    pub communities: Vec<(IpNet, Vec<CommunityValue>)>,
}

impl Default for Speaking {
    fn default() -> Self {
        Speaking {
            as_number: AS_NUMBER,
            mesh: true,
            mesh_password: None,
            mesh_restart_time: RESTART_TIME,
            port: PORT,
            bind_node_address: false,
            cluster_ips: Vec::new(),
            external_ips: Vec::new(),
            load_balancer_ips: Vec::new(),
            communities: Vec::new(),
        }
    }
}

/// A community, or a large one (RFC 1997, RFC 8092).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CommunityValue {
    /// `asn:value`, as one number.
    Standard(u32),
    /// `asn:a:b`.
    Large(u32, u32, u32),
}

impl std::str::FromStr for CommunityValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no community: write 64512:100, or 64512:100:200 for a large one");
        let numbers: Option<Vec<u32>> = text.split(':').map(|number| number.parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[a, b]) if a < 1 << 16 && b < 1 << 16 => Ok(CommunityValue::Standard(a << 16 | b)),
            Some(&[a, b, c]) => Ok(CommunityValue::Large(a, b, c)),
            _ => Err(wrong()),
        }
    }
}

/// Rules for what is taken and told (weft.dev/v1 BGPFilter).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpFilter {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `spec`, or what is wrong with it in one sentence.
    pub spec: Result<Rules, String>,
}

/// What a BGPFilter says: the first rule that a route meets decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// `importV4` and `importV6`.
    pub import: Vec<FilterRule>,
    /// `exportV4` and `exportV6`.
    pub export: Vec<FilterRule>,
}

/// A rule of a filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterRule {
    /// Of which family.
    pub ipv4: bool,
    /// `action` is Accept.
    pub accept: bool,
    /// `cidr`, `matchOperator` and `prefixLength`.
    pub prefix: Option<PrefixMatch>,
    /// `communities.values`: one of these.
    pub communities: Vec<CommunityValue>,
    /// `neighborAS`: the first of the path.
    pub neighbour: Option<u32>,
    /// `originAS`: the last of the path.
    pub origin: Option<u32>,
    /// `operations`, of routes that are accepted.
    pub operations: Vec<Operation>,
}

/// Which prefixes a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixMatch {
    /// The network.
    pub inside: IpNet,
    /// `matchOperator` is Equal or In: those, and not all others.
    pub positive: bool,
    /// Their lengths.
    pub lengths: RangeInclusive<u8>,
}

/// What is changed of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// `addCommunity`.
    AddCommunity(CommunityValue),
    /// `prependASPath`: these, the first in front.
    Prepend(Vec<u32>),
    /// `setLocalPreference`.
    LocalPreference(u32),
    /// `setMED`.
    Med(u32),
}

/// Passwords by where they are.
pub type Passwords = BTreeMap<SecretKey, Arc<str>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_systems_are_read_in_both_forms() {
        assert_eq!(as_number("64512"), Ok(64_512));
        assert_eq!(as_number("64086.59904"), Ok(4_200_000_000));
        for bad in ["0", "23456", "65535", "4294967295", "-1", "1.2.3", "1.65536", "x", ""] {
            assert!(as_number(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_node_says_what_it_is_and_nonsense_is_told() {
        let of = |map: &[(&str, &'static str)]| {
            let map: BTreeMap<&str, &str> = map.iter().copied().collect();
            NodeBgp::of(|key| map.get(key).copied())
        };
        assert!(of(&[]).is_empty());
        let both = of(&[(AS_ANNOTATIONS[1], "65001"), (CLUSTER_ANNOTATIONS[1], "244.0.0.1")]);
        assert_eq!((both.as_number, both.cluster_id), (Some(65_001), Some(Ipv4Addr::new(244, 0, 0, 1))));
        let own = of(&[(AS_ANNOTATIONS[0], "65002"), (AS_ANNOTATIONS[1], "65001")]);
        assert_eq!(own.as_number, Some(65_002), "ours goes before Calico's");
        let bad = of(&[(AS_ANNOTATIONS[0], "x"), (CLUSTER_ANNOTATIONS[0], "1")]);
        assert_eq!((bad.as_number, bad.cluster_id, bad.nonsense.len()), (None, None, 2));
    }

    #[test]
    fn communities_are_read_in_both_forms() {
        assert_eq!("64512:100".parse(), Ok(CommunityValue::Standard(64_512 << 16 | 100)));
        assert_eq!("64512:1:2".parse(), Ok(CommunityValue::Large(64_512, 1, 2)));
        for bad in ["", "1", "65536:1", "1:2:3:4", "a:b"] {
            assert!(bad.parse::<CommunityValue>().is_err(), "{bad}");
        }
    }
}
