//! Addresses on interfaces.

use ipnet::IpNet;

/// An address on an interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The interface.
    pub ifindex: u32,
    /// The address itself with its prefix length (not the network).
    pub net: IpNet,
    /// Where it is valid (`RT_SCOPE_*`): 0 everywhere, 253 link, 254 host.
    pub scope: u8,
    /// IPv6: used at once, without duplicate address detection.
    pub no_dad: bool,
    /// IPv6, read only: duplicate address detection has not ended, so it cannot be used yet.
    pub tentative: bool,
    /// IPv6, read only: another host has it, so it is never used.
    pub duplicate: bool,
}

impl Address {
    /// An address of global scope, with duplicate address detection as the interface has it.
    pub fn new(ifindex: u32, net: IpNet) -> Address {
        Address { ifindex, net, scope: 0, no_dad: false, tentative: false, duplicate: false }
    }
}
