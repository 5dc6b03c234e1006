use weft_model::mark;

/// Why a kernel object of ours could not be programmed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel does not know the kind of a device.
    #[error("this kernel has no {kind}: load the module {kind}, or choose another backend than {backend}")]
    NoKind {
        /// The kind, which is the module's name too.
        kind: &'static str,
        /// A backend that needs it.
        backend: &'static str,
    },
    /// Another program's route holds the destination.
    #[error("route {route}: another program's route to it exists; remove that one (ip route show {route})")]
    ForeignRoute {
        /// The destination.
        route: ipnet::IpNet,
    },
    /// Another program's route to the destination goes before ours.
    #[error(
        "route {route}: another program's (protocol {protocol}, metric {metric}) goes before ours (metric {ours}); remove that one (ip route show {route})"
    )]
    RivalRoute {
        /// The destination.
        route: ipnet::IpNet,
        /// Its metric, which is lower.
        metric: u32,
        /// Who made it (`RTPROT_*`).
        protocol: u8,
        /// Our metric.
        ours: u32,
    },
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] weft_kernel::Error),
}

impl Error {
    /// The kernel cannot make the device that has this name.
    pub(crate) fn no_kind(device: &str) -> Error {
        let (kind, backend) = match device {
            mark::VXLAN | mark::VXLAN6 => ("vxlan", "vxlan"),
            mark::IPIP => ("ipip", "ipip"),
            mark::IP6TNL => ("ip6_tunnel", "ipip"),
            mark::UDP => ("tun", "udp"),
            _ => ("bridge", "any"),
        };
        Error::NoKind { kind, backend }
    }

    /// Whether trying again changes nothing until an operator acts.
    pub fn lasting(&self) -> bool {
        matches!(self, Error::NoKind { .. } | Error::ForeignRoute { .. })
    }
}
