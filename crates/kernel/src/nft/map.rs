//! Sets and maps of any key: what they are, and their elements.

use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use super::low::verdict;

/// The type of a field of a key or of a map's data, as nft names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// `ipv4_addr`.
    Ipv4,
    /// `ipv6_addr`.
    Ipv6,
    /// `inet_proto`: the number of a transport protocol.
    Protocol,
    /// `inet_service`: a port.
    Port,
    /// `mark`: a number in the machine's byte order.
    Mark,
    /// Another one, by nft's number.
    Other(u32),
}

/// How many bits nft has for a type in the number of several.
const TYPE_BITS: u32 = 6;
/// What the kernel takes for the type of data that are verdicts (`NFT_DATA_VERDICT`).
pub(super) const VERDICTS: u32 = 0xffff_ff00;

impl Type {
    const ALL: [Type; 5] = [Type::Ipv4, Type::Ipv6, Type::Protocol, Type::Port, Type::Mark];

    fn number(self) -> u32 {
        match self {
            Type::Ipv4 => 7,
            Type::Ipv6 => 8,
            Type::Protocol => 12,
            Type::Port => 13,
            Type::Mark => 19,
            Type::Other(number) => number,
        }
    }

    /// Bytes in the kernel; fields are filled up to whole registers of four.
    pub(super) fn width(self) -> usize {
        if self == Type::Ipv6 { 16 } else { 4 }
    }

    pub(super) fn number_of(types: &[Type]) -> u32 {
        types.iter().fold(0, |number, of| number << TYPE_BITS | of.number())
    }

    pub(super) fn from_number(mut number: u32) -> Vec<Type> {
        let mut out = Vec::new();
        while number != 0 {
            let one = number & ((1 << TYPE_BITS) - 1);
            out.push(Type::ALL.into_iter().find(|t| t.number() == one).unwrap_or(Type::Other(one)));
            number >>= TYPE_BITS;
        }
        out.reverse();
        out
    }
}

/// What a map has for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// Nothing: it is a set.
    None,
    /// What to do.
    Verdict,
    /// Fields.
    Fields(Vec<Type>),
}

/// What a set or map is, without its elements. Intervals are the matter of [`super::Set`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The fields of a key.
    pub key: Vec<Type>,
    /// What belongs to a key.
    pub data: Data,
    /// Whether it holds ranges; only what is read back does.
    pub interval: bool,
    /// Whether packets change it ([`super::Expr::Change`]); it has a size then.
    pub dynamic: bool,
    /// How long an element stays that no packet touches again; whole seconds.
    pub timeout: Option<Duration>,
    /// The most elements.
    pub size: Option<u32>,
}

impl Shape {
    /// A set.
    pub fn set(key: impl Into<Vec<Type>>) -> Shape {
        let key = key.into();
        Shape { key, data: Data::None, interval: false, dynamic: false, timeout: None, size: None }
    }

    /// A map of fields.
    pub fn map(key: impl Into<Vec<Type>>, data: impl Into<Vec<Type>>) -> Shape {
        Shape { data: Data::Fields(data.into()), ..Shape::set(key) }
    }

    /// A map of verdicts.
    pub fn verdicts(key: impl Into<Vec<Type>>) -> Shape {
        Shape { data: Data::Verdict, ..Shape::set(key) }
    }
}

/// Fields one after the other as registers have them: each filled up with zeros to four bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes {
    length: u8,
    // The kernel's own bound (NFT_DATA_VALUE_MAXLEN).
    bytes: [u8; 64],
}

impl Bytes {
    /// No fields.
    pub const EMPTY: Bytes = Bytes { length: 0, bytes: [0; 64] };

    /// Fields read back; none where there are more than the kernel can have.
    pub(super) fn read(data: &[u8]) -> Option<Bytes> {
        (data.len() <= 64).then(|| Bytes::EMPTY.with(data))
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    // No key of ours is longer than the kernel's bound; what would be is cut.
    fn with(mut self, data: &[u8]) -> Bytes {
        let from = usize::from(self.length);
        let data = &data[..data.len().min(64 - from)];
        self.bytes[from..from + data.len()].copy_from_slice(data);
        self.length = (from + data.len().next_multiple_of(4)) as u8;
        self
    }

    /// With an address.
    pub fn address(self, address: IpAddr) -> Bytes {
        match address {
            IpAddr::V4(ip) => self.with(&ip.octets()),
            IpAddr::V6(ip) => self.with(&ip.octets()),
        }
    }

    /// With a transport protocol's number.
    pub fn protocol(self, number: u8) -> Bytes {
        self.with(&[number])
    }

    /// With a port.
    pub fn port(self, port: u16) -> Bytes {
        self.with(&port.to_be_bytes())
    }

    /// With a number ([`Type::Mark`]).
    pub fn mark(self, number: u32) -> Bytes {
        self.with(&number.to_ne_bytes())
    }

    /// The fields as nft writes them; what does not fit the types as hexadecimal digits.
    pub fn describe(&self, types: &[Type]) -> String {
        let mut rest = self.as_slice();
        let mut out = String::new();
        for of in types {
            let Some((field, after)) = rest.split_at_checked(of.width()) else { break };
            let joint = if out.is_empty() { "" } else { " . " };
            let word = <[u8; 4]>::try_from(field).unwrap_or_default();
            // Writing to a string does not fail.
            let _ = match of {
                Type::Ipv4 => write!(out, "{joint}{}", Ipv4Addr::from(word)),
                Type::Ipv6 => write!(
                    out,
                    "{joint}{}",
                    <[u8; 16]>::try_from(field).map_or(Ipv6Addr::UNSPECIFIED, Ipv6Addr::from)
                ),
                Type::Protocol => write!(out, "{joint}{}", word[0]),
                Type::Port => write!(out, "{joint}{}", u16::from_be_bytes([word[0], word[1]])),
                Type::Mark => write!(out, "{joint}{}", u32::from_ne_bytes(word)),
                Type::Other(_) => write!(out, "{joint}{:#010x}", u32::from_be_bytes(word)),
            };
            rest = after;
        }
        let _ = rest.iter().try_for_each(|byte| write!(out, "{byte:02x}"));
        out
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What belongs to a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Datum {
    /// Nothing: in a set.
    None,
    /// Fields.
    Fields(Bytes),
    /// Let it pass.
    Accept,
    /// Drop it.
    Drop,
    /// Go back to the calling chain.
    Return,
    /// Go on in a chain and come back.
    Jump(Arc<str>),
    /// Go on in a chain.
    Goto(Arc<str>),
    /// Read back, and nothing that is written.
    Other,
}

impl Datum {
    /// The kernel's number of a verdict, and its chain.
    pub(super) fn verdict(&self) -> Option<(i32, Option<&str>)> {
        match self {
            Datum::Accept => Some((verdict::ACCEPT, None)),
            Datum::Drop => Some((verdict::DROP, None)),
            Datum::Return => Some((verdict::RETURN, None)),
            Datum::Jump(chain) => Some((verdict::JUMP, Some(chain))),
            Datum::Goto(chain) => Some((verdict::GOTO, Some(chain))),
            Datum::None | Datum::Fields(_) | Datum::Other => None,
        }
    }

    pub(super) fn from_verdict(code: i32, chain: Option<String>) -> Datum {
        match (code, chain) {
            (verdict::ACCEPT, None) => Datum::Accept,
            (verdict::DROP, None) => Datum::Drop,
            (verdict::RETURN, None) => Datum::Return,
            (verdict::JUMP, Some(chain)) => Datum::Jump(chain.into()),
            (verdict::GOTO, Some(chain)) => Datum::Goto(chain.into()),
            _ => Datum::Other,
        }
    }
}

/// An element of a set or map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    /// Its key.
    pub key: Bytes,
    /// What belongs to it.
    pub data: Datum,
}
