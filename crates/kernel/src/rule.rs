//! Routing rules: which table is asked for a packet.

use std::fmt;

use ipnet::IpNet;

use crate::wire::{Body, attributes, ip, of_family, text, u32_at, unspecified};

/// A rule that sends packets to a table. What is absent matches every packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// Whether it is for IPv6.
    pub ipv6: bool,
    /// Place in the order of rules, lowest first; when absent the kernel takes the one before
    /// the first rule that is not for the local table.
    pub priority: Option<u32>,
    /// Source.
    pub from: Option<IpNet>,
    /// Destination.
    pub to: Option<IpNet>,
    /// Name of the interface the packet came in by.
    pub iif: Option<String>,
    /// Name of the interface a local socket is bound to.
    pub oif: Option<String>,
    /// The packet's mark, under `fwmask`.
    pub fwmark: Option<u32>,
    /// Which bits of the mark count; all when absent.
    pub fwmask: Option<u32>,
    /// The table; 0 with `l3mdev`.
    pub table: u32,
    /// The table is that of the VRF the packet belongs to.
    pub l3mdev: bool,
    /// What happens (`FR_ACT_*`): 1 asks the table. 0 in a request counts as 1.
    pub action: u8,
    /// Who made it (`RTPROT_*`); 0 when unsaid.
    pub protocol: u8,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", if self.ipv6 { "IPv6" } else { "IPv4" })?;
        self.from.map_or(Ok(()), |from| write!(f, " from {from}"))?;
        self.to.map_or(Ok(()), |to| write!(f, " to {to}"))?;
        self.iif.as_ref().map_or(Ok(()), |iif| write!(f, " iif {iif}"))?;
        self.fwmark.map_or(Ok(()), |mark| write!(f, " fwmark {mark:#x}"))?;
        if self.l3mdev { write!(f, " l3mdev") } else { write!(f, " table {}", self.table) }
    }
}

// `FRA_*` and `FR_ACT_TO_TBL` of linux/fib_rules.h, which libc does not have.
const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_OIFNAME: u16 = 17;
const FRA_L3MDEV: u16 = 19;
const FRA_PROTOCOL: u16 = 21;
const TO_TABLE: u8 = 1;

/// The message that adds or removes `rule`.
pub(crate) fn encode(rule: &Rule) -> Body {
    let bits = |net: Option<IpNet>| net.map_or(0, |net| net.prefix_len());
    let action = if rule.action == 0 { TO_TABLE } else { rule.action };
    // struct fib_rule_hdr; tables above 255 are in an attribute only.
    let table = u8::try_from(rule.table).unwrap_or(libc::RT_TABLE_UNSPEC);
    let header = [family(rule.ipv6), bits(rule.to), bits(rule.from), 0, table, 0, 0, action, 0, 0, 0, 0];
    let mut body = Body::new(&header);
    for (kind, net) in [(FRA_DST, rule.to), (FRA_SRC, rule.from)] {
        match net.map(|net| net.trunc()) {
            Some(IpNet::V4(net)) => body.put(kind, &net.addr().octets()),
            Some(IpNet::V6(net)) => body.put(kind, &net.addr().octets()),
            None => continue,
        };
    }
    for (kind, name) in [(FRA_IIFNAME, &rule.iif), (FRA_OIFNAME, &rule.oif)] {
        name.as_ref().map(|name| body.text(kind, name));
    }
    let table = (!rule.l3mdev).then_some(rule.table);
    for (kind, value) in [
        (FRA_PRIORITY, rule.priority),
        (FRA_FWMARK, rule.fwmark),
        (FRA_FWMASK, rule.fwmask),
        (FRA_TABLE, table),
    ] {
        value.map(|value| body.u32(kind, value));
    }
    if rule.l3mdev {
        body.put(FRA_L3MDEV, &[1]);
    }
    if rule.protocol != 0 {
        body.put(FRA_PROTOCOL, &[rule.protocol]);
    }
    body
}

/// The question for all rules of a family.
pub(crate) fn question(ipv6: bool) -> Body {
    Body::new(&[family(ipv6), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

fn family(ipv6: bool) -> u8 {
    // Both constants fit a byte.
    if ipv6 { libc::AF_INET6 as u8 } else { libc::AF_INET as u8 }
}

/// An IPv4 or IPv6 rule out of a message's payload.
pub(crate) fn decode(payload: &[u8]) -> Option<Rule> {
    let (header, body) = payload.split_at_checked(12)?;
    let ipv6 = unspecified(header[0])?.is_ipv6();
    let net = |value: &[u8], bits| IpNet::new(of_family(ip(value), header[0])?, bits).ok();
    // The kernel leaves priority 0 out.
    let mut rule =
        Rule { ipv6, priority: Some(0), table: u32::from(header[4]), action: header[7], ..Rule::default() };
    for (kind, value) in attributes(body) {
        match kind {
            FRA_DST => rule.to = net(value, header[1]),
            FRA_SRC => rule.from = net(value, header[2]),
            FRA_IIFNAME => rule.iif = Some(text(value)),
            FRA_OIFNAME => rule.oif = Some(text(value)),
            FRA_PRIORITY => rule.priority = u32_at(value, 0),
            FRA_FWMARK => rule.fwmark = u32_at(value, 0),
            FRA_FWMASK => rule.fwmask = u32_at(value, 0),
            FRA_TABLE => rule.table = u32_at(value, 0)?,
            FRA_L3MDEV => rule.l3mdev = value.first().is_some_and(|byte| *byte != 0),
            FRA_PROTOCOL => rule.protocol = value.first().copied().unwrap_or_default(),
            _ => {}
        }
    }
    Some(rule)
}
