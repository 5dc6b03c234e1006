//! Reading the kernel's own expressions.

use super::low::*;
use super::wire::Attributes;

impl Low {
    /// Reads one `NFTA_LIST_ELEM`'s inside.
    pub(crate) fn read(element: Attributes<'_>) -> Low {
        let name = element.text(1).unwrap_or_default();
        Low::known(&name, element.nested(2)).unwrap_or(Low::Other(name))
    }

    fn known(name: &str, data: Attributes<'_>) -> Option<Low> {
        let ours = |kind: u16| (data.be32(kind)? == REGISTER).then_some(());
        let at = |kind: u16| word_register(data.be32(kind)?);
        let value = |kind: u16| data.nested(kind).get(1).map(<[u8]>::to_vec);
        match name {
            // What alters a packet has no register to load.
            "payload" => {
                let (base, offset, len) = (data.be32(2)?, data.be32(3)?, data.be32(4)?);
                Some(match at(1)? {
                    0 => Low::Payload { base, offset, len },
                    at => Low::PayloadAt { at, base, offset, len },
                })
            }
            "bitwise" => {
                ours(1).and(ours(2))?;
                let (mask, xor) = (value(4)?, value(5)?);
                (data.be32(6).unwrap_or(0) == 0).then_some(())?;
                Some(if xor.iter().all(|b| *b == 0) { Low::Mask(mask) } else { Low::Bitwise { mask, xor } })
            }
            "cmp" => {
                ours(1)?;
                let negate = match data.be32(2)? {
                    0 => false,
                    1 => true,
                    _ => return None,
                };
                Some(Low::Compare { negate, data: value(3)? })
            }
            "lookup" => {
                let (set, flags) = (data.text(1)?, data.be32(5).unwrap_or(0));
                match (at(2)?, data.be32(3)) {
                    (0, None) => Some(Low::Lookup { set, negate: flags & 1 == 1 }),
                    (at, None) => Some(Low::LookupAt { at, set, negate: flags & 1 == 1 }),
                    (at, Some(VERDICT_REGISTER)) => Some(Low::VerdictMap { at, map: set }),
                    (at, Some(to)) => Some(Low::Map { at, map: set, to: word_register(to)? }),
                }
            }
            "meta" if data.get(1).is_some() => {
                let key = data.be32(2)?;
                Some(match at(1)? {
                    0 => Low::Meta(key),
                    at => Low::MetaAt { at, key },
                })
            }
            "meta" => ours(3).and(Some(Low::SetMeta(data.be32(2)?))),
            "numgen" => {
                let plain = data.be32(3)? == RANDOM;
                let (modulus, offset) = (data.be32(2)?, data.be32(4).unwrap_or(0));
                plain.then_some(Low::Random { at: at(1)?, modulus, offset })
            }
            "dynset" => {
                let plain = data.get(7).is_none() && data.get(10).is_none();
                plain.then_some(Low::Change {
                    op: data.be32(3)?,
                    set: data.text(1)?,
                    key: at(4)?,
                    data: if data.get(5).is_some() { Some(at(5)?) } else { None },
                    timeout: data.be64(6).unwrap_or(0),
                })
            }
            "ct" => {
                ours(1)?;
                // A direction's own key is another one.
                data.get(3).is_none().then_some(Low::Conntrack(data.be32(2)?))
            }
            "reject" => Some(Low::Reject {
                kind: data.be32(1)?,
                code: data.get(2).and_then(|code| code.first().copied()).unwrap_or(0),
            }),
            "immediate" if data.be32(1)? == VERDICT_REGISTER => {
                let v = data.nested(2).nested(2);
                Some(Low::Verdict { code: v.be32(1)?.cast_signed(), chain: v.text(2) })
            }
            "immediate" => Some(Low::Value { register: data.be32(1)?, data: value(2)? }),
            "fib" => {
                ours(1)?;
                (data.be32(2)? == FIB_TYPE).then_some(Low::AddressType { flags: data.be32(3)? })
            }
            "nat" => {
                let (address, port) = (at(3)?, at(5)?);
                let plain = data.be32(1)? == NAT_DESTINATION
                    && data.be32(4).is_none_or(|r| word_register(r) == Some(address))
                    && data.be32(6).is_none_or(|r| word_register(r) == Some(port))
                    && data.be32(7).unwrap_or(NAT_FLAGS) == NAT_FLAGS;
                plain.then_some(Low::Dnat { family: data.be32(2)?, address, port })
            }
            "rt" => {
                ours(1)?;
                (data.be32(2)? == ROUTE_SEGMENT).then_some(Low::RouteSegment)
            }
            "byteorder" => {
                ours(1).and(ours(2))?;
                let plain = data.be32(3)? == TO_NETWORK && (data.be32(4)?, data.be32(5)?) == (TURNED, TURNED);
                plain.then_some(Low::ToNetwork)
            }
            "exthdr" => {
                ours(7)?;
                let place = (data.be32(3)?, data.be32(4)?) == (SEGMENT_OFFSET, SEGMENT_LENGTH);
                let plain = place && data.get(2)? == [SEGMENT_OPTION] && data.be32(6)? == TCP_OPTION;
                plain.then_some(Low::SetSegment)
            }
            "range" => {
                ours(1)?;
                Some(Low::Range { negate: data.be32(2)? == 1, first: value(3)?, last: value(4)? })
            }
            "match" => {
                Some(Low::Match { name: data.text(1)?, revision: data.be32(2)?, info: data.get(3)?.to_vec() })
            }
            "target" => Some(Low::Target {
                name: data.text(1)?,
                revision: data.be32(2)?,
                info: data.get(3)?.to_vec(),
            }),
            "counter" => Some(Low::Counter),
            "masq" => {
                let plain = data.get(2).is_none();
                plain.then_some(Low::Masquerade { flags: data.be32(1).unwrap_or(0) })
            }
            _ => None,
        }
    }
}

/// Which register of four bytes a number means: the kernel answers with those of sixteen where they
/// begin at the same place.
fn word_register(number: u32) -> Option<u8> {
    match number {
        1..=4 => Some((number - 1) as u8 * 4),
        WORDS..=23 => Some((number - WORDS) as u8),
        _ => None,
    }
}
