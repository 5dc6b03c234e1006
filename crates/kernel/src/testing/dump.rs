use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The network state of one namespace as text: links, addresses, routes of all tables, rules,
/// entries that do not expire, nftables and network sysctls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineDump {
    parts: BTreeMap<&'static str, BTreeSet<String>>,
}

/// Each part of the dump and the command that tells it.
const COMMANDS: [(&str, &[&str]); 8] = [
    ("links", &["ip", "-o", "-d", "link"]),
    ("addresses", &["ip", "-o", "addr"]),
    ("IPv4 routes", &["ip", "-4", "route", "show", "table", "all"]),
    ("IPv6 routes", &["ip", "-6", "route", "show", "table", "all"]),
    ("IPv4 rules", &["ip", "-4", "rule"]),
    ("IPv6 rules", &["ip", "-6", "rule"]),
    ("neighbours", &["ip", "neigh", "show", "nud", "permanent"]),
    ("nftables", &["nft", "list", "ruleset"]),
];

impl MachineDump {
    /// Reads the calling thread's namespace with `ip` and `nft` and from `/proc/sys/net`.
    pub fn take() -> MachineDump {
        let mut parts: BTreeMap<&'static str, BTreeSet<String>> =
            COMMANDS.iter().map(|(part, command)| (*part, run(part, command))).collect();
        let mut sysctls = BTreeSet::new();
        read_sysctls(Path::new("/proc/sys/net"), &mut sysctls);
        parts.insert("sysctls", sysctls);
        MachineDump { parts }
    }

    /// Fails the test, showing the lines that differ, unless the calling thread's namespace is
    /// as it was.
    pub fn assert_unchanged(&self) {
        let differences = self.differences(&MachineDump::take());
        assert!(differences.is_empty(), "the namespace changed:\n{}", differences.join("\n"));
    }

    /// The lines that only one of the two has, `-` before those of `self` and `+` before those
    /// of `later`.
    pub fn differences(&self, later: &MachineDump) -> Vec<String> {
        let mut lines = Vec::new();
        for (part, before) in &self.parts {
            let after = &later.parts[part];
            lines.extend(before.difference(after).map(|line| format!("- {part}: {line}")));
            lines.extend(after.difference(before).map(|line| format!("+ {part}: {line}")));
        }
        lines
    }
}

fn run(part: &str, command: &[&str]) -> BTreeSet<String> {
    let output = Command::new(command[0]).args(&command[1..]).output();
    let output = output.unwrap_or_else(|e| panic!("dump of {part} needs `{}`: {e}", command[0]));
    // A kernel without IPv6 has no IPv6 tables: ip says so and there is nothing to compare.
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = BTreeSet::new();
    for line in text.lines().map(steady).filter(|line| !line.is_empty()) {
        // A set, but one of two equal rules gone is a difference too.
        let copies = (2..).map(|n| format!("{line} (number {n})"));
        let free = std::iter::once(line.clone()).chain(copies).find(|line| !lines.contains(line));
        lines.extend(free);
    }
    lines
}

/// Words whose value changes by itself, besides a bridge's timers.
const SELF_CHANGING: [&str; 5] = ["valid_lft", "preferred_lft", "expires", "packets", "bytes"];

/// A line without what changes by itself: lifetimes and traffic counters.
fn steady(line: &str) -> String {
    let mut words = line.split_whitespace();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        if word.ends_with("_timer") || SELF_CHANGING.contains(&word) {
            words.next();
        } else if word != "\\" {
            kept.push(word);
        }
    }
    kept.join(" ")
}

fn read_sysctls(directory: &Path, into: &mut BTreeSet<String>) {
    // An interface may go while its parameters are read, and some may only be written.
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_sysctls(&path, into);
        } else if !counts(&path) {
            let value = fs::read_to_string(&path).unwrap_or_default();
            into.insert(format!("{} = {}", path.display(), value.trim()));
        }
    }
}

/// Whether a file under `/proc/sys` holds a count or a random value, not a setting.
fn counts(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with("_count") || matches!(&*name, "stable_secret" | "tcp_fastopen_key" | "netdev_rss_key")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestNs;
    use crate::{LinkKind, NewLink, Op, sysctl};

    #[test]
    fn a_left_over_link_and_a_changed_sysctl_are_shown() {
        let ns = TestNs::new();
        let before = MachineDump::take();
        before.assert_unchanged();
        ns.netlink().apply(&Op::LinkAdd(NewLink::new("left0", LinkKind::Bridge))).unwrap();
        sysctl::set("net.ipv4.ip_forward", "1").unwrap();
        let differences = before.differences(&MachineDump::take()).join("\n");
        assert!(differences.contains("+ links: ") && differences.contains("left0"), "{differences}");
        assert!(differences.contains("+ sysctls: /proc/sys/net/ipv4/ip_forward = 1"), "{differences}");
    }

    #[test]
    fn what_changes_by_itself_is_left_out() {
        assert_eq!(steady("a valid_lft 12sec preferred_lft 9sec b"), "a b");
        assert_eq!(steady("counter packets 12 bytes 90 drop"), "counter drop");
    }
}
