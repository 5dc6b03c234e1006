//! Interface plugins: each makes the container's interface and gives it its addresses.

pub(crate) mod bridge;
pub(crate) mod check;
mod clash;
pub(crate) mod device;
pub(crate) mod dummy;
pub(crate) mod host_device;
pub(crate) mod ipvlan;
pub(crate) mod loopback;
pub(crate) mod macvlan;
pub(crate) mod ovs;
pub(crate) mod pod;
pub(crate) mod ptp;
pub(crate) mod routed;
pub(crate) mod rules;
pub(crate) mod single;
pub(crate) mod sriov;
pub(crate) mod tap;
pub(crate) mod unbridged;
pub(crate) mod veth;
pub(crate) mod vlan;
