//! Communities: marks on a route that policies go by.

use std::fmt;
use std::str::FromStr;

/// A community (RFC 1997).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Community(pub u32);

impl Community {
    /// "GRACEFUL_SHUTDOWN" (RFC 8326).
    pub const GRACEFUL_SHUTDOWN: Community = Community(0xffff_0000);
    /// "LLGR_STALE": kept though its speaker is long gone (RFC 9494).
    pub const LLGR_STALE: Community = Community(0xffff_0006);
    /// "NO_LLGR": not to be kept so (RFC 9494).
    pub const NO_LLGR: Community = Community(0xffff_0007);
    /// "NO_EXPORT": not beyond the AS, or the confederation.
    pub const NO_EXPORT: Community = Community(0xffff_ff01);
    /// "NO_ADVERTISE": to no other speaker.
    pub const NO_ADVERTISE: Community = Community(0xffff_ff02);
    /// "NO_EXPORT_SUBCONFED": not beyond the AS, be it a confederation's member.
    pub const NO_EXPORT_SUBCONFED: Community = Community(0xffff_ff03);
}

/// An extended community (RFC 4360), whose meaning is of no concern here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExtendedCommunity(pub [u8; 8]);

impl ExtendedCommunity {
    /// Whether it goes on to other systems.
    pub fn is_transitive(&self) -> bool {
        self.0[0] & 0x40 == 0
    }
}

/// A large community (RFC 8092): whose, and two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LargeCommunity(pub u32, pub u32, pub u32);

/// What is no community as people write it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no community: two numbers up to 65535, or three up to 4294967295, with colons between them"
)]
pub struct NoCommunity(String);

impl FromStr for Community {
    type Err = NoCommunity;

    fn from_str(text: &str) -> Result<Community, NoCommunity> {
        let read = || {
            let (asn, value) = text.split_once(':')?;
            let (asn, value): (u16, u16) = (asn.parse().ok()?, value.parse().ok()?);
            Some(Community(u32::from(asn) << 16 | u32::from(value)))
        };
        read().ok_or_else(|| NoCommunity(text.into()))
    }
}

impl FromStr for LargeCommunity {
    type Err = NoCommunity;

    fn from_str(text: &str) -> Result<LargeCommunity, NoCommunity> {
        let mut numbers = text.split(':').map(|number| number.parse().ok());
        let mut next = || numbers.next().flatten();
        let read = (next(), next(), next(), numbers.next().is_some());
        let (Some(asn), Some(a), Some(b), false) = read else { return Err(NoCommunity(text.into())) };
        Ok(LargeCommunity(asn, a, b))
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0 >> 16, self.0 & 0xffff)
    }
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_read_as_they_are_printed() {
        for text in ["65535:65281", "0:0", "64512:100"] {
            assert_eq!(text.parse::<Community>().unwrap().to_string(), text);
        }
        assert_eq!("65535:65281".parse(), Ok(Community::NO_EXPORT));
        assert_eq!("4200000000:1:2".parse(), Ok(LargeCommunity(4_200_000_000, 1, 2)));
        for bad in ["", "1", "65536:1", "1:2:3", "a:b", "1:-2"] {
            assert!(bad.parse::<Community>().is_err(), "{bad}");
        }
        for bad in ["1:2", "1:2:3:4", "1:2:x", "4294967296:1:1"] {
            assert!(bad.parse::<LargeCommunity>().is_err(), "{bad}");
        }
    }
}
