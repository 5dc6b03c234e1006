//! The address families that routes are of.

use std::ops::{Index, IndexMut};

use ipnet::IpNet;

/// SAFI of unicast.
const UNICAST: u8 = 1;

/// An address family, unicast (RFC 4760).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// AFI 1, SAFI 1.
    Ipv4,
    /// AFI 2, SAFI 1.
    Ipv6,
}

impl Family {
    /// Both, in the order in which they are told.
    pub const ALL: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    /// That of a prefix.
    pub fn of(prefix: &IpNet) -> Family {
        match prefix {
            IpNet::V4(_) => Family::Ipv4,
            IpNet::V6(_) => Family::Ipv6,
        }
    }

    /// AFI and SAFI.
    pub(crate) fn wire(self) -> (u16, u8) {
        (if self == Family::Ipv4 { 1 } else { 2 }, UNICAST)
    }

    /// That of an AFI and a SAFI, where it is one of ours.
    pub(crate) fn from_wire(afi: u16, safi: u8) -> Option<Family> {
        Family::ALL.into_iter().find(|family| family.wire() == (afi, safi))
    }

    /// The length of its addresses.
    pub(crate) fn bits(self) -> u8 {
        if self == Family::Ipv4 { 32 } else { 128 }
    }
}

/// Something for each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerFamily<T> {
    /// Of [`Family::Ipv4`].
    pub ipv4: T,
    /// Of [`Family::Ipv6`].
    pub ipv6: T,
}

impl<T> PerFamily<T> {
    /// What `of` says of each.
    pub fn from_fn(mut of: impl FnMut(Family) -> T) -> PerFamily<T> {
        PerFamily { ipv4: of(Family::Ipv4), ipv6: of(Family::Ipv6) }
    }
}

impl<T> Index<Family> for PerFamily<T> {
    type Output = T;

    fn index(&self, family: Family) -> &T {
        match family {
            Family::Ipv4 => &self.ipv4,
            Family::Ipv6 => &self.ipv6,
        }
    }
}

impl<T> IndexMut<Family> for PerFamily<T> {
    fn index_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::Ipv4 => &mut self.ipv4,
            Family::Ipv6 => &mut self.ipv6,
        }
    }
}
