//! The kernel's expressions as a rule again; the reverse of `render`, and of what other versions
//! of iptables write.

use std::net::IpAddr;

use ipnet::IpNet;

use super::compat;
use super::render::{META_IN, META_L4PROTO, META_MARK, META_OUT, NETWORK, TRANSPORT};
use super::rule::{Is, Match, PortKind, Rule, Target, condition};
use crate::nft::Family;
use crate::nft::low::{Low, verdict};

/// The rule; none if something in it is not understood.
pub(super) fn rule(family: Family, mut lows: &[Low]) -> Option<Rule> {
    let mut rule = Rule::default();
    while !lows.is_empty() {
        lows = take(&mut rule, family, lows)?;
    }
    Some(rule)
}

/// The chain that the expressions jump to, understood or not.
pub(super) fn jump(lows: &[Low]) -> Option<&str> {
    match lows.last()? {
        Low::Verdict { code: verdict::JUMP | verdict::GOTO, chain: Some(chain) } => Some(chain),
        _ => None,
    }
}

fn take<'a>(rule: &mut Rule, family: Family, lows: &'a [Low]) -> Option<&'a [Low]> {
    let v6 = family == Family::Ip6;
    match lows {
        [Low::Meta(META_IN), Low::Compare { negate, data }, rest @ ..] => {
            rule.in_interface = Some(Is { not: *negate, value: interface(data) });
            Some(rest)
        }
        [Low::Meta(META_OUT), Low::Compare { negate, data }, rest @ ..] => {
            rule.out_interface = Some(Is { not: *negate, value: interface(data) });
            Some(rest)
        }
        [Low::Meta(META_L4PROTO), Low::Compare { negate, data }, rest @ ..] => {
            rule.protocol = Some(Is { not: *negate, value: *data.first()? });
            Some(rest)
        }
        [Low::Payload { base: NETWORK, offset, len }, rest @ ..] => address(rule, v6, *offset, *len, rest),
        [Low::Payload { base: TRANSPORT, offset, len: 2 }, value, rest @ ..] => {
            let kind = match offset {
                0 => PortKind::Source,
                2 => PortKind::Destination,
                _ => return None,
            };
            let (not, value) = match value {
                Low::Compare { negate, data } => (*negate, (number(data)?, number(data)?)),
                Low::Range { negate, first, last } => (*negate, (number(first)?, number(last)?)),
                _ => return None,
            };
            rule.matches.push(Match::Port { kind, range: Is { not, value } });
            Some(rest)
        }
        [Low::Meta(META_MARK), Low::Mask(mask), Low::Compare { negate, data }, rest @ ..] => {
            let value = Is { not: *negate, value: word(data)? };
            rule.matches.push(Match::Mark { value, mask: word(mask)? });
            Some(rest)
        }
        [Low::Meta(META_MARK), Low::Compare { negate, data }, rest @ ..] => {
            let value = Is { not: *negate, value: word(data)? };
            rule.matches.push(Match::Mark { value, mask: u32::MAX });
            Some(rest)
        }
        [Low::Match { name, revision, info }, rest @ ..] => {
            rule.matches.extend(compat::read_match(name, *revision, info, v6)?);
            Some(rest)
        }
        [Low::Counter, rest @ ..] => Some(rest),
        [last] => {
            rule.target = Some(target(last, v6)?);
            Some(&[])
        }
        _ => None,
    }
}

fn address<'a>(rule: &mut Rule, v6: bool, offset: u32, len: u32, rest: &'a [Low]) -> Option<&'a [Low]> {
    let (first, width) = if v6 { (8, 16) } else { (12, 4) };
    let (not, net, rest) = match rest {
        [Low::Mask(mask), Low::Compare { negate, data }, rest @ ..] if len == width => {
            (*negate, IpNet::with_netmask(ip(data, v6)?, ip(mask, v6)?).ok()?, rest)
        }
        [Low::Compare { negate, data }, rest @ ..] if data.len() as u32 == len && len <= width => {
            let mut bytes = data.clone();
            bytes.resize(width as usize, 0);
            (*negate, IpNet::new(ip(&bytes, v6)?, len as u8 * 8).ok()?, rest)
        }
        _ => return None,
    };
    let is = condition(net).map(|value| Is { not, value });
    match offset.checked_sub(first)? {
        0 => rule.source = is,
        which if which == width => rule.destination = is,
        _ => return None,
    }
    Some(rest)
}

fn target(low: &Low, v6: bool) -> Option<Target> {
    Some(match low {
        Low::Verdict { code: verdict::ACCEPT, .. } => Target::Accept,
        Low::Verdict { code: verdict::DROP, .. } => Target::Drop,
        Low::Verdict { code: verdict::RETURN, .. } => Target::Return,
        Low::Verdict { code: verdict::JUMP, chain: Some(chain) } => Target::Jump(chain.clone()),
        Low::Verdict { code: verdict::GOTO, chain: Some(chain) } => Target::Goto(chain.clone()),
        // Newer versions write this natively.
        Low::Masquerade { flags: 0 } => Target::Masquerade,
        Low::Target { name, revision, info } => compat::read_target(name, *revision, info, v6)?,
        _ => return None,
    })
}

fn interface(data: &[u8]) -> String {
    match data.split_last() {
        Some((0, _)) => crate::nft::wire::text(data),
        _ => format!("{}+", String::from_utf8_lossy(data)),
    }
}

fn ip(bytes: &[u8], v6: bool) -> Option<IpAddr> {
    match v6 {
        true => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        false => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

fn number(data: &[u8]) -> Option<u16> {
    <[u8; 2]>::try_from(data).ok().map(u16::from_be_bytes)
}

fn word(data: &[u8]) -> Option<u32> {
    <[u8; 4]>::try_from(data).ok().map(u32::from_ne_bytes)
}
