/// What a proxy could not do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] weft_kernel::Error),
    /// The userspace proxy could not start.
    #[error(transparent)]
    Userspace(#[from] crate::userspace::Error),
    /// The kernel has no virtual servers.
    #[error(
        "this kernel has no IPVS, or its modules are not loaded: modprobe -a ip_vs ip_vs_rr, or use --proxy nftables"
    )]
    NoIpvs,
    /// The kernel has virtual servers, but none that choose so.
    #[error(
        "this kernel has no scheduler {scheduler} of IPVS, or its module is not loaded: modprobe ip_vs_{scheduler}, or use another by --ipvs-scheduler"
    )]
    NoScheduler {
        /// Which.
        scheduler: String,
    },
    /// Another program has held iptables' lock for seconds; what was to be written is kept for the next time.
    #[error(
        "another program holds iptables' lock (/run/xtables.lock), so Services stay as they are until it lets go; which one: fuser -v /run/xtables.lock"
    )]
    IptablesLocked,
    /// A program that was started for it refused, or is not there.
    #[error("{program}: {said}")]
    Program {
        /// Which program, with its arguments.
        program: String,
        /// What it said.
        said: String,
    },
}
