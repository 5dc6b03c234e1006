//! A rule in the words of `iptables-save`.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::rule::{AddressKind, CtState, Is, Match, PortKind, Rule, Target};

/// Protocols that iptables-save shows by name.
pub(super) const PROTOCOLS: [(u8, &str); 10] = [
    (1, "icmp"),
    (6, "tcp"),
    (17, "udp"),
    (33, "dccp"),
    (47, "gre"),
    (50, "esp"),
    (51, "ah"),
    (58, "ipv6-icmp"),
    (132, "sctp"),
    (136, "udplite"),
];

/// States in the order that iptables-save shows them.
pub(super) const STATES: [(u16, &str); 7] = [
    (1, "INVALID"),
    (1 << 3, "NEW"),
    (1 << 2, "RELATED"),
    (1 << 1, "ESTABLISHED"),
    (1 << 8, "UNTRACKED"),
    (1 << 6, "SNAT"),
    (1 << 7, "DNAT"),
];

/// What `-m statistic` divides its numbers by.
pub(super) const WHOLE: f64 = 2_147_483_648.0;

/// Kinds of addresses by `RTN_*`.
pub(super) const KINDS: [&str; 12] = [
    "UNSPEC",
    "UNICAST",
    "LOCAL",
    "BROADCAST",
    "ANYCAST",
    "MULTICAST",
    "BLACKHOLE",
    "UNREACHABLE",
    "PROHIBIT",
    "THROW",
    "NAT",
    "XRESOLVE",
];

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = Vec::new();
        let address = |net: &IpNet| net.to_string();
        option(&mut words, "-s", self.source.as_ref(), address);
        option(&mut words, "-d", self.destination.as_ref(), address);
        option(&mut words, "-i", self.in_interface.as_ref(), |name| bare(name));
        option(&mut words, "-o", self.out_interface.as_ref(), |name| bare(name));
        option(&mut words, "-p", self.protocol.as_ref(), |number| protocol(*number));
        let name = self.protocol.as_ref().map(|p| protocol(p.value)).unwrap_or_default();
        let mut of_protocol = false;
        for one in &self.matches {
            if matches!(one, Match::Port { .. }) && !std::mem::replace(&mut of_protocol, true) {
                words.push(format!("-m {name}"));
            }
            words.push(shown(one, &name));
        }
        words.extend(self.target.as_ref().map(target));
        f.write_str(&words.join(" "))
    }
}

fn option<T>(words: &mut Vec<String>, flag: &str, condition: Option<&Is<T>>, show: impl Fn(&T) -> String) {
    words.extend(condition.map(|is| format!("{}{flag} {}", not(is), show(&is.value))));
}

fn not<T>(is: &Is<T>) -> &'static str {
    if is.not { "! " } else { "" }
}

pub(super) fn protocol(number: u8) -> String {
    let name = PROTOCOLS.iter().find(|(known, _)| *known == number).map(|(_, name)| (*name).to_owned());
    name.unwrap_or_else(|| number.to_string())
}

fn shown(one: &Match, protocol: &str) -> String {
    match one {
        Match::Comment(text) => format!("-m comment --comment {}", quoted(text)),
        Match::Port { kind, range } => {
            let flag = if *kind == PortKind::Source { "--sport" } else { "--dport" };
            format!("{}{flag} {}", not(range), ports(range.value))
        }
        Match::AnyPort => format!("-m {protocol}"),
        Match::MultiPort { kind, ports: list } => {
            let flag = match kind {
                PortKind::Source => "--sports",
                PortKind::Destination => "--dports",
                PortKind::Either => "--ports",
            };
            let all: Vec<String> = list.value.iter().map(|range| ports(*range)).collect();
            format!("-m multiport {}{flag} {}", not(list), all.join(","))
        }
        Match::AddressKind { source, destination } => {
            let mut words = vec!["-m addrtype".to_owned()];
            option(&mut words, "--src-type", source.as_ref(), kinds);
            option(&mut words, "--dst-type", destination.as_ref(), kinds);
            words.join(" ")
        }
        Match::State(states) => format!("-m conntrack {}--ctstate {}", not(states), state(states.value)),
        Match::Mark { value, mask } => format!("-m mark {}--mark {}", not(value), masked(value.value, *mask)),
        Match::Random(times) => {
            let probability = f64::from(*times) / WHOLE;
            format!("-m statistic --mode random --probability {probability:.11}")
        }
        Match::Recent { name, seconds, mask } => {
            let what = match seconds {
                Some(seconds) => format!("--rcheck --seconds {seconds} --reap"),
                None => "--set".to_owned(),
            };
            format!("-m recent {what} --name {} --mask {mask} --rsource", bare(name))
        }
        Match::Words(words) => line(words),
    }
}

fn ports((first, last): (u16, u16)) -> String {
    if first == last { first.to_string() } else { format!("{first}:{last}") }
}

fn kinds(kinds: &AddressKind) -> String {
    let set = KINDS.iter().enumerate().filter(|(bit, _)| kinds.0 >> bit & 1 == 1);
    set.map(|(_, name)| *name).collect::<Vec<_>>().join(",")
}

fn state(states: CtState) -> String {
    let set = STATES.iter().filter(|(bit, _)| states.0 & bit != 0);
    set.map(|(_, name)| *name).collect::<Vec<_>>().join(",")
}

fn masked(value: u32, mask: u32) -> String {
    if mask == u32::MAX { format!("{value:#x}") } else { format!("{value:#x}/{mask:#x}") }
}

fn target(target: &Target) -> String {
    match target {
        Target::Accept => "-j ACCEPT".into(),
        Target::Drop => "-j DROP".into(),
        Target::Return => "-j RETURN".into(),
        Target::Jump(chain) => format!("-j {}", bare(chain)),
        Target::Goto(chain) => format!("-g {}", bare(chain)),
        Target::Masquerade => "-j MASQUERADE".into(),
        Target::MasqueradeRandomly => "-j MASQUERADE --random-fully".into(),
        Target::Refuse { ipv6: false } => "-j REJECT --reject-with icmp-port-unreachable".into(),
        Target::Refuse { ipv6: true } => "-j REJECT --reject-with icmp6-port-unreachable".into(),
        Target::Dnat(IpAddr::V4(ip), port) => format!("-j DNAT --to-destination {ip}:{port}"),
        Target::Dnat(IpAddr::V6(ip), port) => format!("-j DNAT --to-destination [{ip}]:{port}"),
        Target::Mark { value, mask } => format!("-j MARK --set-xmark {value:#x}/{mask:#x}"),
        Target::Words(words) => format!("-j {}", line(words)),
    }
}

fn line(words: &[String]) -> String {
    words.iter().map(|word| bare(word)).collect::<Vec<_>>().join(" ")
}

/// A name, an option or a list: as it is, unless it would fall apart.
fn bare(word: &str) -> String {
    let safe = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\');
    if !word.is_empty() && word.chars().all(safe) { word.to_owned() } else { quoted(word) }
}

/// Text as iptables-save quotes it. A line break would end the rule: it becomes a space.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' | '\'' => out.extend(['\\', c]),
            '\n' | '\r' | '\0' => out.push(' '),
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}
