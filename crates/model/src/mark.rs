//! The marks on every kernel object of ours, by which an agent without memory finds its own
//! leftovers and leaves others' alone.

use sha2::{Digest, Sha256};

use crate::{Mac, PodKey};

/// Routing protocol number of every route and rule of ours (`rtm_protocol`, see `rt_protos`).
pub const ROUTE_PROTOCOL: u8 = 87;
/// The protocol of routes that make a Service's address the node's, where the userspace proxy listens at it.
pub const SERVICE_ROUTE_PROTOCOL: u8 = 88;
/// The bit of a packet's mark that has it masqueraded, as kube-proxy uses it.
pub const MASQUERADE: u32 = 0x4000;
/// The chain of iptables that lets pods' packets pass where FORWARD drops what nobody decided.
pub const FORWARD_CHAIN: &str = "WEFT-FORWARD";
/// The numbers of next-hop objects of ours begin with this byte.
pub const NEXTHOPS: u32 = 87 << 24;
/// The part of such a number that tells one from another.
pub const NEXTHOP_MASK: u32 = (1 << 24) - 1;
/// The bridge that joins a node's pods, as docker0 or cni0 elsewhere.
pub const BRIDGE: &str = "weft0";
/// The VXLAN device (one a node).
pub const VXLAN: &str = "weft-vxlan";
/// The VXLAN device for the IPv6 pods of nodes that run flannel.
pub const VXLAN6: &str = "weft-vxlan6";
/// The TUN device of the tunnel in user space.
pub const UDP: &str = "weft-udp0";
/// The device of IPv4 in IPv4.
pub const IPIP: &str = "weft-ipip";
/// The device of IPv6 in IPv6.
pub const IP6TNL: &str = "weft-ip6tnl";
/// The nftables table, in each family used.
pub const TABLE: &str = "weft";
/// The link alias of a host-side veth starts so; `<namespace>/<pod>` follows.
pub const ALIAS_PREFIX: &str = "weft:";
/// The name of the network in the CNI configuration and of its allocation folder.
pub const CNI_NETWORK: &str = "weft";

/// The alias of the host-side link that faces `pod`: `weft:<namespace>/<pod>`.
pub fn pod_alias(pod: &PodKey) -> String {
    format!("{ALIAS_PREFIX}{pod}")
}

/// The name of the host-side veth for a container's interface: `wf` and eleven hex digits of
/// SHA-256 over `<container_id>/<ifname>`, so that DEL finds it without any state.
pub fn host_link_name(container_id: &str, ifname: &str) -> String {
    let hash = Sha256::new().chain_update(container_id).chain_update("/").chain_update(ifname).finalize();
    let hex: String = hash.iter().take(6).map(|b| format!("{b:02x}")).collect();
    format!("wf{}", &hex[..11])
}

/// The MAC address of a node's VTEP: 0x66 (locally administered, unicast) and five bytes of
/// SHA-256 over the node's name. It follows from the name so that peers can program their
/// static FDB without waiting for the node to announce it.
pub fn vtep_mac(node: &str) -> Mac {
    let hash = Sha256::digest(node.as_bytes());
    let mut mac = [0x66; 6];
    for (byte, from) in mac[1..].iter_mut().zip(hash.iter()) {
        *byte = *from;
    }
    Mac(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_link_name_fits_ifnamsiz_and_tells_interfaces_apart() {
        let name = host_link_name("3f1c", "eth0");
        assert_eq!(name.len(), 13);
        assert!(name[2..].bytes().all(|b| b.is_ascii_hexdigit()));
        assert_ne!(name, host_link_name("3f1c", "eth1"));
        assert_ne!(host_link_name("a/b", "c"), host_link_name("a", "b/d"));
    }

    #[test]
    fn a_vtep_mac_is_local_unicast_and_follows_the_name() {
        let mac = vtep_mac("node1");
        assert_eq!(mac.0[0] & 0b11, 0b10);
        assert_eq!(mac, vtep_mac("node1"));
        assert_ne!(mac, vtep_mac("node2"));
    }
}
