//! The way between the kernel's own expressions (loads into a register, compares, verdicts) and
//! [`Expr`]. One register is used throughout, but for translations.

use std::net::IpAddr;

use ipnet::IpNet;
use weft_model::Mac;

use super::expr::{Direction, Expr, Side};
use super::low::{Low, SECOND, verdict};
use super::lower_registers as registers;
use super::ruleset::Family;

const LINK: u32 = 0;
pub(super) const NETWORK: u32 = 1;
pub(super) const TRANSPORT: u32 = 2;
pub(super) const META_MARK: u32 = 3;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFTRACE: u32 = 12;
const META_NFPROTO: u32 = 15;
pub(super) const META_L4PROTO: u32 = 16;
const NAME_SIZE: usize = 16;
const ETHER_SOURCE: u32 = 6;
/// `NFTA_FIB_F_SADDR` and `NFTA_FIB_F_DADDR`.
const FIB_SOURCE: u32 = 1;
const FIB_DESTINATION: u32 = 2;
/// The second register's number among those of four bytes.
const SECOND_WORD: u8 = 4;
/// `RTN_LOCAL`.
const TYPE_LOCAL: u32 = 2;
/// Where TCP has its flags, and those of them that are looked at (RFC 9293, section 3.1).
const TCP_FLAGS: u32 = 13;
const SYN: u8 = 0x02;
const SYN_OR_RST: u8 = 0x06;
const RANDOM_FULLY: u32 = 1 << 4;

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
        Expr::TcpSyn => {
            let flags = Low::Payload { base: TRANSPORT, offset: TCP_FLAGS, len: 1 };
            vec![flags, Low::Mask(vec![SYN_OR_RST]), eq(&[SYN])]
        }
        Expr::ClampSegments => vec![Low::RouteSegment, Low::ToNetwork, Low::SetSegment],
        Expr::Counter => vec![Low::Counter],
        Expr::Masquerade { random_fully } => {
            vec![Low::Masquerade { flags: if *random_fully { RANDOM_FULLY } else { 0 } }]
        }
        Expr::Accept => vec![Low::Verdict { code: verdict::ACCEPT, chain: None }],
        Expr::Drop => vec![Low::Verdict { code: verdict::DROP, chain: None }],
        Expr::Return => vec![Low::Verdict { code: verdict::RETURN, chain: None }],
        Expr::Jump(chain) => vec![Low::Verdict { code: verdict::JUMP, chain: Some(chain.clone()) }],
        Expr::Goto(chain) => vec![Low::Verdict { code: verdict::GOTO, chain: Some(chain.clone()) }],
        Expr::EtherSource(mac) => {
            vec![Low::Payload { base: LINK, offset: ETHER_SOURCE, len: 6 }, eq(&mac.0)]
        }
        Expr::LocalDestination => {
            vec![Low::AddressType { flags: FIB_DESTINATION }, eq(&TYPE_LOCAL.to_ne_bytes())]
        }
        Expr::LocalSource => vec![Low::AddressType { flags: FIB_SOURCE }, eq(&TYPE_LOCAL.to_ne_bytes())],
        Expr::State(bits) => registers::conntrack(false, *bits),
        Expr::Status(bits) => registers::conntrack(true, *bits),
        Expr::Load { at, field } => vec![registers::load(*at, *field)],
        Expr::Lookup { at, set, negate } => vec![registers::lookup(*at, set, *negate)],
        Expr::Map { at, map, to } => vec![Low::Map { at: *at, map: map.clone(), to: *to }],
        Expr::VerdictMap { at, map } => vec![Low::VerdictMap { at: *at, map: map.clone() }],
        Expr::Change { change, set, key, data, timeout } => vec![Low::Change {
            op: change.number(),
            set: set.clone(),
            key: *key,
            data: *data,
            timeout: *timeout,
        }],
        Expr::DnatTo { at, ipv6 } => {
            let (family, words) = if *ipv6 { (Family::Ip6, 4) } else { (Family::Ip, 1) };
            vec![Low::Dnat { family: family.number().into(), address: *at, port: at + words }]
        }
        Expr::SetMark { mask, xor } => {
            vec![Low::Meta(META_MARK), registers::alter(*mask, *xor), Low::SetMeta(META_MARK)]
        }
        Expr::Reject { tcp_reset } => vec![registers::reject(family, *tcp_reset)],
        Expr::Dnat(to) => {
            let (address, family) = match to.ip() {
                IpAddr::V4(ip) => (ip.octets().to_vec(), Family::Ip),
                IpAddr::V6(ip) => (ip.octets().to_vec(), Family::Ip6),
            };
            let port = to.port().to_be_bytes().to_vec();
            vec![
                first(address),
                Low::Value { register: SECOND, data: port },
                Low::Dnat { family: family.number().into(), address: 0, port: SECOND_WORD },
            ]
        }
        Expr::Trace => vec![first(vec![1]), Low::SetMeta(META_NFTRACE)],
        Expr::Other(name) => vec![Low::Other(name.clone())],
    }
}

/// A constant in the first register.
fn first(data: Vec<u8>) -> Low {
    Low::Value { register: 1, data }
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
    // nft asks for the family once in a rule; we ask before each address.
    let mut asked = None;
    while !lows.is_empty() {
        let guarded = [false, true].into_iter().find_map(|ipv6| {
            let rest = lows.strip_prefix(&guard(family, ipv6)[..])?;
            address(rest).filter(|(e, _)| is_ipv6(e) == ipv6)
        });
        let (expr, used) = match guarded {
            Some((expr, used)) => {
                asked = Some(is_ipv6(&expr));
                (expr, used + guard(family, false).len())
            }
            None => match address(lows).filter(|(expr, _)| asked == Some(is_ipv6(expr))) {
                Some(found) => found,
                None => simple(family, lows),
            },
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

/// One expression that is no match of an address, and how many kernel expressions it took.
fn simple(family: Family, lows: &[Low]) -> (Expr, usize) {
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
        [
            Low::Payload { base: TRANSPORT, offset: TCP_FLAGS, len: 1 },
            Low::Mask(mask),
            Low::Compare { negate: false, data },
            ..,
        ] if mask[..] == [SYN_OR_RST] && data[..] == [SYN] => (Expr::TcpSyn, 3),
        [Low::RouteSegment, Low::ToNetwork, Low::SetSegment, ..] => (Expr::ClampSegments, 3),
        [Low::Value { register: 1, data }, Low::SetMeta(META_NFTRACE), ..] if data[..] == [1] => {
            (Expr::Trace, 2)
        }
        [Low::AddressType { flags }, Low::Compare { negate: false, data }, ..]
            if word(data) == Some(TYPE_LOCAL) && matches!(*flags, FIB_SOURCE | FIB_DESTINATION) =>
        {
            (if *flags == FIB_SOURCE { Expr::LocalSource } else { Expr::LocalDestination }, 2)
        }
        [
            Low::Payload { base: LINK, offset: ETHER_SOURCE, len: 6 },
            Low::Compare { negate: false, data },
            ..,
        ] => match data[..].try_into() {
            Ok(mac) => (Expr::EtherSource(Mac(mac)), 2),
            Err(_) => (Expr::Other("payload".into()), 2),
        },
        [
            Low::Value { register: 1, data },
            Low::Value { register: SECOND, data: port },
            Low::Dnat { address: 0, port: SECOND_WORD, .. },
            ..,
        ] => {
            let port = <[u8; 2]>::try_from(&port[..]).ok().map(u16::from_be_bytes);
            match ip(data).zip(port) {
                Some(to) => (Expr::Dnat(to.into()), 3),
                None => (Expr::Other("nat".into()), 3),
            }
        }
        [first, ..] => registers::raise(family, lows).unwrap_or_else(|| (single(first), 1)),
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
            return Expr::Jump(chain.clone());
        }
        Low::Verdict { code: verdict::GOTO, chain: Some(chain) } => {
            return Expr::Goto(chain.clone());
        }
        Low::Other(name) | Low::Match { name, .. } | Low::Target { name, .. } => name.as_str(),
        other => other.name(),
    };
    Expr::Other(name.into())
}

#[cfg(test)]
#[path = "lower_tests.rs"]
mod tests;
