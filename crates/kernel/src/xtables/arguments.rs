//! The words of iptables, as a rule. What is not understood is kept as words, which only
//! iptables itself can then be given.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::compat::RECENT_NAME;
use super::rule::{AddressKind, CtState, Is, Match, PortKind, Rule, Target, condition};
use super::text::{KINDS, PROTOCOLS, STATES, WHOLE};

impl Rule {
    /// A rule from the words of a command line or of `iptables-save`, without table and chain.
    pub fn parse(words: &[String]) -> Rule {
        Rule::default().with(words)
    }

    /// The same with these words in addition.
    pub fn with(mut self, words: &[String]) -> Rule {
        let mut rest = words;
        while !rest.is_empty() {
            rest = match self.take(rest) {
                Some(rest) => rest,
                None => self.take_unknown(rest),
            };
        }
        self
    }

    /// Takes one option; none if it is not understood.
    fn take<'a>(&mut self, words: &'a [String]) -> Option<&'a [String]> {
        let (not, words) = match words {
            [bang, rest @ ..] if bang == "!" => (true, rest),
            all => (false, all),
        };
        let (flag, rest) = words.split_first()?;
        // The older place of the negation is behind the option.
        let (value, rest) = rest.split_first()?;
        let address = || Some(condition(net(value)?).map(|value| Is { not, value }));
        let name = || Some(Is { not, value: value.clone() });
        match flag.as_str() {
            "-s" | "--source" | "--src" => self.source = address()?,
            "-d" | "--destination" | "--dst" => self.destination = address()?,
            "-i" | "--in-interface" => self.in_interface = name(),
            "-o" | "--out-interface" => self.out_interface = name(),
            "-p" | "--protocol" => self.protocol = Some(Is { not, value: protocol(value)? }),
            "-m" | "--match" if !not => return self.take_match(value, rest),
            "--sport" | "--source-port" => self.port(PortKind::Source, not, value)?,
            "--dport" | "--destination-port" => self.port(PortKind::Destination, not, value)?,
            "-g" | "--goto" if !not => self.target = Some(Target::Goto(value.clone())),
            "-j" | "--jump" if !not => {
                let (target, rest) = target(value, rest)?;
                self.target = Some(target);
                return Some(rest);
            }
            _ => return None,
        }
        Some(rest)
    }

    fn port(&mut self, kind: PortKind, not: bool, value: &str) -> Option<()> {
        self.matches.push(Match::Port { kind, range: Is { not, value: range(value)? } });
        Some(())
    }

    /// Takes the options of one `-m`.
    fn take_match<'a>(&mut self, name: &str, rest: &'a [String]) -> Option<&'a [String]> {
        let (not, options) = match rest {
            [bang, rest @ ..] if bang == "!" => (true, rest),
            all => (false, all),
        };
        let is = |value| Is { not, value };
        match (name, options) {
            // Their options stand for themselves.
            ("tcp" | "udp" | "sctp", [flag, ..]) if flag.starts_with("--") => return Some(rest),
            ("tcp" | "udp" | "sctp", _) => {
                self.matches.push(Match::AnyPort);
                return Some(rest);
            }
            // As `-m multiport -p tcp --dports 1` has it: what belongs to the match comes later.
            ("multiport" | "conntrack" | "state" | "mark" | "addrtype", [flag, ..])
                if !flag.starts_with("--") =>
            {
                let (at, own) = own_options(name, rest)?;
                let mut inner = Rule::default();
                inner.take_match(name, own)?;
                self.matches.append(&mut inner.matches);
                *self = std::mem::take(self).with(&rest[..at]);
                return rest.get(at + own.len()..);
            }
            ("comment", [flag, text, rest @ ..]) if flag == "--comment" && !not => {
                self.matches.push(Match::Comment(text.clone()));
                return Some(rest);
            }
            ("mark", [flag, value, rest @ ..]) if flag == "--mark" => {
                let (value, mask) = masked(value)?;
                self.matches.push(Match::Mark { value: is(value), mask });
                return Some(rest);
            }
            ("conntrack", [flag, value, rest @ ..]) if flag == "--ctstate" => {
                self.matches.push(Match::State(Is { not, value: states(value)? }));
                return Some(rest);
            }
            ("multiport", [flag, value, rest @ ..]) => {
                let kind = match flag.as_str() {
                    "--sports" | "--source-ports" => PortKind::Source,
                    "--dports" | "--destination-ports" => PortKind::Destination,
                    "--ports" => PortKind::Either,
                    _ => return None,
                };
                let ports: Vec<(u16, u16)> = value.split(',').map(range).collect::<Option<_>>()?;
                self.matches.push(Match::MultiPort { kind, ports: Is { not, value: ports } });
                return Some(rest);
            }
            ("statistic", [mode, random, flag, value, rest @ ..])
                if !not && mode == "--mode" && random == "random" && flag == "--probability" =>
            {
                self.matches.push(Match::Random(times(value)?));
                return Some(rest);
            }
            ("recent", _) => {
                let (one, rest) = recent(rest)?;
                self.matches.push(one);
                return Some(rest);
            }
            ("addrtype", _) => {}
            _ => return None,
        }
        let (mut source, mut destination, mut rest) = (None, None, rest);
        while let Some((not, flag, value, after)) = option(rest) {
            let place = match flag {
                "--src-type" => &mut source,
                "--dst-type" => &mut destination,
                _ => break,
            };
            *place = Some(Is { not, value: kinds(value)? });
            rest = after;
        }
        self.matches.push(Match::AddressKind { source, destination });
        Some(rest)
    }

    /// Keeps an option and what belongs to it as words, up to the next option that is known.
    fn take_unknown<'a>(&mut self, words: &'a [String]) -> &'a [String] {
        let known = |word: &String| matches!(word.as_str(), "-s" | "-d" | "-i" | "-o" | "-p" | "-j" | "-g");
        let target = words.first().is_some_and(|word| word == "-j");
        let mut end = 1 + words[1..].iter().position(known).unwrap_or(words.len() - 1);
        if end < words.len() && words[end - 1] == "!" && end > 1 {
            end -= 1;
        }
        let (taken, rest) = words.split_at(end);
        if target {
            self.target = Some(Target::Words(taken[1..].to_vec()));
        } else {
            self.matches.push(Match::Words(taken.to_vec()));
        }
        rest
    }
}

/// `[!] --flag value`.
fn option(words: &[String]) -> Option<(bool, &str, &str, &[String])> {
    match words {
        [bang, flag, value, rest @ ..] if bang == "!" => Some((true, flag, value, rest)),
        [flag, value, rest @ ..] => Some((false, flag, value, rest)),
        _ => None,
    }
}

/// The place and words of the option that belongs to a match named earlier.
fn own_options<'a>(name: &str, words: &'a [String]) -> Option<(usize, &'a [String])> {
    let flags: &[&str] = match name {
        "multiport" => &["--sports", "--source-ports", "--dports", "--destination-ports", "--ports"],
        "conntrack" => &["--ctstate"],
        "mark" => &["--mark"],
        "addrtype" => &["--src-type", "--dst-type"],
        _ => return None,
    };
    let flag = words.iter().position(|word| flags.contains(&word.as_str()))?;
    let start = if flag > 0 && words[flag - 1] == "!" { flag - 1 } else { flag };
    Some((start, words.get(start..flag + 2)?))
}

fn target<'a>(name: &str, rest: &'a [String]) -> Option<(Target, &'a [String])> {
    let plain = match (name, rest) {
        ("ACCEPT", rest) => (Target::Accept, rest),
        ("DROP", rest) => (Target::Drop, rest),
        ("RETURN", rest) => (Target::Return, rest),
        ("MASQUERADE", [flag, rest @ ..]) if flag == "--random-fully" => {
            let more = rest.first().is_some_and(|word| word.starts_with("--"));
            return (!more).then_some((Target::MasqueradeRandomly, rest));
        }
        ("REJECT", [flag, with, rest @ ..]) if flag == "--reject-with" => {
            let ipv6 = match with.as_str() {
                "icmp-port-unreachable" => false,
                "icmp6-port-unreachable" => true,
                _ => return None,
            };
            (Target::Refuse { ipv6 }, rest)
        }
        ("MASQUERADE", [flag, ..]) if flag.starts_with("--") => return None,
        ("MASQUERADE", rest) => (Target::Masquerade, rest),
        ("DNAT", [flag, to, after @ ..]) if flag == "--to-destination" => {
            if after.first().is_some_and(|word| word.starts_with("--")) {
                return None;
            }
            let to: SocketAddr = to.parse().ok()?;
            (Target::Dnat(to.ip(), to.port()), after)
        }
        ("MARK", [flag, value, rest @ ..]) if flag == "--set-xmark" => {
            let (value, mask) = masked(value)?;
            (Target::Mark { value, mask }, rest)
        }
        (_, [flag, ..]) if flag.starts_with("--") => return None,
        ("DNAT" | "MARK" | "REJECT", _) => return None,
        (chain, rest) => (Target::Jump(chain.to_owned()), rest),
    };
    Some(plain)
}

/// How many times in 2^31 packets a probability is.
fn times(text: &str) -> Option<u32> {
    let probability: f64 = text.parse().ok()?;
    (0.0..=1.0).contains(&probability).then(|| (probability * WHOLE).round() as u32)
}

/// The options of `-m recent` in the order of `iptables-save`.
fn recent(words: &[String]) -> Option<(Match, &[String])> {
    let (seconds, rest) = match words {
        [set, rest @ ..] if set == "--set" => (None, rest),
        [check, flag, seconds, reap, rest @ ..]
            if check == "--rcheck" && flag == "--seconds" && reap == "--reap" =>
        {
            (Some(seconds.parse().ok().filter(|seconds| *seconds > 0)?), rest)
        }
        _ => return None,
    };
    let [flag, name, mask_flag, mask, side, rest @ ..] = rest else { return None };
    let mask: IpAddr = mask.parse().ok()?;
    let whole = IpNet::from(mask).netmask() == mask;
    let known = flag == "--name" && mask_flag == "--mask" && side == "--rsource" && name.len() < RECENT_NAME;
    (whole && known).then(|| (Match::Recent { name: name.clone(), seconds, mask }, rest))
}

fn net(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn protocol(text: &str) -> Option<u8> {
    let name = text.to_ascii_lowercase();
    let known = PROTOCOLS.iter().find(|(_, known)| *known == name).map(|(number, _)| *number);
    known.or_else(|| text.parse().ok()).or((name == "icmpv6").then_some(58))
}

fn range(text: &str) -> Option<(u16, u16)> {
    match text.split_once(':') {
        Some((first, last)) => Some((first.parse().ok()?, last.parse().ok()?)),
        None => text.parse().ok().map(|port| (port, port)),
    }
}

fn masked(text: &str) -> Option<(u32, u32)> {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    };
    match text.split_once('/') {
        Some((value, mask)) => Some((number(value)?, number(mask)?)),
        None => number(text).map(|value| (value, u32::MAX)),
    }
}

fn states(text: &str) -> Option<CtState> {
    let one = |name: &str| STATES.iter().find(|(_, known)| *known == name).map(|(bit, _)| *bit);
    text.split(',').try_fold(0, |all, name| Some(all | one(name)?)).map(CtState)
}

fn kinds(text: &str) -> Option<AddressKind> {
    let one = |name: &str| KINDS.iter().position(|known| *known == name).map(|bit| 1 << bit);
    text.split(',').try_fold(0, |all, name| Some(all | one(name)?)).map(AddressKind)
}

/// Splits a line of `iptables-save` into words.
pub(super) fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut escaped) = (Vec::new(), None::<String>, false, false);
    for c in line.chars() {
        match c {
            _ if escaped => {
                word.get_or_insert_default().push(c);
                escaped = false;
            }
            '\\' if quoted => escaped = true,
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}
