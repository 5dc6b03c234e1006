//! The way between the kernel's expressions over several registers and ours.

use super::expr::{Expr, Side};
use super::field::{Change, Field};
use super::low::Low;
use super::lower::{META_L4PROTO, META_MARK, NETWORK, TRANSPORT};
use super::ruleset::Family;

/// `NFT_CT_*`.
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
/// `NFT_REJECT_*`.
const UNREACHABLE: u32 = 0;
const RESET: u32 = 1;
const UNREACHABLE_BOTH: u32 = 2;

/// The load of one field.
pub(super) fn load(at: u8, field: Field) -> Low {
    let (base, offset, len) = match field {
        Field::Random { modulus, offset } => return Low::Random { at, modulus, offset },
        Field::Protocol | Field::Mark => {
            let key = if field == Field::Mark { META_MARK } else { META_L4PROTO };
            return if at == 0 { Low::Meta(key) } else { Low::MetaAt { at, key } };
        }
        Field::Address { side, ipv6: false } => (NETWORK, if side == Side::Source { 12 } else { 16 }, 4),
        Field::Address { side, ipv6: true } => (NETWORK, if side == Side::Source { 8 } else { 24 }, 16),
        Field::Port(side) => (TRANSPORT, if side == Side::Source { 0 } else { 2 }, 2),
    };
    match at {
        0 => Low::Payload { base, offset, len },
        at => Low::PayloadAt { at, base, offset, len },
    }
}

fn meta(at: u8, key: u32) -> Option<Expr> {
    let field = match key {
        META_L4PROTO => Field::Protocol,
        META_MARK => Field::Mark,
        _ => return None,
    };
    Some(Expr::Load { at, field })
}

fn loaded(low: &Low) -> Option<Expr> {
    let (at, base, offset, len) = match *low {
        Low::Random { at, modulus, offset } => {
            return Some(Expr::Load { at, field: Field::Random { modulus, offset } });
        }
        Low::Meta(key) => return meta(0, key),
        Low::MetaAt { at, key } => return meta(at, key),
        Low::Payload { base, offset, len } => (0, base, offset, len),
        Low::PayloadAt { at, base, offset, len } => (at, base, offset, len),
        _ => return None,
    };
    let field = match (base, offset, len) {
        (NETWORK, 12, 4) => Field::Address { side: Side::Source, ipv6: false },
        (NETWORK, 16, 4) => Field::Address { side: Side::Destination, ipv6: false },
        (NETWORK, 8, 16) => Field::Address { side: Side::Source, ipv6: true },
        (NETWORK, 24, 16) => Field::Address { side: Side::Destination, ipv6: true },
        (TRANSPORT, 0, 2) => Field::Port(Side::Source),
        (TRANSPORT, 2, 2) => Field::Port(Side::Destination),
        _ => return None,
    };
    Some(Expr::Load { at, field })
}

/// The lookup of a key in a set.
pub(super) fn lookup(at: u8, set: &str, negate: bool) -> Low {
    match at {
        0 => Low::Lookup { set: set.into(), negate },
        at => Low::LookupAt { at, set: set.into(), negate },
    }
}

/// `mark = mark & mask ^ xor`, in the middle of its load and its store.
pub(super) fn alter(mask: u32, xor: u32) -> Low {
    let (mask, xor) = (mask.to_ne_bytes().to_vec(), xor.to_ne_bytes().to_vec());
    if xor == [0; 4] { Low::Mask(mask) } else { Low::Bitwise { mask, xor } }
}

/// What the connection has of these bits is not nothing.
pub(super) fn conntrack(status: bool, bits: u32) -> Vec<Low> {
    vec![
        Low::Conntrack(if status { CT_STATUS } else { CT_STATE }),
        Low::Mask(bits.to_ne_bytes().to_vec()),
        Low::Compare { negate: true, data: vec![0; 4] },
    ]
}

/// A refusal in a table of this family.
pub(super) fn reject(family: Family, tcp_reset: bool) -> Low {
    let (kind, code) = match family {
        _ if tcp_reset => (RESET, 0),
        Family::Ip => (UNREACHABLE, 3),
        Family::Ip6 => (UNREACHABLE, 4),
        _ => (UNREACHABLE_BOTH, 1),
    };
    Low::Reject { kind, code }
}

/// One expression over registers, and how many kernel expressions it took.
pub(super) fn raise(family: Family, lows: &[Low]) -> Option<(Expr, usize)> {
    let word = |data: &[u8]| <[u8; 4]>::try_from(data).ok().map(u32::from_ne_bytes);
    let single = match lows {
        [Low::Meta(META_MARK), Low::Mask(mask), Low::SetMeta(META_MARK), ..] => {
            return Some((Expr::SetMark { mask: word(mask)?, xor: 0 }, 3));
        }
        [Low::Meta(META_MARK), Low::Bitwise { mask, xor }, Low::SetMeta(META_MARK), ..] => {
            return Some((Expr::SetMark { mask: word(mask)?, xor: word(xor)? }, 3));
        }
        [Low::Conntrack(key), Low::Mask(bits), Low::Compare { negate: true, data }, ..]
            if data[..] == [0; 4] =>
        {
            let bits = word(bits)?;
            return match *key {
                CT_STATE => Some((Expr::State(bits), 3)),
                CT_STATUS => Some((Expr::Status(bits), 3)),
                _ => None,
            };
        }
        [low, ..] => low,
        [] => return None,
    };
    let expr = match single {
        Low::Lookup { set, negate } => Expr::Lookup { at: 0, set: set.clone(), negate: *negate },
        Low::LookupAt { at, set, negate } => Expr::Lookup { at: *at, set: set.clone(), negate: *negate },
        Low::Map { at, map, to } => Expr::Map { at: *at, map: map.clone(), to: *to },
        Low::VerdictMap { at, map } => Expr::VerdictMap { at: *at, map: map.clone() },
        Low::Change { op, set, key, data, timeout } => Expr::Change {
            change: Change::from_number(*op)?,
            set: set.clone(),
            key: *key,
            data: *data,
            timeout: *timeout,
        },
        Low::Dnat { family, address, port } => {
            let ipv6 = *family == u32::from(Family::Ip6.number());
            (*port == *address + if ipv6 { 4 } else { 1 }).then_some(Expr::DnatTo { at: *address, ipv6 })?
        }
        Low::Reject { .. } if *single == reject(family, true) => Expr::Reject { tcp_reset: true },
        Low::Reject { .. } if *single == reject(family, false) => Expr::Reject { tcp_reset: false },
        other => loaded(other)?,
    };
    Some((expr, 1))
}
