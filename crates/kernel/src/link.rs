//! Network interfaces.

use std::net::IpAddr;

use weft_model::Mac;

use crate::Netns;

/// An interface to make.
#[derive(Clone, Debug)]
pub struct NewLink {
    /// Its name, at most 15 bytes.
    pub name: String,
    /// What it is.
    pub kind: LinkKind,
    /// Maximum transmission unit in bytes; the kernel's default when absent.
    pub mtu: Option<u32>,
    /// Hardware address; random when absent.
    pub mac: Option<Mac>,
    /// Whether it is set up at once.
    pub up: bool,
    /// Index of the bridge it becomes a port of.
    pub master: Option<u32>,
    /// Free text on the link, at most 255 bytes. Not together with `netns`.
    pub alias: Option<String>,
    /// The namespace it is made in; the socket's own when absent.
    pub netns: Option<Netns>,
}

impl NewLink {
    /// A link that is down, with the kernel's defaults.
    pub fn new(name: impl Into<String>, kind: LinkKind) -> NewLink {
        NewLink {
            name: name.into(),
            kind,
            mtu: None,
            mac: None,
            up: false,
            master: None,
            alias: None,
            netns: None,
        }
    }
}

/// What kind of interface to make.
#[derive(Clone, Debug)]
pub enum LinkKind {
    /// An Ethernet bridge without spanning tree and VLAN filter.
    Bridge,
    /// A pair of Ethernet interfaces joined back to back.
    Veth {
        /// Name of the other end.
        peer_name: String,
        /// Where the other end is made; beside this one when absent.
        peer_netns: Option<Netns>,
        /// Hardware address of the other end; random when absent.
        peer_mac: Option<Mac>,
        /// MTU of the other end in bytes; the kernel's default when absent.
        peer_mtu: Option<u32>,
        /// Whether the other end is set up at once.
        peer_up: bool,
    },
    /// A VXLAN tunnel endpoint.
    Vxlan {
        /// VXLAN network identifier, below 2^24.
        vni: u32,
        /// UDP port.
        port: u16,
        /// Source address of the outer packets.
        local: Option<IpAddr>,
        /// Index of the underlay interface.
        dev: Option<u32>,
        /// Whether it learns peers from received packets.
        learning: bool,
    },
}

/// What to change on an interface; what is absent stays.
#[derive(Clone, Debug, Default)]
pub struct LinkSet {
    /// The interface.
    pub index: u32,
    /// Set up or down.
    pub up: Option<bool>,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// Hardware address.
    pub mac: Option<Mac>,
    /// `Some(Some(bridge))` makes it a port, `Some(None)` takes it out of its bridge.
    pub master: Option<Option<u32>>,
    /// New name; the link should be down.
    pub name: Option<String>,
    /// New alias; empty removes it.
    pub alias: Option<String>,
    /// Moves it into this namespace.
    pub netns: Option<Netns>,
    /// Whether it takes every packet of the segment.
    pub promiscuous: Option<bool>,
    /// Whether it takes every multicast packet of the segment.
    pub allmulti: Option<bool>,
    /// Packets that its transmit queue holds.
    pub tx_queue_len: Option<u32>,
    /// Bridge port: packets may leave by the port they came in.
    pub hairpin: Option<bool>,
    /// Bridge port: no packets to other isolated ports.
    pub isolated: Option<bool>,
    /// Bridge port: learns addresses of received packets.
    pub learning: Option<bool>,
}

/// An interface as the kernel has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Hardware address; none where the address is not six bytes (as for a tunnel).
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Whether it is set up (IFF_UP).
    pub up: bool,
    /// Whether it can carry packets (IFF_RUNNING: up, with carrier).
    pub running: bool,
    /// Index of the bridge it is a port of.
    pub master: Option<u32>,
    /// Kind as the kernel names it: `bridge`, `veth`, `vxlan`; none for hardware and loopback.
    pub kind: Option<String>,
    /// Alias.
    pub alias: Option<String>,
    /// Index of the peer (veth) or underlay interface (IFLA_LINK), in namespace `peer_netnsid`.
    pub peer: Option<u32>,
    /// The peer's namespace as this one numbers it; none when it is the same namespace.
    pub peer_netnsid: Option<i32>,
    /// What it is as a VXLAN endpoint.
    pub vxlan: Option<Vxlan>,
    /// Bridge port: packets may leave by the port they came in.
    pub hairpin: Option<bool>,
    /// Bridge port: isolated from other isolated ports.
    pub isolated: Option<bool>,
    /// Bridge port: learns addresses.
    pub learning: Option<bool>,
    /// Whether it takes every packet of the segment (asked for by user space, IFF_PROMISC).
    pub promiscuous: bool,
    /// Whether it takes every multicast packet of the segment (asked for by user space).
    pub allmulti: bool,
    /// Packets that its transmit queue holds.
    pub tx_queue_len: u32,
}

/// A VXLAN endpoint's parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vxlan {
    /// VXLAN network identifier.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// Source address of the outer packets.
    pub local: Option<IpAddr>,
    /// Index of the underlay interface.
    pub dev: Option<u32>,
    /// Whether it learns peers from received packets.
    pub learning: bool,
}
