//! Parts of rules in the words and the order of `iptables-save`, so that what is there compares equal to what
//! should be, with both variants of iptables.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// The most bytes that the kernel keeps of a comment (`XT_MAX_COMMENT_LEN`, its end included).
const LONGEST_COMMENT: usize = 255;
/// What `-m statistic` divides its numbers by.
const WHOLE: f64 = 2_147_483_648.0;

/// A comment. Of what users write, only what can mean nothing else stays as it is.
pub(super) fn comment(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || " -_./:,;>[]()".contains(c);
    let mut text: String = text.chars().map(|c| if safe(c) { c } else { '_' }).collect();
    text.truncate(LONGEST_COMMENT);
    let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if plain { format!("-m comment --comment {text}") } else { format!("-m comment --comment \"{text}\"") }
}

/// What is connected to: an address, or whichever leads to the rule; a protocol and a port.
#[derive(Clone, Copy, Debug)]
pub(super) struct To {
    pub(super) address: Option<IpAddr>,
    pub(super) protocol: &'static str,
    pub(super) port: u16,
}

impl To {
    /// The conditions for it: those on the source in front, the comment and `more` where they belong.
    pub(super) fn when(&self, source: &str, text: &str, more: &str) -> String {
        let mut out = source.to_owned();
        if let Some(address) = self.address {
            let _ = write!(out, "-d {} ", IpNet::from(address));
        }
        let To { protocol, port, .. } = self;
        let _ = write!(out, "-p {protocol} {} {more}-m {protocol} --dport {port}", comment(text));
        out
    }
}

/// `-s` for a network, with a space behind; nothing for all addresses.
pub(super) fn from(net: &IpNet) -> String {
    if net.prefix_len() == 0 { String::new() } else { format!("-s {} ", net.trunc()) }
}

/// Chosen once in `of` times.
pub(super) fn once_in(of: usize) -> String {
    // As kube-proxy gives it, rounded as the kernel keeps it.
    let given = (1e10 / of as f64).round() / 1e10;
    format!("-m statistic --mode random --probability {:.11}", (given * WHOLE).round() / WHOLE)
}

/// A client that was here within so many seconds.
pub(super) fn was_here(list: &str, seconds: u32, ipv6: bool) -> String {
    format!(
        "-m recent --rcheck --seconds {seconds} --reap --name {list} --mask {} --rsource",
        whole_mask(ipv6)
    )
}

/// Remembers the client.
pub(super) fn remember(list: &str, ipv6: bool) -> String {
    format!("-m recent --set --name {list} --mask {} --rsource", whole_mask(ipv6))
}

/// The translation to an endpoint.
pub(super) fn translate(to: SocketAddr) -> String {
    format!("-j DNAT --to-destination {to}")
}

/// Refuses with an ICMP message.
pub(super) fn refuse(ipv6: bool) -> &'static str {
    if ipv6 {
        "-j REJECT --reject-with icmp6-port-unreachable"
    } else {
        "-j REJECT --reject-with icmp-port-unreachable"
    }
}

fn whole_mask(ipv6: bool) -> &'static str {
    if ipv6 { "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff" } else { "255.255.255.255" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_means_nothing_else_whatever_the_name() {
        assert_eq!(comment("a/b:c cluster IP"), "-m comment --comment \"a/b:c cluster IP\"");
        assert_eq!(comment("a-b_c"), "-m comment --comment a-b_c");
        assert_eq!(
            comment("$(rm -rf /)`x`\"'\\\n-j ACCEPT"),
            "-m comment --comment \"_(rm -rf /)_x_____-j ACCEPT\""
        );
        assert_eq!(comment(""), "-m comment --comment \"\"");
        assert_eq!(comment(&"é".repeat(300)).len(), "-m comment --comment ".len() + LONGEST_COMMENT);
    }

    #[test]
    fn probabilities_are_as_iptables_save_prints_them() {
        let printed = [1, 2, 3, 4, 7].map(once_in);
        let expected = ["1.00000000000", "0.50000000000", "0.33333333349", "0.25000000000", "0.14285714272"];
        for (printed, expected) in printed.iter().zip(expected) {
            assert!(printed.ends_with(expected), "{printed}");
        }
    }
}
