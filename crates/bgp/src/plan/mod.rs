//! With whom a node speaks, and what it tells: a function from the cluster and the node's name to a speaker's
//! settings.
//!
//! - [`sessions`]: who speaks with whom.
//! - [`policies`]: which routes are taken and told.
//! - [`told`]: the routes that are the node's own.

mod policies;
mod sessions;
#[cfg(test)]
mod tests;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use weft_model::bgp::{CONFIGURATION, Passwords, SecretKey, Speaking};
use weft_model::{Cluster, Node};

use crate::PerFamily;
use crate::speaker::Settings;
use policies::Policies;
use sessions::Sessions;

/// What one node is to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What its speaker is told; nothing while the node has no address.
    pub settings: Option<Settings>,
    /// Gateways by which neighbours are reached (`reachableBy`), by neighbour.
    pub gateways: BTreeMap<IpAddr, IpAddr>,
    /// Passwords that are needed, there or not.
    pub secrets: BTreeSet<SecretKey>,
    /// What makes no sense or cannot be, each in one sentence with the object that says it.
    pub problems: BTreeSet<String>,
}

/// The plan of the node of this name. Where addresses come from pools its blocks have to be in its `pod_cidrs`, and
/// single addresses in its `loans`.
pub fn plan(cluster: &Cluster, node: &str, passwords: &Passwords) -> Plan {
    let mut plan = Plan::default();
    let Some(me) = cluster.nodes.get(node) else { return plan };
    let speaking = speaking(cluster, &mut plan.problems);
    plan.problems.extend(me.bgp.nonsense.iter().map(|what| format!("Node {node}: {what}")));
    if me.addresses.is_empty() {
        plan.problems.insert(format!("Node {node}: it has no InternalIP to speak from"));
        return plan;
    }
    let policies = Policies::of(cluster, speaking.as_number, me.bgp.cluster_id.is_some());
    let Sessions { neighbours, gateways, secrets, problems } =
        sessions::sessions(cluster, me, &speaking, &policies, passwords);
    plan.gateways = gateways;
    plan.secrets = secrets;
    plan.problems.extend(problems);
    plan.settings = Some(Settings {
        listen: listen(me, &speaking),
        cluster_id: me.bgp.cluster_id,
        addresses: me.addresses.iter().copied().collect(),
        next_hop: PerFamily { ipv4: own(me, true), ipv6: own(me, false) },
        neighbours,
        originated: told::told(cluster, me, &speaking),
        ..Settings::new(me.bgp.as_number.unwrap_or(speaking.as_number), identifier(me))
    });
    plan
}

/// What holds for all sessions: what the object says, or the usual where there is none that makes sense.
fn speaking(cluster: &Cluster, problems: &mut BTreeSet<String>) -> Speaking {
    let others = cluster.bgp_configurations.keys().filter(|name| ***name != *CONFIGURATION);
    problems.extend(others.map(|name| {
        format!("BGPConfiguration {name}: it is not read; the one named {CONFIGURATION} counts")
    }));
    match cluster.bgp_configurations.get(CONFIGURATION).map(|object| &object.spec) {
        Some(Ok(speaking)) => speaking.clone(),
        Some(Err(why)) => {
            problems.insert(format!("BGPConfiguration {CONFIGURATION}: {why}; the usual holds"));
            Speaking::default()
        }
        None => Speaking::default(),
    }
}

fn own(node: &Node, ipv4: bool) -> Option<IpAddr> {
    node.addresses.iter().copied().find(|ip| ip.is_ipv4() == ipv4)
}

/// The BGP identifier: the IPv4 address, or where there is none what follows from the name.
fn identifier(node: &Node) -> Ipv4Addr {
    if let Some(IpAddr::V4(ip)) = own(node, true) {
        return ip;
    }
    let mut hasher = DefaultHasher::new();
    node.name.hash(&mut hasher);
    // 240.0.0.0/4 is nobody's.
    Ipv4Addr::from_bits(0xf000_0000 | (hasher.finish() as u32 & 0x0fff_ffff) | 1)
}

fn listen(me: &Node, speaking: &Speaking) -> Vec<SocketAddr> {
    let any = |ip: &IpAddr| match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let addresses = me.addresses.iter().map(|ip| if speaking.bind_node_address { *ip } else { any(ip) });
    addresses.map(|ip| SocketAddr::new(ip, speaking.port)).collect()
}
