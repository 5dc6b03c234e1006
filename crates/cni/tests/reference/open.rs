//! The cases that are known to differ and shall not: `open.txt`, one name a line.

use std::collections::BTreeSet;

use libtest_mimic::Failed;

use crate::case::folder;

/// Set, a whole run writes the list anew.
const WRITE: &str = "REFERENCE_WRITE_OPEN";

/// The list, and what this run found.
#[derive(Debug, Default)]
pub struct Open {
    listed: BTreeSet<String>,
    found: BTreeSet<String>,
}

impl Open {
    /// Reads the list.
    pub fn read() -> Self {
        let text = std::fs::read_to_string(folder().join("open.txt")).unwrap();
        let names = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        Self { listed: names.map(str::to_owned).collect(), found: BTreeSet::new() }
    }

    /// The verdict on a case: one that is listed must differ, any other must not.
    pub fn settle(&mut self, case: &str, judged: Result<(), Failed>) -> Result<(), Failed> {
        if judged.is_err() {
            self.found.insert(case.to_owned());
        }
        if std::env::var_os(WRITE).is_some() || std::env::var_os("REFERENCE_SHOW_OPEN").is_some() {
            return judged;
        }
        match (self.listed.contains(case), judged) {
            (true, Ok(())) => Err("it agrees now: take it out of open.txt".into()),
            (true, Err(_)) => Ok(()),
            (false, judged) => judged,
        }
    }

    /// Writes what was found, where the environment asks for it; what did not run stays listed.
    pub fn write_if_asked(&self, ran: impl Fn(&str) -> bool) {
        if std::env::var_os(WRITE).is_none() {
            return;
        }
        let mut text = String::from(
            "# Cases that differ from the reference and shall not. A case that agrees must leave the list.\n",
        );
        let kept = self.listed.iter().filter(|name| !ran(name));
        for name in self.found.iter().chain(kept).collect::<BTreeSet<_>>() {
            text.push_str(name);
            text.push('\n');
        }
        std::fs::write(folder().join("open.txt"), text).unwrap();
    }
}
