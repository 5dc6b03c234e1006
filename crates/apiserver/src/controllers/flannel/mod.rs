//! Flannel's subnets in etcd, kept beside flannel: for hosts that ran it without Kubernetes.
//!
//! Both ways: the key of a host that runs flannel becomes a Node object with flannel's annotations, so that
//! agents reach it; the Node of a host of ours gets its pod CIDR by a key, so that flannel reaches it.

mod host;
mod plan;
mod run;
mod settings;
mod text;

pub(super) use run::keep;
pub use settings::{Settings, read_settings};
pub use text::{Attributes, NoSubnet, Subnet, read_attributes};

use crate::storage::EtcdConfig;

/// Where flannel's keys are.
#[derive(Debug, Clone)]
pub struct FlannelEtcd {
    /// The etcd; its prefix does not count.
    pub etcd: EtcdConfig,
    /// What flannel's keys start with: its `--etcd-prefix`.
    pub prefix: String,
}
