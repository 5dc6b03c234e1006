//! The machine's limit on neighbour entries, which all network namespaces share.

use std::fs::File;
use std::io::{Read as _, Seek as _};

/// Counters of the kernel's IPv4 neighbour table, one line a processor, in hexadecimal.
const COUNTERS: &str = "/proc/net/stat/arp_cache";
const LIMIT: &str = "/proc/sys/net/ipv4/neigh/default/gc_thresh3";

/// The machine's table, as it was when it was opened.
pub(super) struct Table {
    counters: File,
    before: u64,
    limit: String,
}

impl Table {
    /// To be opened before a lab is entered: only the machine's own namespace shows these
    /// files. None where the kernel does not say.
    pub(super) fn open() -> Option<Table> {
        let mut counters = File::open(COUNTERS).ok()?;
        let before = times_full(&mut counters)?;
        Some(Table { counters, before, limit: std::fs::read_to_string(LIMIT).ok()?.trim().to_owned() })
    }

    /// What to tell when the table was full since.
    pub(super) fn advice(&mut self) -> Option<String> {
        let times = times_full(&mut self.counters)?.checked_sub(self.before).filter(|times| *times > 0)?;
        Some(format!(
            "note: this machine's neighbour table was full {times} times meanwhile, and packets were dropped: \
             all namespaces share its {} entries; sysctl -w net.ipv4.neigh.default.gc_thresh3=65536 raises it, \
             or make a smaller lab",
            self.limit
        ))
    }
}

fn times_full(counters: &mut File) -> Option<u64> {
    let mut text = String::new();
    counters.rewind().ok()?;
    counters.read_to_string(&mut text).ok()?;
    sum(&text, "table_fulls")
}

fn sum(text: &str, column: &str) -> Option<u64> {
    let mut lines = text.lines();
    let at = lines.next()?.split_whitespace().position(|name| name == column)?;
    let value = |line: &str| u64::from_str_radix(line.split_whitespace().nth(at)?, 16).ok();
    lines.map(value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_all_processors_are_added() {
        let text = "entries  allocs table_fulls\n00002a39 00001e41 00001ce7\n00002a39 00002873 00002c40\n";
        assert_eq!(sum(text, "table_fulls"), Some(0x1ce7 + 0x2c40));
        assert_eq!(sum(text, "no_such"), None);
        assert_eq!(sum("", "table_fulls"), None);
    }
}
