//! The structures of xtables' matches and targets, as the kernel has them (`linux/netfilter/xt_*.h`,
//! `nf_nat.h`), in the machine's byte order but for addresses and the ports of translations.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::rule::{AddressKind, CtState, Is, Match, PortKind, Target};
use crate::nft::low::Low;

const COMMENT: usize = 256;
const MULTIPORT: usize = 48;
const MULTIPORT_MAX: usize = 15;
const ADDRTYPE: usize = 8;
const CONNTRACK: usize = 168;
const SCTP: usize = 296;
/// `XT_CONNTRACK_STATE` and, for what `-m state` writes, `XT_CONNTRACK_STATE_ALIAS`.
const CONNTRACK_STATE: u16 = 1;
const STATE_ALIAS: u16 = 1 << 13;
/// Places of the flags, their inversion and the states in `xt_conntrack_mtinfo3`.
const CONNTRACK_FLAGS: usize = 146;
/// `XT_SCTP_SRC_PORTS` and `XT_SCTP_DEST_PORTS`; where the flags are.
const SCTP_SOURCE: u32 = 1;
const SCTP_DESTINATION: u32 = 2;
const SCTP_FLAGS: usize = 284;
const SCTP_FLAG_INFO: usize = 268;
/// Of `xt_tcp` and `xt_udp` alike.
const PORTS: usize = 16;
const STATISTIC: usize = 24;
const RECENT: usize = 232;
/// `XT_RECENT_CHECK | XT_RECENT_REAP` and `XT_RECENT_SET`.
const RECENT_CHECK: u8 = 1 | 1 << 5;
const RECENT_SET: u8 = 1 << 1;
/// Places of what is done, of the name and of the mask in `xt_recent_mtinfo_v1`; the name's length, its end included.
const RECENT_WHAT: usize = 8;
const RECENT_NAME_AT: usize = 10;
pub(super) const RECENT_NAME: usize = 200;
const RECENT_MASK: usize = 212;
/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`.
const RANDOM_FULLY: u32 = 1 << 4;
/// `IPT_ICMP_PORT_UNREACHABLE` and `IP6T_ICMP6_PORT_UNREACH`.
const UNREACHABLE: [u32; 2] = [3, 4];
/// `NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED`.
const RANGE_ADDRESS_PORT: u32 = 3;

fn match_of(name: &str, revision: u32, info: Vec<u8>) -> Low {
    Low::Match { name: name.into(), revision, info }
}

pub(super) fn comment(text: &str) -> Low {
    let mut info = text.as_bytes()[..text.len().min(COMMENT - 1)].to_vec();
    info.resize(COMMENT, 0);
    match_of("comment", 0, info)
}

pub(super) fn multiport(kind: PortKind, ports: &Is<Vec<(u16, u16)>>) -> Low {
    let mut info = vec![0; MULTIPORT];
    let mut at = 0;
    for (first, last) in &ports.value {
        let range = first != last;
        for (port, continues) in [(first, range), (last, false)].iter().take(1 + usize::from(range)) {
            if at < MULTIPORT_MAX {
                info[2 + 2 * at..4 + 2 * at].copy_from_slice(&port.to_ne_bytes());
                info[32 + at] = u8::from(*continues);
                at += 1;
            }
        }
    }
    info[0] = kind as u8;
    info[1] = at as u8;
    info[47] = u8::from(ports.not);
    match_of("multiport", 1, info)
}

pub(super) fn addrtype(source: Option<&Is<AddressKind>>, destination: Option<&Is<AddressKind>>) -> Low {
    let mut info = vec![0; ADDRTYPE];
    let bits = |is: Option<&Is<AddressKind>>| is.map_or(0, |is| is.value.0).to_ne_bytes();
    let inverted = |is: Option<&Is<AddressKind>>| u32::from(is.is_some_and(|is| is.not));
    info[0..2].copy_from_slice(&bits(source));
    info[2..4].copy_from_slice(&bits(destination));
    info[4..8].copy_from_slice(&(inverted(source) | inverted(destination) << 1).to_ne_bytes());
    match_of("addrtype", 1, info)
}

pub(super) fn state(states: &Is<CtState>) -> Low {
    let mut info = vec![0; CONNTRACK];
    let inverted = if states.not { CONNTRACK_STATE } else { 0 };
    for (n, value) in [CONNTRACK_STATE, inverted, states.value.0].into_iter().enumerate() {
        let at = CONNTRACK_FLAGS + 2 * n;
        info[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    }
    match_of("conntrack", 3, info)
}

/// All port conditions of a rule for SCTP are one match.
pub(super) fn sctp(ports: &[(PortKind, &Is<(u16, u16)>)]) -> Low {
    let mut info = vec![0; SCTP];
    let (mut flags, mut inverted) = (0, 0);
    for (kind, range) in ports {
        let (at, bit) = match kind {
            PortKind::Source => (4, SCTP_SOURCE),
            _ => (0, SCTP_DESTINATION),
        };
        info[at..at + 2].copy_from_slice(&range.value.0.to_ne_bytes());
        info[at + 2..at + 4].copy_from_slice(&range.value.1.to_ne_bytes());
        flags |= bit;
        inverted |= if range.not { bit } else { 0 };
    }
    for n in 0..4 {
        info[SCTP_FLAG_INFO + 3 * n] = 0xff;
    }
    info[SCTP_FLAGS..SCTP_FLAGS + 4].copy_from_slice(&u32::to_ne_bytes(flags));
    info[SCTP_FLAGS + 4..SCTP_FLAGS + 8].copy_from_slice(&u32::to_ne_bytes(inverted));
    match_of("sctp", 0, info)
}

pub(super) fn random(times: u32) -> Low {
    let mut info = vec![0; STATISTIC];
    info[4..8].copy_from_slice(&times.to_ne_bytes());
    match_of("statistic", 0, info)
}

pub(super) fn recent(name: &str, seconds: Option<u32>, mask: IpAddr) -> Low {
    let mut info = vec![0; RECENT];
    info[0..4].copy_from_slice(&seconds.unwrap_or(0).to_ne_bytes());
    info[RECENT_WHAT] = if seconds.is_some() { RECENT_CHECK } else { RECENT_SET };
    let name = &name.as_bytes()[..name.len().min(RECENT_NAME - 1)];
    info[RECENT_NAME_AT..RECENT_NAME_AT + name.len()].copy_from_slice(name);
    let mask = match mask {
        IpAddr::V4(mask) => mask.octets().to_vec(),
        IpAddr::V6(mask) => mask.octets().to_vec(),
    };
    info[RECENT_MASK..RECENT_MASK + mask.len()].copy_from_slice(&mask);
    match_of("recent", 1, info)
}

/// The match of a protocol with ports, whichever they are.
pub(super) fn any_port(protocol: u8) -> Option<Low> {
    let name = match protocol {
        6 => "tcp",
        17 => "udp",
        132 => return Some(sctp(&[])),
        _ => return None,
    };
    let mut info = [0, u16::MAX, 0, u16::MAX].map(u16::to_ne_bytes).concat();
    info.resize(PORTS, 0);
    Some(match_of(name, 0, info))
}

/// `MASQUERADE`, `REJECT`, `DNAT` and `MARK`; `ipv6` because masquerading has two structures.
pub(super) fn target(target: &Target, ipv6: bool) -> Option<Low> {
    let (name, revision, info) = match target {
        Target::Masquerade => ("MASQUERADE", 0, masquerade(0, ipv6)),
        Target::MasqueradeRandomly => ("MASQUERADE", 0, masquerade(RANDOM_FULLY, ipv6)),
        Target::Refuse { ipv6: six } if *six == ipv6 => {
            let mut info = UNREACHABLE[usize::from(ipv6)].to_ne_bytes().to_vec();
            info.resize(8, 0);
            ("REJECT", 0, info)
        }
        Target::Dnat(ip, port) => {
            let mut info = vec![0; 48];
            info[0..4].copy_from_slice(&RANGE_ADDRESS_PORT.to_ne_bytes());
            let address = match ip {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            for at in [4, 20] {
                info[at..at + address.len()].copy_from_slice(&address);
            }
            for at in [36, 38] {
                info[at..at + 2].copy_from_slice(&port.to_be_bytes());
            }
            ("DNAT", 2, info)
        }
        Target::Mark { value, mask } => ("MARK", 2, [value.to_ne_bytes(), mask.to_ne_bytes()].concat()),
        _ => return None,
    };
    Some(Low::Target { name: name.into(), revision, info })
}

/// The only range of IPv4's structure has its flags behind the number of ranges.
fn masquerade(flags: u32, ipv6: bool) -> Vec<u8> {
    let mut info = if ipv6 { Vec::new() } else { 1u32.to_ne_bytes().to_vec() };
    info.extend(flags.to_ne_bytes());
    info.resize(if ipv6 { 40 } else { 24 }, 0);
    info
}

/// What a match of iptables says; more than one where it has two ports.
pub(super) fn read_match(name: &str, revision: u32, info: &[u8], ipv6: bool) -> Option<Vec<Match>> {
    let one = match (name, revision) {
        ("comment", 0) => Match::Comment(crate::nft::wire::text(info)),
        ("multiport", 1) => read_multiport(info)?,
        ("addrtype", 1) => {
            let flags = u32_at(info, 4)?;
            let kind = |at: usize, bit: u32| {
                let bits = u16_at(info, at)?;
                Some((bits != 0).then_some(Is { not: flags & bit != 0, value: AddressKind(bits) }))
            };
            (flags & !3 == 0).then_some(())?;
            Match::AddressKind { source: kind(0, 1)?, destination: kind(2, 2)? }
        }
        ("conntrack", 3) => {
            let [flags, inverted, states] = [0, 2, 4].map(|n| u16_at(info, CONNTRACK_FLAGS + n));
            (flags? & !STATE_ALIAS == CONNTRACK_STATE).then_some(())?;
            Match::State(Is { not: inverted? & CONNTRACK_STATE != 0, value: CtState(states?) })
        }
        ("statistic", 0) => {
            (u32_at(info, 0)? == 0).then_some(())?;
            Match::Random(u32_at(info, 4)?)
        }
        ("recent", 1) => read_recent(info, ipv6)?,
        // Other versions of iptables write these three so.
        ("mark", 1) => {
            let not = *info.get(8)? != 0;
            Match::Mark { value: Is { not, value: u32_at(info, 0)? }, mask: u32_at(info, 4)? }
        }
        ("tcp", 0) => {
            (*info.get(8)? == 0 && *info.get(9)? == 0).then_some(())?;
            return Some(read_ports(info, [0, 4], (*info.get(11)?).into(), None));
        }
        ("udp", 0) => return Some(read_ports(info, [0, 4], (*info.get(8)?).into(), None)),
        ("sctp", 0) => {
            let flags = u32_at(info, SCTP_FLAGS)?;
            (flags & !3 == 0).then_some(())?;
            return Some(read_ports(info, [4, 0], u32_at(info, SCTP_FLAGS + 4)?, Some(flags)));
        }
        _ => return None,
    };
    Some(vec![one])
}

/// Source and destination ports at `places`. Without flags that say which count, the whole range
/// is no condition.
fn read_ports(info: &[u8], places: [usize; 2], inverted: u32, flags: Option<u32>) -> Vec<Match> {
    let kinds = [(PortKind::Source, places[0], 1), (PortKind::Destination, places[1], 2)];
    let found = kinds.into_iter().filter_map(|(kind, at, bit)| {
        let value = (u16_at(info, at)?, u16_at(info, at + 2)?);
        let not = inverted & bit != 0;
        let counts = flags.map_or(value != (0, u16::MAX) || not, |flags| flags & bit != 0);
        counts.then_some(Match::Port { kind, range: Is { not, value } })
    });
    let found: Vec<Match> = found.collect();
    if found.is_empty() { vec![Match::AnyPort] } else { found }
}

fn read_recent(info: &[u8], ipv6: bool) -> Option<Match> {
    let seconds = u32_at(info, 0)?;
    let what = (info.get(RECENT_WHAT..RECENT_NAME_AT)?, seconds, u32_at(info, 4)?);
    let seconds = match what {
        ([RECENT_CHECK, 0], 1.., 0) => Some(seconds),
        ([RECENT_SET, 0], 0, 0) => None,
        _ => return None,
    };
    let name = info.get(RECENT_NAME_AT..RECENT_NAME_AT + RECENT_NAME)?;
    let (name, by_destination) =
        (crate::nft::wire::text(name), *info.get(RECENT_NAME_AT + RECENT_NAME)? != 0);
    let mask: IpAddr = if ipv6 { Ipv6Addr::from([0xff; 16]).into() } else { Ipv4Addr::BROADCAST.into() };
    let length = if ipv6 { 16 } else { 4 };
    let whole = info.get(RECENT_MASK..RECENT_MASK + length)?.iter().all(|byte| *byte == 0xff);
    (whole && !by_destination).then_some(Match::Recent { name, seconds, mask })
}

fn read_multiport(info: &[u8]) -> Option<Match> {
    let kind = match info.first()? {
        0 => PortKind::Source,
        1 => PortKind::Destination,
        2 => PortKind::Either,
        _ => return None,
    };
    let count = usize::from(*info.get(1)?).min(MULTIPORT_MAX);
    let mut ports: Vec<(u16, u16)> = Vec::new();
    let mut open = false;
    for n in 0..count {
        let port = u16_at(info, 2 + 2 * n)?;
        match ports.last_mut().filter(|_| open) {
            Some(last) => last.1 = port,
            None => ports.push((port, port)),
        }
        open = *info.get(32 + n)? != 0;
    }
    Some(Match::MultiPort { kind, ports: Is { not: *info.get(47)? != 0, value: ports } })
}

/// What a target of iptables says.
pub(super) fn read_target(name: &str, revision: u32, info: &[u8], ipv6: bool) -> Option<Target> {
    match (name, revision) {
        ("MASQUERADE", 0) => {
            let range = if ipv6 { info } else { info.get(4..)? };
            let flags = range.iter().skip(4).all(|b| *b == 0).then(|| u32_at(range, 0))??;
            match flags {
                0 => Some(Target::Masquerade),
                RANDOM_FULLY => Some(Target::MasqueradeRandomly),
                _ => None,
            }
        }
        ("REJECT", 0) => {
            (u32_at(info, 0)? == UNREACHABLE[usize::from(ipv6)]).then_some(Target::Refuse { ipv6 })
        }
        ("DNAT", 2) => {
            (u32_at(info, 0)? == RANGE_ADDRESS_PORT).then_some(())?;
            let bytes = |at: usize| info.get(at..at + if ipv6 { 16 } else { 4 });
            (bytes(4)? == bytes(20)? && info.get(36..38)? == info.get(38..40)?).then_some(())?;
            let ip = match bytes(4)? {
                v4 if v4.len() == 4 => IpAddr::from(<[u8; 4]>::try_from(v4).ok()?),
                v6 => IpAddr::from(<[u8; 16]>::try_from(v6).ok()?),
            };
            Some(Target::Dnat(ip, u16::from_be_bytes(info.get(36..38)?.try_into().ok()?)))
        }
        ("MARK", 2) => Some(Target::Mark { value: u32_at(info, 0)?, mask: u32_at(info, 4)? }),
        _ => None,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
