//! One node's daemon: what it programs is what the cluster says, and nothing else.
//!
//! [`Agent`] joins the planner and the drivers and has no loop, no API and no clock of its own;
//! [`drive`] feeds it with updates, with what the kernel says and with the hours of a slow audit;
//! [`run`] is the process. It changes nothing before the first full view of the cluster, adopts
//! what it finds by name and mark, repairs what others break from the kernel's notification, and
//! leaves everything as it is when it ends.
#![forbid(unsafe_code)]

mod agent;
mod announce;
mod bgp;
mod conditions;
mod config;
mod conflist;
mod containers;
mod files;
mod flannel;
mod forward_filter;
mod forwarding;
mod heart;
mod host;
mod loose;
mod neighbours;
mod offload;
mod pools;
mod proxy;
mod run;
mod sources;
mod status;
mod underlay;
mod views;

pub use agent::Agent;
pub use announce::{AnnounceOn, AnnounceStatus};
pub use config::AgentConfig;
pub use flannel::{Adoption, adopt};
pub use host::Standing;
pub use pools::keep as keep_pools;
pub use proxy::{ProxyConfig, ProxyMode, ProxyStatus};
pub use run::{drive, run};
pub use status::{PeerStatus, Repairs, Status, UdpTraffic};
pub use views::Views;
