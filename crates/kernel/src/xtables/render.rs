//! A rule as the kernel's expressions, in the order and form of iptables-nft 1.8: interfaces,
//! protocol, addresses, matches, a counter, the target.

use std::net::IpAddr;

use ipnet::IpNet;

use super::compat;
use super::rule::{Is, Match, PortKind, Rule, Target};
use crate::nft::Family;
use crate::nft::low::{Low, verdict};
use crate::nft::wire::Body;

pub(super) const NETWORK: u32 = 1;
pub(super) const TRANSPORT: u32 = 2;
pub(super) const META_MARK: u32 = 3;
pub(super) const META_IN: u32 = 6;
pub(super) const META_OUT: u32 = 7;
pub(super) const META_L4PROTO: u32 = 16;
pub(super) const SCTP: u8 = 132;
/// `NFT_RULE_COMPAT_F_INV`.
const COMPAT_INVERTED: u32 = 1 << 1;

/// The body of the message that makes this rule; none if it has words for iptables only.
pub(super) fn body(rule: &Rule, family: Family, table: &str, chain: &str) -> Option<Body> {
    let lows = expressions(rule, family)?;
    let mut body = Body::default();
    body.text(1, table).text(2, chain);
    body.nest(4, |list| lows.iter().for_each(|low| low.write(list)));
    let (protocol, inverted) = rule.protocol.as_ref().map_or((0, false), |p| (p.value, p.not));
    body.nest(5, |compat| {
        compat.be32(1, protocol.into()).be32(2, if inverted { COMPAT_INVERTED } else { 0 });
    });
    Some(body)
}

/// The expressions of a rule in a table of `family`.
pub(super) fn expressions(rule: &Rule, family: Family) -> Option<Vec<Low>> {
    let mut out = Vec::new();
    for (key, interface) in [(META_IN, &rule.in_interface), (META_OUT, &rule.out_interface)] {
        // A lone `+` is every interface.
        if let Some(is) = interface.as_ref().filter(|is| is.value != "+") {
            let mut data = is.value.clone().into_bytes();
            match data.last() {
                Some(b'+') => drop(data.pop()),
                _ => data.push(0),
            }
            out.extend([Low::Meta(key), Low::Compare { negate: is.not, data }]);
        }
    }
    if let Some(is) = &rule.protocol {
        out.extend([Low::Meta(META_L4PROTO), Low::Compare { negate: is.not, data: vec![is.value] }]);
    }
    let v6 = family == Family::Ip6;
    for (net, offset) in [(&rule.source, 0), (&rule.destination, 1)] {
        out.extend(net.as_ref().map(|is| address(is, offset, v6)).unwrap_or_default());
    }
    matches(rule, &mut out)?;
    out.push(Low::Counter);
    if let Some(target) = &rule.target {
        let end = |code| Some(Low::Verdict { code, chain: None });
        let other = |code, chain: &String| Some(Low::Verdict { code, chain: Some(chain.clone()) });
        out.push(match target {
            Target::Accept => end(verdict::ACCEPT),
            Target::Drop => end(verdict::DROP),
            Target::Return => end(verdict::RETURN),
            Target::Jump(chain) => other(verdict::JUMP, chain),
            Target::Goto(chain) => other(verdict::GOTO, chain),
            xtables => compat::target(xtables, v6),
        }?);
    }
    Some(out)
}

/// Whole bytes are compared as such, another prefix under its mask.
fn address(is: &Is<IpNet>, which: u32, v6: bool) -> Vec<Low> {
    let (first, width) = if v6 { (8, 16) } else { (12, 4) };
    let (mut bytes, mask) = match (is.value.network(), is.value.netmask()) {
        (IpAddr::V4(ip), IpAddr::V4(mask)) => (ip.octets().to_vec(), mask.octets().to_vec()),
        (IpAddr::V6(ip), IpAddr::V6(mask)) => (ip.octets().to_vec(), mask.octets().to_vec()),
        _ => return Vec::new(),
    };
    let offset = first + which * width;
    let prefix = is.value.prefix_len();
    if prefix.is_multiple_of(8) {
        bytes.truncate(usize::from(prefix / 8));
        let len = u32::from(prefix / 8);
        return vec![
            Low::Payload { base: NETWORK, offset, len },
            Low::Compare { negate: is.not, data: bytes },
        ];
    }
    vec![
        Low::Payload { base: NETWORK, offset, len: width },
        Low::Mask(mask),
        Low::Compare { negate: is.not, data: bytes },
    ]
}

fn matches(rule: &Rule, out: &mut Vec<Low>) -> Option<()> {
    let sctp = rule.protocol.as_ref().is_some_and(|p| p.value == SCTP);
    let ports: Vec<(PortKind, &Is<(u16, u16)>)> = rule
        .matches
        .iter()
        .filter_map(|one| match one {
            Match::Port { kind, range } if sctp => Some((*kind, range)),
            _ => None,
        })
        .collect();
    let mut ports_done = false;
    for one in &rule.matches {
        match one {
            Match::Comment(text) => out.push(compat::comment(text)),
            Match::Port { .. } if sctp => {
                if !std::mem::replace(&mut ports_done, true) {
                    out.push(compat::sctp(&ports));
                }
            }
            Match::Port { kind, range } => port(*kind, range, out),
            Match::MultiPort { kind, ports } => out.push(compat::multiport(*kind, ports)),
            Match::AddressKind { source, destination } => {
                out.push(compat::addrtype(source.as_ref(), destination.as_ref()));
            }
            Match::State(states) => out.push(compat::state(states)),
            Match::Mark { value, mask } => {
                out.push(Low::Meta(META_MARK));
                if *mask != u32::MAX {
                    out.push(Low::Mask(mask.to_ne_bytes().to_vec()));
                }
                out.push(Low::Compare { negate: value.not, data: value.value.to_ne_bytes().to_vec() });
            }
            Match::AnyPort => out.push(compat::any_port(rule.protocol.as_ref()?.value)?),
            Match::Random(times) => out.push(compat::random(*times)),
            Match::Recent { name, seconds, mask } => out.push(compat::recent(name, *seconds, *mask)),
            Match::Words(_) => return None,
        }
    }
    Some(())
}

fn port(kind: PortKind, range: &Is<(u16, u16)>, out: &mut Vec<Low>) {
    let offset = if kind == PortKind::Source { 0 } else { 2 };
    let (first, last) = range.value;
    let bytes = |port: u16| port.to_be_bytes().to_vec();
    out.push(Low::Payload { base: TRANSPORT, offset, len: 2 });
    out.push(if first == last {
        Low::Compare { negate: range.not, data: bytes(first) }
    } else {
        Low::Range { negate: range.not, first: bytes(first), last: bytes(last) }
    });
}
