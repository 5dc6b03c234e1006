//! Routes.

use std::net::IpAddr;

use ipnet::IpNet;

/// The main routing table (RT_TABLE_MAIN).
pub const TABLE_MAIN: u32 = 254;
/// The table of the machine's own addresses (RT_TABLE_LOCAL).
pub const TABLE_LOCAL: u32 = 255;

/// A route. A multipath route that another program made is read without `via` and `oif`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Destination.
    pub dst: IpNet,
    /// Next hop; may be of the other family.
    pub via: Option<IpAddr>,
    /// Outgoing interface.
    pub oif: Option<u32>,
    /// Routing table.
    pub table: u32,
    /// Who made it (`RTPROT_*`).
    pub protocol: u8,
    /// Distance (`RT_SCOPE_*`): 0 universe, 253 link, 254 host. IPv6 has universe only.
    pub scope: u8,
    /// `RTN_*`: 1 unicast, 2 local, 6 blackhole, 7 unreachable.
    pub kind: u8,
    /// Preferred source address.
    pub src: Option<IpAddr>,
    /// Priority, lowest wins. For IPv6 the kernel turns 0 into 1024.
    pub metric: u32,
    /// The next hop is on the link though no route says so.
    pub onlink: bool,
    /// Path MTU in bytes.
    pub mtu: Option<u32>,
}

impl Route {
    /// A unicast route in the main table, made by protocol boot (3), as `ip route add` makes it.
    pub fn new(dst: IpNet) -> Route {
        Route {
            dst,
            via: None,
            oif: None,
            table: TABLE_MAIN,
            protocol: libc::RTPROT_BOOT,
            scope: libc::RT_SCOPE_UNIVERSE,
            kind: libc::RTN_UNICAST,
            src: None,
            metric: 0,
            onlink: false,
            mtu: None,
        }
    }

    /// The same route as the kernel will report it: destination without host bits, and for IPv6
    /// the default metric 1024 and universe scope.
    pub fn as_reported(mut self) -> Route {
        self.dst = self.dst.trunc();
        if matches!(self.dst, IpNet::V6(_)) {
            self.scope = libc::RT_SCOPE_UNIVERSE;
            if self.metric == 0 {
                self.metric = 1024;
            }
        }
        self
    }
}
