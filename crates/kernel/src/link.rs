//! Network interfaces.

use std::net::IpAddr;

use weft_model::Mac;

use crate::{IpTunnel, Netns};

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
    /// A bridge that learns at most so many hardware addresses; any number before Linux 6.7.
    LimitedBridge {
        /// How many.
        learned: u32,
    },
    /// A bridge that keeps its ports' VLANs apart (802.1Q).
    VlanBridge {
        /// VLAN of a new port's untagged packets, 0 for none; the kernel's default (1) when absent.
        default_pvid: Option<u16>,
    },
    /// An interface with a hardware address of its own on another one. Made with `netns`, the
    /// one below is in the socket's namespace; the same holds for `Ipvlan` and `Vlan`.
    Macvlan {
        /// Index of the interface below.
        parent: u32,
        /// How those on one parent reach each other.
        mode: MacvlanMode,
        /// How many broadcasts may wait; the kernel's default (1000) when absent.
        bc_queue_len: Option<u32>,
    },
    /// An interface with the hardware address of the one below it.
    Ipvlan {
        /// Index of the interface below.
        parent: u32,
        /// Where packets are routed.
        mode: IpvlanMode,
        /// How those on one parent reach each other.
        reach: IpvlanReach,
    },
    /// The packets of one VLAN (802.1Q) of another interface.
    Vlan {
        /// Index of the interface below.
        parent: u32,
        /// VLAN identifier, 0 to 4094.
        id: u16,
    },
    /// An interface that drops what is sent by it.
    Dummy,
    /// A routing domain of the interfaces that have it as master.
    Vrf {
        /// The routing table that they use.
        table: u32,
    },
    /// An intermediate functional block: queues what other interfaces redirect to it.
    Ifb,
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
    /// A VXLAN tunnel endpoint. What must not be fragmented stays whole in the tunnel, too: an outer
    /// IPv4 packet copies the bit, so that a narrower path is told instead of taken in pieces (4.20).
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
    /// IPv4 in IPv4 or IPv6 in IPv6.
    IpTunnel(IpTunnel),
}

/// How interfaces of kind macvlan on one parent reach each other. The parent itself cannot be
/// reached in any mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MacvlanMode {
    /// Not at all.
    Private,
    /// By the switch outside, which has to send back.
    Vepa,
    /// Directly.
    Bridge,
    /// There is only one, and it has the parent's address.
    Passthru,
    /// By a list of senders that are let in.
    Source,
}

/// Where packets of an ipvlan interface are routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpvlanMode {
    /// In the namespace of the ipvlan interface.
    L2,
    /// In the parent's namespace; no broadcast and multicast.
    L3,
    /// As `L3`, through the parent namespace's packet filter in both directions.
    L3s,
}

/// How interfaces of kind ipvlan on one parent reach each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpvlanReach {
    /// Directly.
    #[default]
    Bridge,
    /// Not at all.
    Private,
    /// By the switch outside, which has to send back.
    Vepa,
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
    /// Bridge: keeps its ports' VLANs apart.
    pub vlan_filtering: Option<bool>,
    /// Bridge: VLAN of a new port's untagged packets; 0 for none.
    pub vlan_default_pvid: Option<u16>,
    /// Bridge port: packets may leave by the port they came in.
    pub hairpin: Option<bool>,
    /// Bridge port: no packets to other isolated ports.
    pub isolated: Option<bool>,
    /// Bridge port: learns addresses of received packets.
    pub learning: Option<bool>,
    /// Tells its neighbours of its IPv4 addresses when it comes up (`arp_notify`).
    pub arp_notify: Option<bool>,
    /// Lets packets of 127.0.0.0/8 pass (`route_localnet`).
    pub route_localnet: Option<bool>,
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
    /// Index of the peer (veth), of the underlay interface or of the one below (macvlan, ipvlan,
    /// vlan) (IFLA_LINK), in namespace `peer_netnsid`.
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
    /// The hardware address it was made with; none where it has none, as virtual interfaces.
    pub permanent_mac: Option<Mac>,
    /// The device it belongs to as its bus names it: `0000:03:10.2` on the bus `pci`.
    pub device: Option<String>,
    /// The bus of that device.
    pub device_bus: Option<String>,
    /// Whether packets of 127.0.0.0/8 pass (`route_localnet`).
    pub route_localnet: bool,
    /// What it does with router advertisements (`accept_ra`); none without IPv6.
    pub accept_ra: Option<i32>,
    /// What else belongs to its kind.
    pub details: Details,
}

/// What belongs to a link of one kind only.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Details {
    /// Nothing that is known here.
    #[default]
    None,
    /// A bridge.
    Bridge {
        /// Whether it keeps its ports' VLANs apart.
        vlan_filtering: bool,
        /// VLAN of a new port's untagged packets; 0 for none.
        vlan_default_pvid: u16,
    },
    /// A macvlan interface; none for a mode that is unknown.
    Macvlan(Option<MacvlanMode>),
    /// An ipvlan interface; none for a mode that is unknown.
    Ipvlan(Option<IpvlanMode>, IpvlanReach),
    /// A VLAN interface with its identifier.
    Vlan(u16),
    /// A routing domain with its table.
    Vrf(u32),
    /// IP in IP; none where it has a fixed remote end.
    IpTunnel(Option<IpTunnel>),
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
