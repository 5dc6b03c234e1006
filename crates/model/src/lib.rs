//! The cluster as plain data: nodes, pods and the network they share. No I/O at all.
//!
//! Every room reads these types; only `store` makes them from Kubernetes objects. A
//! [`Cluster`] is an immutable snapshot that is cheap to clone (persistent maps); a
//! [`Changes`] says which keys differ from the snapshot before. What two feature rooms must
//! agree on (names, marks, numbers) is in [`mark`] and [`network`]; addresses out of pools are in [`pools`],
//! Services and their endpoints in [`service`], the pools of load balancers in [`load_balancer`], sessions of BGP in
//! [`bgp`].

mod backend;
pub mod bgp;
mod cluster;
mod flannel;
pub mod load_balancer;
mod mac;
pub mod mark;
pub mod network;
pub mod pools;
pub mod service;

pub use cluster::{Changes, Cluster, NamespacedName, Node, Pod, PodKey, PodPhase};
pub use flannel::{FlannelAnnotation, FlannelAnnotations};
pub use mac::{Mac, ParseMacError};
