//! Prefixes as UPDATEs carry them, read where they lie.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::wire::Reader;
use crate::Family;

/// A prefix, and which of several paths to it (RFC 7911); 0 where there is but one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nlri {
    /// The prefix, its host bits 0.
    pub prefix: IpNet,
    /// The sender's number for the path.
    pub path: u32,
}

/// A list of them inside of a message, checked to be well-formed.
#[derive(Clone, Copy, Debug)]
pub struct NlriList<'a> {
    bytes: &'a [u8],
    family: Family,
    paths: bool,
}

impl<'a> NlriList<'a> {
    /// `None` where a length is beyond the family's addresses or the list's end. `paths`: each has a number.
    pub(super) fn new(bytes: &'a [u8], family: Family, paths: bool) -> Option<NlriList<'a>> {
        let mut rest = Reader(bytes);
        while !rest.is_empty() {
            if paths {
                rest.u32()?;
            }
            let length = rest.u8().filter(|length| *length <= family.bits())?;
            rest.take(usize::from(length).div_ceil(8))?;
        }
        Some(NlriList { bytes, family, paths })
    }

    /// The family of all of them.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = Nlri> + use<'a> {
        let (mut rest, family, paths) = (Reader(self.bytes), self.family, self.paths);
        std::iter::from_fn(move || read(&mut rest, family, paths))
    }
}

fn read(rest: &mut Reader<'_>, family: Family, paths: bool) -> Option<Nlri> {
    let path = if paths { rest.u32()? } else { 0 };
    let length = rest.u8()?;
    let octets = rest.take(usize::from(length).div_ceil(8))?;
    let prefix = match family {
        Family::Ipv4 => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            let bits = u32::from_be_bytes(padded(octets)?) & mask;
            Ipv4Net::new(Ipv4Addr::from_bits(bits), length).ok()?.into()
        }
        Family::Ipv6 => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            let bits = u128::from_be_bytes(padded(octets)?) & mask;
            Ipv6Net::new(Ipv6Addr::from_bits(bits), length).ok()?.into()
        }
    };
    Some(Nlri { prefix, path })
}

fn padded<const N: usize>(octets: &[u8]) -> Option<[u8; N]> {
    let mut padded = [0; N];
    padded.get_mut(..octets.len())?.copy_from_slice(octets);
    Some(padded)
}

/// Appends one. `paths`: with its number.
pub(super) fn write(out: &mut Vec<u8>, nlri: &Nlri, paths: bool) {
    if paths {
        out.extend(nlri.path.to_be_bytes());
    }
    let length = nlri.prefix.prefix_len();
    out.push(length);
    let octets = usize::from(length).div_ceil(8);
    match nlri.prefix {
        IpNet::V4(prefix) => out.extend(prefix.network().octets().iter().take(octets)),
        IpNet::V6(prefix) => out.extend(prefix.network().octets().iter().take(octets)),
    }
}
