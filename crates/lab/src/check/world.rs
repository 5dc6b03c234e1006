use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde_json::Value;

use super::report::Skipped;
use crate::config::LabConfig;
use crate::oracle::services::Door;
use crate::oracle::{Node, Party, Proto};
use crate::underlay;

/// The label of nodes that load balancers pass over.
const EXCLUDED: &str = "/metadata/labels/node.kubernetes.io~1exclude-from-external-load-balancers";

/// A party of the check with what it takes to act in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// As the oracle knows it.
    pub party: Party,
    /// Its network namespace.
    pub netns: PathBuf,
    /// `namespace/workload` of a pod, for a matrix of many.
    pub workload: String,
    /// Why a pod is not ready, if it is not.
    pub not_ready: Option<String>,
}

impl Member {
    /// Whether it is a node and not a pod.
    pub fn is_node(&self) -> bool {
        self.party.name.starts_with("node/")
    }
}

/// A client outside of the cluster, on a segment of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outsider {
    /// As the oracle knows it.
    pub party: Party,
    /// Its network namespace.
    pub netns: PathBuf,
    /// The segment's link there. What it sends leaves by that, whatever the routes say.
    pub link: String,
    /// The names of the segment's nodes.
    pub nodes: Vec<String>,
}

impl Outsider {
    /// Whether its kernel takes this address for one on the link: of IPv4 any, of IPv6 what it has a route to.
    pub(super) fn can_ask(&self, address: IpAddr) -> bool {
        self.party.ips.iter().any(|own| match (own, address) {
            (IpAddr::V4(_), IpAddr::V4(_)) => true,
            (IpAddr::V6(own), IpAddr::V6(ip)) => own.segments()[..4] == ip.segments()[..4],
            _ => false,
        })
    }
}

/// Everybody who is in the check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// The nodes, as the oracle knows them.
    pub nodes: Vec<Node>,
    /// Pods by name, then nodes by name.
    pub members: Vec<Member>,
    /// Pods and Services that are not in the check.
    pub skipped: Vec<Skipped>,
    /// Where Services are asked for.
    pub doors: Vec<Door>,
    /// Who asks for Services from outside of the cluster, on each segment of nodes.
    pub outside: Vec<Outsider>,
    /// Whether nodes end connections to Services and make others themselves: the userspace proxy.
    pub relayed: bool,
}

impl World {
    /// From the API's lists of nodes and pods; `state` is the lab's folder.
    pub fn new(nodes: &Value, pods: &Value, state: &Path) -> World {
        let mut world = World::default();
        let mut machines = Vec::new();
        for object in items(nodes) {
            let node = node(object);
            machines.push(machine(&node, state));
            world.nodes.push(node);
        }
        for object in items(pods) {
            match pod(object, &world.nodes, state) {
                Ok(member) => world.members.push(member),
                Err(skipped) => world.skipped.push(skipped),
            }
        }
        world.members.sort_by(|a, b| a.party.name.split('/').cmp(b.party.name.split('/')));
        machines.sort_by_key(|machine| natural(&machine.party.name));
        world.members.extend(machines);
        world
    }

    /// Adds the clients outside, where agents announce addresses.
    pub fn add_outside(&mut self, config: &LabConfig, state: &Path) {
        if config.proxy == "none" {
            return;
        }
        let specs = config.node_specs();
        let mut racks: Vec<u16> = specs.iter().map(|spec| spec.rack).collect();
        racks.sort_unstable();
        racks.dedup();
        for rack in racks {
            let link = underlay::bridge(config.topology, rack);
            let party = Party {
                name: format!("underlay/{link}"),
                node: String::new(),
                own_address: false,
                ips: config.gateways(rack).iter().map(IpNet::addr).collect(),
                listens: Vec::new(),
            };
            let here = specs.iter().filter(|spec| spec.rack == rack);
            let nodes = here.map(|spec| spec.name.clone()).collect();
            self.outside.push(Outsider { party, netns: state.join("netns/underlay"), link, nodes });
        }
    }

    /// Adds what nodes have of pools: the first address of a block is its node's own.
    pub fn add_blocks(&mut self, blocks: &Value) {
        for block in items(blocks) {
            let first = text(block, "/spec/cidr").parse::<IpNet>().map(|cidr| cidr.network());
            let node = self.nodes.iter_mut().find(|node| node.name == text(block, "/spec/node"));
            if let (Some(node), Ok(first)) = (node, first) {
                node.addresses.push(first);
            }
        }
    }
}

pub(crate) fn items(list: &Value) -> &[Value] {
    list.get("items").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// `node2` before `node10`.
fn natural(name: &str) -> (String, u64) {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (stem.to_owned(), name[stem.len()..].parse().unwrap_or(0))
}

pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn array<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn node(object: &Value) -> Node {
    let internal: Vec<IpAddr> = array(object, "/status/addresses")
        .iter()
        .filter(|address| text(address, "/type") == "InternalIP")
        .filter_map(|address| text(address, "/address").parse().ok())
        .collect();
    let mut addresses = internal.clone();
    let cidrs = array(object, "/spec/podCIDRs").iter().filter_map(Value::as_str);
    for cidr in cidrs.filter_map(|cidr| cidr.parse::<IpNet>().ok()) {
        // The tunnel's end has the first address of the node's part, its bridge the second.
        addresses.push(cidr.network());
        addresses.extend(cidr.hosts().find(|host| *host != cidr.network()));
    }
    let excluded = object.pointer(EXCLUDED).is_some();
    Node { name: text(object, "/metadata/name").to_owned(), addresses, internal, excluded }
}

fn machine(node: &Node, state: &Path) -> Member {
    let party = Party {
        name: format!("node/{}", node.name),
        node: node.name.clone(),
        own_address: false,
        ips: node.internal.clone(),
        listens: Vec::new(),
    };
    let netns = state.join("netns").join(format!("node-{}", node.name));
    Member { party, netns, workload: format!("node/{}", node.name), not_ready: None }
}

fn pod(object: &Value, nodes: &[Node], state: &Path) -> Result<Member, Skipped> {
    let namespace = text(object, "/metadata/namespace");
    let name = format!("{namespace}/{}", text(object, "/metadata/name"));
    let skip = |why: String| Err(Skipped { name: name.clone(), why });
    let phase = text(object, "/status/phase");
    if matches!(phase, "Succeeded" | "Failed") {
        return skip(format!("it has ended ({phase})"));
    }
    if object.pointer("/metadata/deletionTimestamp").is_some_and(|t| !t.is_null()) {
        return skip("it is being deleted".into());
    }
    if object.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some() {
        return skip("another runtime of its node runs it, not the lab".into());
    }
    let on = text(object, "/spec/nodeName");
    let Some(node) = nodes.iter().find(|node| node.name == on) else {
        let why = not_ready(object).unwrap_or_else(|| "no node was chosen for it yet".into());
        return skip(format!("it is on no node: {why}"));
    };
    let host_network = object.pointer("/spec/hostNetwork").and_then(Value::as_bool).unwrap_or(false);
    let pinned =
        if host_network { format!("node-{on}") } else { format!("pod-{}", text(object, "/metadata/uid")) };
    let party = Party {
        name,
        node: on.to_owned(),
        own_address: !host_network,
        ips: if host_network { node.internal.clone() } else { pod_ips(object) },
        listens: declared(object),
    };
    let workload = format!("{namespace}/{}", workload(object));
    Ok(Member { party, netns: state.join("netns").join(pinned), workload, not_ready: not_ready(object) })
}

fn pod_ips(object: &Value) -> Vec<IpAddr> {
    let many = array(object, "/status/podIPs").iter().map(|ip| text(ip, "/ip"));
    let mut ips: Vec<IpAddr> = many.filter_map(|ip| ip.parse().ok()).collect();
    if ips.is_empty() {
        ips.extend(text(object, "/status/podIP").parse::<IpAddr>());
    }
    ips
}

/// The ports of the pod's containers; a port without a protocol is TCP.
fn declared(object: &Value) -> Vec<(Proto, u16)> {
    let containers = array(object, "/spec/containers").iter();
    let ports = containers.flat_map(|container| array(container, "/ports"));
    let read = |port: &Value| {
        let number = port.get("containerPort")?.as_u64()?;
        let proto = match port.get("protocol").and_then(Value::as_str).unwrap_or("TCP") {
            "TCP" => Proto::Tcp,
            "UDP" => Proto::Udp,
            _ => return None,
        };
        Some((proto, u16::try_from(number).ok().filter(|n| *n > 0)?))
    };
    ports.filter_map(read).collect()
}

/// The name of what the pod belongs to; a Deployment's, and not its ReplicaSet's.
fn workload(object: &Value) -> String {
    let owners = array(object, "/metadata/ownerReferences");
    let owner = owners.iter().find(|o| o.get("controller").and_then(Value::as_bool).unwrap_or(false));
    let Some(owner) = owner.or(owners.first()) else {
        return text(object, "/metadata/name").to_owned();
    };
    let name = text(owner, "/name");
    let hashed = text(owner, "/kind") == "ReplicaSet"
        && !text(object, "/metadata/labels/pod-template-hash").is_empty();
    let stem = name.rsplit_once('-').filter(|_| hashed).map(|(stem, _)| stem);
    stem.unwrap_or(name).to_owned()
}

/// Why the pod is not ready, in its status' words.
pub(crate) fn not_ready(object: &Value) -> Option<String> {
    let conditions = array(object, "/status/conditions");
    let is = |kind: &str, status: &str| {
        conditions.iter().find(|c| text(c, "/type") == kind && text(c, "/status") == status)
    };
    if is("Ready", "True").is_some() {
        return None;
    }
    let waiting = array(object, "/status/containerStatuses")
        .iter()
        .filter_map(|status| status.pointer("/state/waiting"))
        .find(|waiting| !text(waiting, "/message").is_empty());
    let condition = is("PodScheduled", "False").or_else(|| is("Ready", "False"));
    let said = [waiting, condition]
        .into_iter()
        .flatten()
        .map(|from| (text(from, "/reason"), text(from, "/message")))
        .find(|(reason, message)| !reason.is_empty() || !message.is_empty());
    let top = (text(object, "/status/reason"), text(object, "/status/message"));
    let (reason, message) = said.unwrap_or(top);
    Some(match (reason, message) {
        ("", "") => match text(object, "/spec/nodeName") {
            "" => "no node was chosen for it yet".into(),
            node => format!("{node} has not started it yet"),
        },
        ("", message) => message.to_owned(),
        (reason, "") => reason.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    })
}
