//! Interface plugins: each makes the container's interface and gives it its addresses.

pub(crate) mod bridge;
pub(crate) mod check;
pub(crate) mod loopback;
pub(crate) mod pod;
pub(crate) mod ptp;
pub(crate) mod routed;
pub(crate) mod veth;
