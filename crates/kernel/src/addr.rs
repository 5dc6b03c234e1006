//! Addresses on interfaces.

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo,
};

use crate::wire::{attributes, family, ip, of_family, u32_at};

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
    /// IPv4, not read: the last address of its network is its broadcast address.
    pub broadcast: bool,
    /// IPv6: not chosen as the source of what goes elsewhere (RFC 4862, preferred lifetime 0).
    pub deprecated: bool,
    /// IPv6, read only: duplicate address detection has not ended, so it cannot be used yet.
    pub tentative: bool,
    /// IPv6, read only: another host has it, so it is never used.
    pub duplicate: bool,
    /// IPv6, read only: random and soon replaced by another (RFC 8981).
    pub temporary: bool,
}

impl Address {
    /// An address of global scope, with duplicate address detection as the interface has it.
    pub fn new(ifindex: u32, net: IpNet) -> Address {
        Address {
            ifindex,
            net,
            scope: 0,
            no_dad: false,
            broadcast: false,
            deprecated: false,
            tentative: false,
            duplicate: false,
            temporary: false,
        }
    }
}

const IFA_FLAGS: u16 = 8;

/// The message that adds or removes `address`.
pub(crate) fn encode(address: &Address) -> AddressMessage {
    let mut message = AddressMessage::default();
    let ip = address.net.addr();
    message.header.family = AddressFamily::from(family(ip));
    message.header.prefix_len = address.net.prefix_len();
    message.header.index = address.ifindex;
    message.header.scope = AddressScope::from(address.scope);
    message.header.flags.set(AddressHeaderFlags::Nodad, address.no_dad);
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    if address.deprecated {
        let mut lifetimes = CacheInfo::default();
        lifetimes.ifa_valid = u32::MAX;
        message.attributes.push(AddressAttribute::CacheInfo(lifetimes));
    }
    // A network of two addresses or one has none to spare (RFC 3021).
    if let IpNet::V4(net) = address.net
        && address.broadcast
        && net.prefix_len() < 31
    {
        message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
    }
    message
}

/// An IPv4 or IPv6 address out of a message's payload.
pub(crate) fn decode(payload: &[u8]) -> Option<Address> {
    let (header, body) = payload.split_at_checked(8)?;
    let (mut local, mut ip_address, mut flags) = (None, None, u32::from(header[2]));
    for (kind, value) in attributes(body) {
        match kind {
            libc::IFA_LOCAL => local = ip(value),
            libc::IFA_ADDRESS => ip_address = ip(value),
            IFA_FLAGS => flags = u32_at(value, 0)?,
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the other side's.
    let own = of_family(local.or(ip_address), header[0])?;
    Some(Address {
        ifindex: u32_at(header, 4)?,
        net: IpNet::new(own, header[1]).ok()?,
        scope: header[3],
        no_dad: flags & libc::IFA_F_NODAD != 0,
        broadcast: false,
        deprecated: own.is_ipv6() && flags & libc::IFA_F_DEPRECATED != 0,
        tentative: flags & libc::IFA_F_TENTATIVE != 0,
        duplicate: flags & libc::IFA_F_DADFAILED != 0,
        temporary: own.is_ipv6() && flags & libc::IFA_F_TEMPORARY != 0,
    })
}
