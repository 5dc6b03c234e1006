//! What a lease says about the network, read out of its options.

use std::net::IpAddr;

use ipnet::IpNet;

/// A route that the server gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticRoute {
    /// Destination.
    pub destination: IpNet,
    /// Next hop; unspecified (0.0.0.0) when the destination is on the link.
    pub gateway: IpAddr,
}

/// What a lease says about the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Routers, the preferred one first (option 3).
    pub routers: Vec<IpAddr>,
    /// The routes to make: those of option 121, else of 249, else of 33 with a default route
    /// through the first router (RFC 3442).
    pub routes: Vec<StaticRoute>,
    /// Name servers (option 6; DHCPv6 23).
    pub dns_servers: Vec<IpAddr>,
    /// The local domain (option 15).
    pub domain: Option<String>,
    /// Search domains (option 119; DHCPv6 24).
    pub search: Vec<String>,
    /// Time servers (option 42; DHCPv6 56).
    pub ntp_servers: Vec<IpAddr>,
    /// The link's MTU in bytes (option 26).
    pub mtu: Option<u16>,
    /// What the vendor defines (option 43), as it came.
    pub vendor: Vec<u8>,
}
