//! Node to node: how a packet for a pod on another node gets there.
//!
//! [`plan`] says, from the cluster's snapshot alone, what this node should have: its bridge, its
//! tunnel device, and a path for each peer, or why there is none. [`Planner`] keeps that plan in
//! step at a cost that follows the change. The backends (`host_gw`, `vxlan`, `ipip`) render a path into
//! kernel values, and [`udp`] carries packets itself; [`Fabric`] holds what was applied and sends the difference in one batch.
//!
//! A planner reads no kernel, no clock and no file; the drivers know no cluster.
#![forbid(unsafe_code)]

mod checks;
mod claims;
mod error;
mod fabric;
pub mod flannel;
mod host_gw;
mod ipip;
mod learnt;
mod links;
pub mod masquerade;
pub mod migration;
mod nexthops;
mod own;
mod plan;
mod planner;
mod prefixes;
mod refusal;
mod rivals;
mod tables;
pub mod udp;
mod vxlan;

pub use error::Error;
pub use fabric::{Applied, Fabric};
pub use learnt::LEARNT_METRIC;
pub use masquerade::Masquerade;
pub use plan::{
    BridgeSpec, FabricConfig, FabricPlan, IpipSpec, LocalPlan, Path, PeerPlan, Tunnels, UdpSpec, Underlay,
    Via, VxlanSpec, Waiting,
};
pub use planner::{Planner, internal_ip, plan};
pub use refusal::Refusal;
