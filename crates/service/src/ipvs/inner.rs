//! Addresses of no network at which the node alone reaches virtual servers: those of node ports, and those of
//! clients who are led elsewhere than the others of their frontend.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use crate::{FrontendKey, Place};

/// What ends an inner address: of node ports, and of node ports for who comes from outside.
const NODE_PORTS: u8 = 1;
const NODE_PORTS_HERE: u8 = 2;
/// From which on they are for frontends with an address.
const FIRST: u32 = 16;
const ENDS: u32 = 256 - FIRST;
const PORTS: u32 = 65_535;

/// Where all inner addresses of a family are.
pub(super) fn net(ipv6: bool) -> IpNet {
    let (address, length) = (address(ipv6, 0), if ipv6 { 120 } else { 24 });
    IpNet::new_assert(address, length)
}

/// Whether an address is an inner one.
pub(super) fn has(ip: IpAddr) -> bool {
    net(ip.is_ipv6()).contains(&ip)
}

fn address(ipv6: bool, end: u8) -> IpAddr {
    match ipv6 {
        false => Ipv4Addr::new(169, 254, 87, end).into(),
        true => Ipv6Addr::new(0xfd00, 0x5765, 0x6674, 0, 0, 0, 0, end.into()).into(),
    }
}

/// Whose inner address is which.
#[derive(Clone, Debug, Default)]
pub(super) struct Inner {
    given: BTreeMap<(FrontendKey, bool), SocketAddr>,
    taken: BTreeSet<(u8, SocketAddr)>,
}

impl Inner {
    /// The address of a frontend, with `here` that for who comes from outside: always the same unless another
    /// has it.
    pub(super) fn of(&mut self, at: &FrontendKey, here: bool) -> SocketAddr {
        let ipv6 = at.place.is_ipv6();
        if let Place::NodePort { .. } = at.place {
            let end = if here { NODE_PORTS_HERE } else { NODE_PORTS };
            return SocketAddr::new(address(ipv6, end), at.port);
        }
        if let Some(given) = self.given.get(&(*at, here)) {
            return *given;
        }
        // FNV-1a.
        let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        let mut hash = format!("{at} {here}").bytes().fold(0x811c_9dc5, step);
        let number = at.protocol.number();
        loop {
            // Both fit by their modulus.
            let (end, port) = ((FIRST + hash % ENDS) as u8, (1 + hash / ENDS % PORTS) as u16);
            let found = SocketAddr::new(address(ipv6, end), port);
            if self.taken.insert((number, found)) {
                self.given.insert((*at, here), found);
                return found;
            }
            hash = hash.wrapping_add(1);
        }
    }

    /// A frontend that is gone.
    pub(super) fn forget(&mut self, at: &FrontendKey) {
        for here in [false, true] {
            if let Some(address) = self.given.remove(&(*at, here)) {
                self.taken.remove(&(at.protocol.number(), address));
            }
        }
    }
}
