//! The kernel's own expressions (loads into a register, compares, verdicts) and the way
//! between them and [`Expr`]. One register is used throughout.

use std::net::IpAddr;

use ipnet::IpNet;

use super::expr::{Direction, Expr, Side};
use super::ruleset::Family;
use super::wire::{Attributes, Body};

const REGISTER: u32 = 1;
const VERDICT_REGISTER: u32 = 0;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
const META_MARK: u32 = 3;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFTRACE: u32 = 12;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const NAME_SIZE: usize = 16;
const RANDOM_FULLY: u32 = 1 << 4;

/// `NF_*` and `NFT_*` verdict codes.
pub(super) mod verdict {
    pub(crate) const DROP: i32 = 0;
    pub(crate) const ACCEPT: i32 = 1;
    pub(crate) const CONTINUE: i32 = -1;
    pub(crate) const JUMP: i32 = -3;
    pub(crate) const GOTO: i32 = -4;
    pub(crate) const RETURN: i32 = -5;
}

/// One kernel expression (`NFTA_EXPR_NAME` and its data).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Low {
    Payload { base: u32, offset: u32, len: u32 },
    Mask(Vec<u8>),
    Compare { negate: bool, data: Vec<u8> },
    Lookup { set: String, negate: bool },
    Meta(u32),
    SetMeta(u32),
    Value(Vec<u8>),
    Verdict { code: i32, chain: Option<String> },
    Counter,
    Masquerade { flags: u32 },
    Other(String),
}

/// The kernel expressions of one of ours, in a table of `family`.
pub(super) fn lower(family: Family, expr: &Expr) -> Vec<Low> {
    let eq = |data: &[u8]| Low::Compare { negate: false, data: data.to_vec() };
    match expr {
        Expr::Address { side, net, negate } => {
            let (address, mask) = match net {
                IpNet::V4(n) => (n.network().octets().to_vec(), n.netmask().octets().to_vec()),
                IpNet::V6(n) => (n.network().octets().to_vec(), n.netmask().octets().to_vec()),
            };
            let mut out = load_address(family, *side, net.addr().is_ipv6());
            if net.prefix_len() != net.max_prefix_len() {
                out.push(Low::Mask(mask));
            }
            out.push(Low::Compare { negate: *negate, data: address });
            out
        }
        Expr::AddressIn { side, set, ipv6, negate } => {
            let mut out = load_address(family, *side, *ipv6);
            out.push(Low::Lookup { set: set.clone(), negate: *negate });
            out
        }
        Expr::Device { direction, name, negate } => {
            let mut data = name.as_bytes().to_vec();
            data.resize(NAME_SIZE, 0);
            let key = if *direction == Direction::In { META_IIFNAME } else { META_OIFNAME };
            vec![Low::Meta(key), Low::Compare { negate: *negate, data }]
        }
        Expr::Protocol { number, negate } => {
            vec![Low::Meta(META_L4PROTO), Low::Compare { negate: *negate, data: vec![*number] }]
        }
        Expr::Mark { value, mask: u32::MAX } => vec![Low::Meta(META_MARK), eq(&value.to_ne_bytes())],
        Expr::Mark { value, mask } => {
            vec![Low::Meta(META_MARK), Low::Mask(mask.to_ne_bytes().to_vec()), eq(&value.to_ne_bytes())]
        }
        Expr::Port { side, port } => {
            let offset = if *side == Side::Source { 0 } else { 2 };
            vec![Low::Payload { base: TRANSPORT, offset, len: 2 }, eq(&port.to_be_bytes())]
        }
        Expr::EchoId(id) => {
            vec![Low::Payload { base: TRANSPORT, offset: 4, len: 2 }, eq(&id.to_be_bytes())]
        }
        Expr::Counter => vec![Low::Counter],
        Expr::Masquerade { random_fully } => {
            vec![Low::Masquerade { flags: if *random_fully { RANDOM_FULLY } else { 0 } }]
        }
        Expr::Accept => vec![Low::Verdict { code: verdict::ACCEPT, chain: None }],
        Expr::Drop => vec![Low::Verdict { code: verdict::DROP, chain: None }],
        Expr::Return => vec![Low::Verdict { code: verdict::RETURN, chain: None }],
        Expr::Trace => vec![Low::Value(vec![1]), Low::SetMeta(META_NFTRACE)],
        Expr::Other(name) => vec![Low::Other(name.clone())],
    }
}

fn load_address(family: Family, side: Side, ipv6: bool) -> Vec<Low> {
    let (len, first) = if ipv6 { (16, 8) } else { (4, 12) };
    let offset = if side == Side::Source { first } else { first + len };
    let mut out = guard(family, ipv6);
    out.push(Low::Payload { base: NETWORK, offset, len });
    out
}

/// In a table that sees both families an address match first asks which one this is.
fn guard(family: Family, ipv6: bool) -> Vec<Low> {
    if family != Family::Inet {
        return Vec::new();
    }
    let proto = if ipv6 { Family::Ip6 } else { Family::Ip }.number();
    vec![Low::Meta(META_NFPROTO), Low::Compare { negate: false, data: vec![proto] }]
}

/// The reverse of [`lower`] over a whole rule.
pub(super) fn raise(family: Family, mut lows: &[Low]) -> Vec<Expr> {
    let mut out = Vec::new();
    while !lows.is_empty() {
        let guarded = [false, true].into_iter().find_map(|ipv6| {
            let rest = lows.strip_prefix(&guard(family, ipv6)[..])?;
            address(rest).filter(|(e, _)| is_ipv6(e) == ipv6)
        });
        let (expr, used) = match guarded {
            Some((expr, used)) => (expr, used + guard(family, false).len()),
            None => simple(lows),
        };
        out.push(expr);
        lows = lows.get(used..).unwrap_or_default();
    }
    out
}

fn is_ipv6(expr: &Expr) -> bool {
    match expr {
        Expr::Address { net, .. } => net.addr().is_ipv6(),
        Expr::AddressIn { ipv6, .. } => *ipv6,
        _ => false,
    }
}

fn address(lows: &[Low]) -> Option<(Expr, usize)> {
    let Some(Low::Payload { base: NETWORK, offset, len }) = lows.first() else { return None };
    // nft loads only the bytes of a prefix that ends at a byte.
    let (side, ipv6) = match (offset, len) {
        (12, 1..=4) => (Side::Source, false),
        (16, 1..=4) => (Side::Destination, false),
        (8, 1..=16) => (Side::Source, true),
        (24, 1..=16) => (Side::Destination, true),
        _ => return None,
    };
    let (width, prefix) = (if ipv6 { 16 } else { 4 }, *len as usize);
    match lows.get(1..)? {
        [Low::Lookup { set, negate }, ..] if prefix == width => {
            Some((Expr::AddressIn { side, set: set.clone(), ipv6, negate: *negate }, 2))
        }
        [Low::Compare { negate, data }, ..] if data.len() == prefix => {
            let mut whole = data.clone();
            whole.resize(width, 0);
            let net = IpNet::new(ip(&whole)?, prefix as u8 * 8).ok()?;
            Some((Expr::Address { side, net, negate: *negate }, 2))
        }
        [Low::Mask(mask), Low::Compare { negate, data }, ..] if prefix == width => {
            let net = IpNet::with_netmask(ip(data)?, ip(mask)?).ok()?;
            Some((Expr::Address { side, net, negate: *negate }, 3))
        }
        _ => None,
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// One expression that needs no family, and how many kernel expressions it took.
fn simple(lows: &[Low]) -> (Expr, usize) {
    if let Some((meta, used)) = meta(lows) {
        return (meta, used);
    }
    match lows {
        [Low::Payload { base: TRANSPORT, offset, len: 2 }, Low::Compare { negate: false, data }, ..] => {
            let value = <[u8; 2]>::try_from(&data[..]).map_or(0, u16::from_be_bytes);
            let expr = match offset {
                0 => Expr::Port { side: Side::Source, port: value },
                2 => Expr::Port { side: Side::Destination, port: value },
                4 => Expr::EchoId(value),
                _ => Expr::Other("payload".into()),
            };
            (expr, 2)
        }
        [Low::Value(data), Low::SetMeta(META_NFTRACE), ..] if data[..] == [1] => (Expr::Trace, 2),
        [first, ..] => (single(first), 1),
        [] => (Expr::Other(String::new()), 1),
    }
}

fn meta(lows: &[Low]) -> Option<(Expr, usize)> {
    let Some(Low::Meta(key)) = lows.first() else { return None };
    match (*key, lows.get(1..)?) {
        (META_IIFNAME | META_OIFNAME, [Low::Compare { negate, data }, ..]) => {
            let direction = if *key == META_IIFNAME { Direction::In } else { Direction::Out };
            (data.len() == NAME_SIZE).then_some(())?;
            Some((Expr::Device { direction, name: super::wire::text(data), negate: *negate }, 2))
        }
        (META_L4PROTO, [Low::Compare { negate, data }, ..]) => {
            Some((Expr::Protocol { number: *data.first()?, negate: *negate }, 2))
        }
        (META_MARK, [Low::Compare { negate: false, data }, ..]) => {
            Some((Expr::Mark { value: word(data)?, mask: u32::MAX }, 2))
        }
        (META_MARK, [Low::Mask(mask), Low::Compare { negate: false, data }, ..]) => {
            Some((Expr::Mark { value: word(data)?, mask: word(mask)? }, 3))
        }
        _ => None,
    }
}

fn word(data: &[u8]) -> Option<u32> {
    <[u8; 4]>::try_from(data).ok().map(u32::from_ne_bytes)
}

fn single(low: &Low) -> Expr {
    let name = match low {
        Low::Counter => return Expr::Counter,
        Low::Masquerade { flags: 0 } => return Expr::Masquerade { random_fully: false },
        Low::Masquerade { flags: RANDOM_FULLY } => return Expr::Masquerade { random_fully: true },
        Low::Verdict { code: verdict::ACCEPT, .. } => return Expr::Accept,
        Low::Verdict { code: verdict::DROP, .. } => return Expr::Drop,
        Low::Verdict { code: verdict::RETURN, .. } => return Expr::Return,
        Low::Verdict { code: verdict::JUMP, chain: Some(chain) } => {
            return Expr::Other(format!("jump {chain}"));
        }
        Low::Verdict { code: verdict::GOTO, chain: Some(chain) } => {
            return Expr::Other(format!("goto {chain}"));
        }
        Low::Other(name) => name.as_str(),
        Low::Payload { .. } => "payload",
        Low::Mask(_) => "bitwise",
        Low::Compare { .. } => "cmp",
        Low::Lookup { .. } => "lookup",
        Low::Meta(_) | Low::SetMeta(_) => "meta",
        Low::Value(_) | Low::Verdict { .. } => "immediate",
        Low::Masquerade { .. } => "masq",
    };
    Expr::Other(name.into())
}

impl Low {
    /// Writes it as one `NFTA_LIST_ELEM`.
    pub(super) fn write(&self, list: &mut Body) {
        let (name, data) = self.attributes();
        list.nest(1, |e| {
            e.text(1, name).nest(2, |d| d.0.extend(&data.0));
        });
    }

    fn attributes(&self) -> (&str, Body) {
        let mut b = Body::default();
        let value = |data: &[u8]| {
            let data = data.to_vec();
            move |b: &mut Body| {
                b.bytes(1, &data);
            }
        };
        let name = match self {
            Low::Payload { base, offset, len } => {
                b.be32(1, REGISTER).be32(2, *base).be32(3, *offset).be32(4, *len);
                "payload"
            }
            Low::Mask(mask) => {
                b.be32(1, REGISTER).be32(2, REGISTER).be32(3, mask.len() as u32);
                b.nest(4, value(mask)).nest(5, value(&vec![0; mask.len()]));
                "bitwise"
            }
            Low::Compare { negate, data } => {
                b.be32(1, REGISTER).be32(2, u32::from(*negate)).nest(3, value(data));
                "cmp"
            }
            Low::Lookup { set, negate } => {
                b.text(1, set).be32(2, REGISTER).be32(5, u32::from(*negate));
                "lookup"
            }
            Low::Meta(key) => {
                b.be32(1, REGISTER).be32(2, *key);
                "meta"
            }
            Low::SetMeta(key) => {
                b.be32(2, *key).be32(3, REGISTER);
                "meta"
            }
            Low::Value(data) => {
                b.be32(1, REGISTER).nest(2, value(data));
                "immediate"
            }
            Low::Verdict { code, chain } => {
                b.be32(1, VERDICT_REGISTER).nest(2, |d| {
                    d.nest(2, |v| {
                        v.be32(1, code.cast_unsigned());
                        if let Some(chain) = chain {
                            v.text(2, chain);
                        }
                    });
                });
                "immediate"
            }
            Low::Counter => "counter",
            Low::Masquerade { flags } => {
                if *flags != 0 {
                    b.be32(1, *flags);
                }
                "masq"
            }
            Low::Other(name) => name,
        };
        (name, b)
    }

    /// Reads one `NFTA_LIST_ELEM`'s inside.
    pub(super) fn read(element: Attributes<'_>) -> Low {
        let name = element.text(1).unwrap_or_default();
        Low::known(&name, element.nested(2)).unwrap_or(Low::Other(name))
    }

    fn known(name: &str, data: Attributes<'_>) -> Option<Low> {
        let ours = |kind: u16| (data.be32(kind)? == REGISTER).then_some(());
        let value = |kind: u16| data.nested(kind).get(1).map(<[u8]>::to_vec);
        match name {
            "payload" => {
                ours(1)?;
                Some(Low::Payload { base: data.be32(2)?, offset: data.be32(3)?, len: data.be32(4)? })
            }
            "bitwise" => {
                ours(1).and(ours(2))?;
                let plain = value(5)?.iter().all(|b| *b == 0) && data.be32(6).unwrap_or(0) == 0;
                plain.then_some(Low::Mask(value(4)?))
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
                ours(2)?;
                let plain = data.get(3).is_none();
                plain
                    .then_some(Low::Lookup { set: data.text(1)?, negate: data.be32(5).unwrap_or(0) & 1 == 1 })
            }
            "meta" if data.get(1).is_some() => ours(1).and(Some(Low::Meta(data.be32(2)?))),
            "meta" => ours(3).and(Some(Low::SetMeta(data.be32(2)?))),
            "immediate" if data.be32(1)? == VERDICT_REGISTER => {
                let v = data.nested(2).nested(2);
                Some(Low::Verdict { code: v.be32(1)?.cast_signed(), chain: v.text(2) })
            }
            "immediate" => ours(1).and(Some(Low::Value(value(2)?))),
            "counter" => Some(Low::Counter),
            "masq" => {
                let plain = data.get(2).is_none();
                plain.then_some(Low::Masquerade { flags: data.be32(1).unwrap_or(0) })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "lower_tests.rs"]
mod tests;
