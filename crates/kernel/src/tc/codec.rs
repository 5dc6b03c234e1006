//! Traffic control to and from netlink.

use ipnet::IpNet;

use super::{Class, Filter, Match, Qdisc, QdiscKind, Tbf, Verdict};
use crate::wire::{Body, attributes, text, u32_at, u64_at};

// linux/pkt_sched.h, linux/pkt_cls.h and linux/tc_act/tc_mirred.h, which libc does not have.
const TBF_PARMS: u16 = 1;
const TBF_RATE64: u16 = 4;
const HTB_PARMS: u16 = 1;
const HTB_INIT: u16 = 2;
const HTB_RATE64: u16 = 6;
const HTB_CEIL64: u16 = 7;
const HTB_VERSION: u32 = 3;
const HTB_RATE_TO_QUANTUM: u32 = 10;
const U32_CLASSID: u16 = 1;
const U32_SEL: u16 = 5;
const U32_ACT: u16 = 7;
const U32_TERMINAL: u8 = 1;
const ACT_KIND: u16 = 1;
const ACT_OPTIONS: u16 = 2;
const MIRRED_PARMS: u16 = 2;
const EGRESS_REDIRECT: i32 = 1;
const STOLEN: i32 = 4;

/// struct tcmsg.
fn header(ifindex: u32, handle: u32, parent: u32, info: u32) -> Body {
    let words = [u32::from(libc::AF_UNSPEC as u8), ifindex, handle, parent, info];
    Body::new(&words.map(u32::to_ne_bytes).concat())
}

/// The question for what is on a link, or with link 0 on all.
pub(crate) fn question(ifindex: u32, parent: u32) -> Body {
    header(ifindex, 0, parent, 0)
}

/// The message that adds or removes `qdisc`.
pub(crate) fn encode_qdisc(qdisc: &Qdisc) -> Body {
    let mut body = header(qdisc.ifindex, qdisc.handle, qdisc.parent, 0);
    body.text(libc::TCA_KIND, qdisc.kind.name());
    body.nest(libc::TCA_OPTIONS, |options| match &qdisc.kind {
        QdiscKind::Tbf(tbf) => {
            let spare = [[0; 4]; 2].concat();
            let tail = [tbf.limit, tbf.buffer, 0].map(u32::to_ne_bytes).concat();
            // struct tc_tbf_qopt: rate, peak rate (none), limit, buffer, mtu (as the link's).
            options.put(TBF_PARMS, &[rate(tbf.rate), spare, vec![0; 4], tail].concat());
            rate64(options, TBF_RATE64, tbf.rate);
        }
        QdiscKind::Htb { default } => {
            // struct tc_htb_glob: version, quantum from rate, default, debug, direct packets.
            let words = [HTB_VERSION, HTB_RATE_TO_QUANTUM, *default, 0, 0];
            options.put(HTB_INIT, &words.map(u32::to_ne_bytes).concat());
        }
        QdiscKind::Ingress | QdiscKind::Clsact | QdiscKind::Other(_) => {}
    });
    body
}

/// struct tc_ratespec with a rate in bytes a second; cut off where an attribute says it whole.
fn rate(bytes: u64) -> Vec<u8> {
    [[0; 4], [0; 4], (bytes as u32).to_ne_bytes()].concat()
}

fn rate64(options: &mut Body, kind: u16, bytes: u64) {
    if u32::try_from(bytes).is_err() {
        options.put(kind, &bytes.to_ne_bytes());
    }
}

/// The message that adds `class`.
pub(crate) fn encode_class(class: &Class) -> Body {
    let mut body = header(class.ifindex, class.handle, class.parent, 0);
    body.text(libc::TCA_KIND, "htb");
    body.nest(libc::TCA_OPTIONS, |options| {
        // struct tc_htb_opt: rate, ceiling, their buffers, quantum, level, priority.
        let tail = [class.buffer, class.buffer, 0, 0, 0].map(u32::to_ne_bytes).concat();
        options.put(HTB_PARMS, &[rate(class.rate), rate(class.rate), tail].concat());
        rate64(options, HTB_RATE64, class.rate);
        rate64(options, HTB_CEIL64, class.rate);
    });
    body
}

/// The message that adds `filter`.
pub(crate) fn encode_filter(filter: &Filter) -> Body {
    // tcm_info has the priority and the protocol, the latter in network order.
    let info = u32::from(filter.priority) << 16 | u32::from(filter.protocol.to_be());
    let mut body = header(filter.ifindex, filter.handle, filter.parent, info);
    body.text(libc::TCA_KIND, "u32");
    body.nest(libc::TCA_OPTIONS, |options| {
        options.put(U32_SEL, &selector(filter.matches));
        match filter.verdict {
            Verdict::Class(class) => {
                options.u32(U32_CLASSID, class);
            }
            Verdict::Redirect { ifindex, class } => {
                options.u32(U32_CLASSID, class);
                options.nest(U32_ACT, |actions| {
                    actions.nest(1, |action| redirect(action, ifindex));
                });
            }
            Verdict::Other => {}
        }
    });
    body
}

fn redirect(action: &mut Body, ifindex: u32) {
    action.text(ACT_KIND, "mirred");
    action.nest(ACT_OPTIONS, |options| {
        // struct tc_mirred: index, capabilities, verdict, reference counts, what, where to.
        let words = [0, 0, STOLEN, 0, 0, EGRESS_REDIRECT].map(i32::to_ne_bytes).concat();
        options.put(MIRRED_PARMS, &[words, ifindex.to_ne_bytes().to_vec()].concat());
    });
}

/// struct tc_u32_sel with its keys.
fn selector(matches: Match) -> Vec<u8> {
    let keys = match matches {
        Match::Source(IpNet::V4(net)) => keys(12, &net.addr().octets(), net.prefix_len()),
        Match::Destination(IpNet::V4(net)) => keys(16, &net.addr().octets(), net.prefix_len()),
        Match::Source(IpNet::V6(net)) => keys(8, &net.addr().octets(), net.prefix_len()),
        Match::Destination(IpNet::V6(net)) => keys(24, &net.addr().octets(), net.prefix_len()),
        Match::All | Match::Other => vec![[0; 16]],
    };
    // A key for each word of an address at most.
    let mut selector = vec![U32_TERMINAL, 0, keys.len() as u8];
    selector.resize(16, 0);
    selector.extend(keys.concat());
    selector
}

/// A key (mask, value, offset, offset mask) for each word of an address at `offset` in the IP
/// header; one that matches all where no bit counts.
fn keys(offset: u32, address: &[u8], prefix: u8) -> Vec<[u8; 16]> {
    let mut keys = Vec::new();
    for (place, word) in address.chunks_exact(4).enumerate() {
        let bits = u32::from(prefix).saturating_sub(32 * place as u32).min(32);
        if bits == 0 && place > 0 {
            break;
        }
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or_default().to_be_bytes();
        let mut key = [0; 16];
        for i in 0..4 {
            key[i] = mask[i];
            key[4 + i] = word[i] & mask[i];
        }
        key[8..12].copy_from_slice(&(offset + 4 * place as u32).to_ne_bytes());
        keys.push(key);
    }
    keys
}

/// What all messages of traffic control begin with: link, number, parent, information, kind
/// and options.
struct Parts<'a> {
    ifindex: u32,
    handle: u32,
    parent: u32,
    info: u32,
    kind: String,
    options: &'a [u8],
}

fn parts(payload: &[u8]) -> Option<Parts<'_>> {
    let (head, body) = payload.split_at_checked(20)?;
    let find = |wanted| attributes(body).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    Some(Parts {
        ifindex: u32_at(head, 4)?,
        handle: u32_at(head, 8)?,
        parent: u32_at(head, 12)?,
        info: u32_at(head, 16)?,
        kind: find(libc::TCA_KIND).map(text)?,
        options: find(libc::TCA_OPTIONS).unwrap_or_default(),
    })
}

fn option(options: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(options).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// A queueing discipline out of a message's payload.
pub(crate) fn decode_qdisc(payload: &[u8]) -> Option<Qdisc> {
    let Parts { ifindex, handle, parent, kind, options, .. } = parts(payload)?;
    let kind = match kind.as_str() {
        "tbf" => QdiscKind::Tbf(decode_tbf(options)?),
        "htb" => QdiscKind::Htb { default: u32_at(option(options, HTB_INIT)?, 8)? },
        "ingress" => QdiscKind::Ingress,
        "clsact" => QdiscKind::Clsact,
        _ => QdiscKind::Other(kind),
    };
    Some(Qdisc { ifindex, parent, handle, kind })
}

fn decode_tbf(options: &[u8]) -> Option<Tbf> {
    let parms = option(options, TBF_PARMS)?;
    let whole = option(options, TBF_RATE64).and_then(|value| u64_at(value, 0));
    Some(Tbf {
        rate: whole.or(u32_at(parms, 8).map(u64::from))?,
        limit: u32_at(parms, 24)?,
        buffer: u32_at(parms, 28)?,
    })
}

/// A class of `htb` out of a message's payload.
pub(crate) fn decode_class(payload: &[u8]) -> Option<Class> {
    let Parts { ifindex, handle, parent, kind, options, .. } = parts(payload)?;
    if kind != "htb" {
        return None;
    }
    let parms = option(options, HTB_PARMS)?;
    let whole = option(options, HTB_RATE64).and_then(|value| u64_at(value, 0));
    let rate = whole.or(u32_at(parms, 8).map(u64::from))?;
    Some(Class { ifindex, parent, handle, rate, buffer: u32_at(parms, 24)? })
}

/// A `u32` filter out of a message's payload; none for the head of a list of them.
pub(crate) fn decode_filter(payload: &[u8]) -> Option<Filter> {
    let Parts { ifindex, handle, parent, info, kind, options } = parts(payload)?;
    let (priority, protocol) = ((info >> 16) as u16, u16::from_be(info as u16));
    let selector = option(options, U32_SEL).filter(|_| kind == "u32")?;
    let class = option(options, U32_CLASSID).and_then(|value| u32_at(value, 0));
    let action = option(options, U32_ACT).and_then(|actions| attributes(actions).next());
    let verdict = match (action, class) {
        (Some((_, action)), class) => redirected(action).map_or(Verdict::Other, |ifindex| {
            Verdict::Redirect { ifindex, class: class.unwrap_or_default() }
        }),
        (None, Some(class)) => Verdict::Class(class),
        (None, None) => Verdict::Other,
    };
    let matches = decode_selector(selector, protocol).unwrap_or(Match::Other);
    Some(Filter { ifindex, parent, handle, priority, protocol, matches, verdict })
}

fn redirected(action: &[u8]) -> Option<u32> {
    if option(action, ACT_KIND).map(text)? != "mirred" {
        return None;
    }
    let parms = option(option(action, ACT_OPTIONS)?, MIRRED_PARMS)?;
    let what = u32_at(parms, 20)?.cast_signed();
    (what == EGRESS_REDIRECT).then(|| u32_at(parms, 24))?
}

fn decode_selector(selector: &[u8], protocol: u16) -> Option<Match> {
    let count = usize::from(*selector.get(2)?);
    let keys = selector.get(16..16 + 16 * count)?;
    if keys.iter().all(|byte| *byte == 0) {
        return Some(Match::All);
    }
    let (mut address, mut prefix, mut offset) = ([0; 16], 0u32, None);
    for (place, key) in keys.chunks_exact(16).enumerate().take(4) {
        let mask = u32::from_be_bytes(key[..4].try_into().ok()?);
        prefix += mask.leading_ones();
        offset = offset.or(u32_at(key, 8));
        address[4 * place..4 * place + 4].copy_from_slice(&key[4..8]);
    }
    let prefix = u8::try_from(prefix).ok()?;
    let four = <[u8; 4]>::try_from(&address[..4]).ok()?;
    match (i32::from(protocol), offset?) {
        (libc::ETH_P_IP, 12) => Some(Match::Source(IpNet::new(four.into(), prefix).ok()?)),
        (libc::ETH_P_IP, 16) => Some(Match::Destination(IpNet::new(four.into(), prefix).ok()?)),
        (libc::ETH_P_IPV6, 8) => Some(Match::Source(IpNet::new(address.into(), prefix).ok()?)),
        (libc::ETH_P_IPV6, 24) => Some(Match::Destination(IpNet::new(address.into(), prefix).ok()?)),
        _ => None,
    }
}
