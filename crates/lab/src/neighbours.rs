//! Neighbour entries that never expire, so that a lab leaves the machine's neighbour table room.
//!
//! All network namespaces of a machine share one table (`net.ipv4.neigh.default.gc_thresh3`, 1,024
//! entries), which a hundred nodes and a thousand pods would fill with what they learn of one
//! another: then packets of anybody on the machine are dropped. Permanent entries do not count
//! (`neigh_alloc` in the kernel's `net/core/neighbour.c`). On a real node the table is its own.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;
use weft_kernel::{Neighbour, Netlink, Netns, Op};
use weft_model::Mac;

use crate::config::{LabConfig, NodeSpec, UNDERLAY_V4};
use crate::underlay::Node;

/// The hardware address of a node's `eth0`: 02:00 and its IPv4 address, or the one that it would have,
/// readable in a capture.
pub(crate) fn node_mac(spec: &NodeSpec) -> Mac {
    mac(0, spec.ips())
}

/// The same for the router's leg on a segment: 02:01 and its address there.
pub(crate) fn gateway_mac(gateways: &[IpNet]) -> Mac {
    mac(1, gateways.iter().map(IpNet::addr))
}

fn mac(kind: u8, ips: impl IntoIterator<Item = IpAddr>) -> Mac {
    let place = ips.into_iter().next().map(|ip| match ip {
        IpAddr::V4(ip) => ip.octets(),
        // Rack and host are where the IPv4 address has them.
        IpAddr::V6(ip) => {
            let [a, b] = [UNDERLAY_V4.addr().octets()[0], UNDERLAY_V4.addr().octets()[1]];
            [a, b, ip.segments()[3] as u8, ip.segments()[7] as u8]
        }
    });
    let [a, b, c, d] = place.unwrap_or_default();
    Mac([0x02, kind, a, b, c, d])
}

/// What `node`, whose `eth0` has number `eth0`, knows of its segment: the router and the nodes.
pub(crate) fn of_node(config: &LabConfig, specs: &[NodeSpec], node: &NodeSpec, eth0: u32) -> Vec<Op> {
    let gateways = config.gateways(node.rack);
    let router = gateway_mac(&gateways);
    let peers = specs.iter().filter(|peer| peer.rack == node.rack && peer.name != node.name);
    let known = gateways.iter().map(|net| (net.addr(), router));
    let known = known.chain(peers.flat_map(|peer| peer.ips().into_iter().map(|ip| (ip, node_mac(peer)))));
    known.map(|(ip, mac)| Op::NeighReplace(Neighbour::permanent(eth0, ip, mac))).collect()
}

/// What the router knows of the nodes on the segment behind its link `segment`.
pub(crate) fn of_router(nodes: &[Node], rack: u16, segment: u32) -> Vec<Op> {
    let here = nodes.iter().filter(|node| node.spec.rack == rack);
    let known = here.flat_map(|node| node.spec.ips().into_iter().map(|ip| (ip, node_mac(&node.spec))));
    known.map(|(ip, mac)| Op::NeighReplace(Neighbour::permanent(segment, ip, mac))).collect()
}

/// Makes a pod and its node's bridge know each other, as far as the CNI result says how.
pub(crate) fn introduce(node: &Netns, pod: &Netns, result: &Value) -> weft_kernel::Result<()> {
    let Some(known) = Acquaintance::of(result) else { return Ok(()) };
    let (mut on_node, mut in_pod) = (Netlink::open_in(node)?, Netlink::open_in(pod)?);
    let bridge = on_node.link(&known.bridge)?.map(|link| link.index);
    let eth0 = in_pod.link(&known.ifname)?.map(|link| link.index);
    let (Some(bridge), Some(eth0)) = (bridge, eth0) else { return Ok(()) };
    for (ip, gateway) in known.addresses {
        on_node.apply(&Op::NeighReplace(Neighbour::permanent(bridge, ip, known.pod_mac)))?;
        in_pod.apply(&Op::NeighReplace(Neighbour::permanent(eth0, gateway, known.bridge_mac)))?;
    }
    Ok(())
}

/// The two ends of a pod's link, by a result of the `bridge` plugin.
struct Acquaintance {
    bridge: String,
    bridge_mac: Mac,
    ifname: String,
    pod_mac: Mac,
    /// Address and gateway.
    addresses: Vec<(IpAddr, IpAddr)>,
}

impl Acquaintance {
    fn of(result: &Value) -> Option<Acquaintance> {
        let interfaces = result["interfaces"].as_array()?;
        let end = |in_pod: bool| {
            let found =
                interfaces.iter().find(|i| i["sandbox"].as_str().is_some_and(|s| !s.is_empty()) == in_pod)?;
            Some((found["name"].as_str()?.to_owned(), found["mac"].as_str()?.parse().ok()?))
        };
        let ((bridge, bridge_mac), (ifname, pod_mac)) = (end(false)?, end(true)?);
        let address = |ip: &Value| {
            let own: IpNet = ip["address"].as_str()?.parse().ok()?;
            Some((own.addr(), ip["gateway"].as_str()?.parse().ok()?))
        };
        let addresses = result["ips"].as_array()?.iter().filter_map(address).collect();
        Some(Acquaintance { bridge, bridge_mac, ifname, pod_mac, addresses })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_ends_are_read_from_a_bridge_result_and_anything_else_is_let_be() {
        let result = json!({
            "interfaces": [
                {"name": "weft0", "mac": "0a:58:0a:f4:00:01"},
                {"name": "wf0123456789a", "mac": "0a:00:00:00:00:09"},
                {"name": "eth0", "mac": "0a:58:0a:f4:00:05", "sandbox": "/run/netns/x"},
            ],
            "ips": [{"address": "10.244.0.5/24", "gateway": "10.244.0.1", "interface": 2}],
        });
        let known = Acquaintance::of(&result).unwrap();
        assert_eq!((known.bridge.as_str(), known.ifname.as_str()), ("weft0", "eth0"));
        assert_eq!(known.pod_mac.to_string(), "0a:58:0a:f4:00:05");
        assert_eq!(known.addresses, [("10.244.0.5".parse().unwrap(), "10.244.0.1".parse().unwrap())]);
        for other in [json!(null), json!({}), json!({"interfaces": [{"name": "eth0"}], "ips": []})] {
            assert!(Acquaintance::of(&other).is_none(), "{other}");
        }
    }
}
