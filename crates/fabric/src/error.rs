/// Why a kernel object of ours could not be programmed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel has no VXLAN.
    #[error("this kernel has no vxlan: load the module vxlan, or start the agent with --backend host-gw")]
    NoVxlan,
    /// Another program's route holds the destination.
    #[error("route {route}: another program's route to it exists; remove that one (ip route show {route})")]
    ForeignRoute {
        /// The destination.
        route: ipnet::IpNet,
    },
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] weft_kernel::Error),
}

impl Error {
    /// Whether trying again changes nothing until an operator acts.
    pub fn lasting(&self) -> bool {
        matches!(self, Error::NoVxlan | Error::ForeignRoute { .. })
    }
}
