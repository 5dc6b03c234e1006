//! What each plugin does, in plain words.

use serde_json::{Map, Value};

/// One sentence about a plugin of ours.
pub(super) fn summary(kind: &str) -> &'static str {
    match kind {
        "bridge" => "joins the container to a bridge of the node by a veth pair",
        "ptp" => "joins the container to the node by a veth pair, with a route to it on the node",
        "routed" => {
            "joins the container to the node by a veth pair without a subnet; the node answers ARP for its next hop"
        }
        "macvlan" => "gives the container an interface with a MAC address of its own on a link of the node",
        "ipvlan" => "gives the container an interface that shares the MAC address of a link of the node",
        "vlan" => "gives the container a VLAN of a link of the node",
        "host-device" => "moves a device of the node into the container, and back on DEL",
        "dummy" => "gives the container an interface that leads nowhere",
        "tap" => "gives the container a tap interface",
        "loopback" => "turns the container's loopback interface on",
        "sriov" => "moves a virtual function of a network card into the container, and back on DEL",
        "ovs" => "joins the container to an Open vSwitch bridge by a veth pair",
        "portmap" => "publishes ports of the container on the node",
        "bandwidth" => "limits how much the container sends and receives",
        "firewall" => "lets the node's firewall pass the container's packets",
        "tuning" => "changes sysctls and link settings in the container",
        "sbr" => "gives the interface a routing table of its own, chosen by source address",
        "vrf" => "puts the interface into a VRF of the container",
        "host-local" => "takes an address that is free on this node and notes it in a folder",
        "pools" => "gives addresses of the blocks that the agent has claimed of pools",
        "static" => "gives the addresses that are written here",
        "dhcp" => "gets a lease from a DHCP server, by its daemon",
        _ => "is another program's plugin and is executed",
    }
}

/// Where a plugin of ours stands in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It makes the container's interface: first.
    Interface,
    /// It adds to what the plugins before it made: not first.
    Chained,
    /// It is named by `ipam.type`.
    Ipam,
}

pub(super) fn place(kind: &str) -> Place {
    match kind {
        "portmap" | "bandwidth" | "firewall" | "tuning" | "sbr" | "vrf" => Place::Chained,
        "host-local" | "static" | "dhcp" | "pools" => Place::Ipam,
        _ => Place::Interface,
    }
}

/// Who understands a capability of the CNI conventions.
pub(super) const CAPABILITIES: &[(&str, &[&str])] = &[
    ("portMappings", &["portmap"]),
    ("bandwidth", &["bandwidth"]),
    ("ipRanges", &["host-local"]),
    (
        "ips",
        &[
            "host-local",
            "static",
            "bridge",
            "ptp",
            "macvlan",
            "ipvlan",
            "vlan",
            "dummy",
            "tap",
            "host-device",
            "sriov",
            "ovs",
            "routed",
        ],
    ),
    ("mac", &["bridge", "macvlan", "ptp", "tuning", "tap", "sriov", "ovs", "routed", "dummy", "vlan"]),
    (
        "dns",
        &[
            "bridge",
            "ptp",
            "macvlan",
            "ipvlan",
            "vlan",
            "host-device",
            "sriov",
            "ovs",
            "routed",
            "host-local",
            "static",
            "dhcp",
            "dummy",
            "tap",
        ],
    ),
    ("infinibandGUID", &["sriov"]),
    ("deviceID", &["host-device", "sriov"]),
    ("io.kubernetes.cri.pod-annotations", &["routed", "pools"]),
    ("aliases", &[]),
    ("cgroupPath", &[]),
];

/// What a plugin's settings mean, each in one line.
pub(super) fn settings(plugin: &Map<String, Value>) -> Vec<String> {
    let common = ["type", "name", "cniVersion", "ipam", "capabilities", "prevResult", "runtimeConfig"];
    let shown = |(key, value): (&String, &Value)| {
        Some(setting(key, value)).filter(|_| !common.contains(&key.as_str()))
    };
    let mut lines: Vec<String> = plugin.iter().filter_map(shown).collect();
    let declared = plugin.get("capabilities").and_then(Value::as_object).into_iter().flatten();
    let declared: Vec<&str> = declared.filter(|(_, on)| **on == true).map(|(key, _)| key.as_str()).collect();
    if !declared.is_empty() {
        lines.push(format!("takes from the runtime: {}", declared.join(", ")));
    }
    lines.extend(plugin.get("ipam").and_then(Value::as_object).map(addresses));
    lines
}

fn setting(key: &str, value: &Value) -> String {
    let on = value.as_bool();
    match (key, on) {
        ("isGateway", Some(true)) => "the bridge has the gateway's address".into(),
        ("isDefaultGateway", Some(true)) => {
            "the bridge has the gateway's address and is the container's default gateway".into()
        }
        ("ipMasq", Some(true)) => {
            "packets to other networks leave with the node's address (masquerade)".into()
        }
        ("hairpinMode", Some(true)) => "a container may reach itself through the bridge".into(),
        ("forceAddress", Some(true)) => "another address of the bridge is replaced".into(),
        ("promiscMode", Some(true)) => "the bridge takes in every packet".into(),
        ("macspoofchk", Some(true)) => "packets with another source MAC address are dropped".into(),
        ("portIsolation", Some(true)) => "containers of this bridge cannot reach one another".into(),
        ("disableContainerInterface", Some(true)) => "the container's interface stays down".into(),
        ("snat", Some(true)) => {
            "published ports are reachable from the node itself and from the container".into()
        }
        ("mtu", _) => format!("the MTU is {value} bytes"),
        ("vlan", _) => format!("the container's port is in VLAN {value}"),
        ("bridge", _) => format!("the bridge is {}, made when it is missing", plain(value)),
        ("master", _) => format!("the link of the node is {}", plain(value)),
        (_, Some(false)) => format!("{key} is off"),
        _ => format!("{key}: {}", plain(value)),
    }
}

fn addresses(ipam: &Map<String, Value>) -> String {
    let kind = ipam.get("type").and_then(Value::as_str).unwrap_or_default();
    if kind.is_empty() {
        return "no addresses".into();
    }
    let mut text = format!("addresses: {kind} {}", summary(kind));
    let subnet = |range: &Value| range.get("subnet").map(plain);
    let sets = ipam.get("ranges").and_then(Value::as_array);
    let sets = sets.into_iter().flatten().filter_map(Value::as_array);
    let sets = sets.map(|set| set.iter().filter_map(subnet).collect::<Vec<_>>().join(" or "));
    let sets: Vec<String> = ipam.get("subnet").map(plain).into_iter().chain(sets).collect();
    if !sets.is_empty() {
        text += &format!("; one of {}", sets.join(", and one of "));
    }
    let routes = ipam.get("routes").and_then(Value::as_array).into_iter().flatten();
    let routes: Vec<String> = routes.filter_map(|route| route.get("dst").map(plain)).collect();
    if !routes.is_empty() {
        text += &format!("; routes to {}", routes.join(", "));
    }
    text
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
