//! Linux objects: namespaces, links, addresses, routes, rules, neighbours, traffic control,
//! nftables, sysctls.
//!
//! The only room that calls the kernel by hand, and so the only one with `unsafe`. It knows
//! nothing of clusters: callers say which objects, it says what the kernel answered.
//! Everything blocks and nothing needs a runtime; sockets offer their descriptor for one.
//! [`Netlink`] reads and changes, [`Monitor`] tells what changed, [`Delta`] keeps the
//! difference between desired and actual for every driver.
//! A dump is consistent or it is an error. Attributes unknown to us are skipped.
//! A socket belongs to the namespace it was opened in; [`Netns`] is where.
//! The harness for tests that need namespaces of their own is in `testing` (a feature).

mod ack;
mod addr;
mod bridge_vlan;
pub mod capture;
pub mod conntrack;
mod delta;
pub mod descriptors;
mod error;
pub mod ethtool;
mod hop;
mod ip_tunnel;
pub mod ipset;
pub mod ipvs;
mod late;
mod link;
mod link_codec;
mod monitor;
mod neigh;
mod netlink;
mod netns;
mod nexthop;
pub mod nft;
mod nsid;
mod op;
mod packet;
pub mod process;
mod raw;
mod read;
mod route;
mod rule;
pub mod sandbox;
pub mod schedule;
pub mod signal;
mod sockaddr;
mod socket;
pub mod sysctl;
mod tap;
mod tc;
pub mod tcp;
#[cfg(feature = "testing")]
pub mod testing;
pub mod transport;
mod tun;
mod udp;
mod vf;
mod wire;
pub mod xtables;

pub use addr::Address;
pub use bridge_vlan::PortVlan;
pub use delta::Delta;
pub use error::{Error, Result};
pub use hop::{Hop, HopReceiver, HopSender};
pub use ip_tunnel::IpTunnel;
pub use link::{Details, IpvlanMode, IpvlanReach, Link, LinkKind, LinkSet, MacvlanMode, NewLink, Vxlan};
pub use monitor::{Event, Monitor, Netconf, decode_events};
pub use neigh::{FdbEntry, Neighbour};
pub use netlink::Netlink;
pub use netns::{Netns, NetnsGuard};
pub use nexthop::Nexthop;
pub use op::Op;
pub use packet::{PacketFilter, PacketSocket, Received};
pub use raw::RawSender;
pub use route::{Route, TABLE_LOCAL, TABLE_MAIN};
pub use rule::Rule;
pub use tap::{NewTap, add_tap};
pub use tc::{Class, Filter, Match, Qdisc, QdiscKind, Tbf, Verdict, ticks};
pub use tun::{TunQueue, open_tun};
pub use udp::{Arrived, Piece, Train, UdpSocket, path_mtu};
pub use vf::{Vf, VfLinkState, VfSet, VfVlan};
