//! What a comparison with another program may differ in: the differences that are intended, and the
//! cases that differ and shall not.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a list that cannot be read fails the test that uses it"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use libtest_mimic::Failed;
use serde::Deserialize;

/// The intended differences, from `differences.yaml`, and which of them were seen.
#[derive(Debug)]
pub struct Differences {
    entries: Vec<(Entry, bool)>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Names of cases; `*` stands for anything.
    case: String,
    /// Paths in what is compared; `*` stands for anything.
    at: String,
    /// The reason.
    why: String,
}

impl Differences {
    /// Reads the list of a folder.
    pub fn read(folder: &Path) -> Self {
        let path = folder.join("differences.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        let entries: Vec<Entry> =
            serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(entries.iter().all(|entry| !entry.why.is_empty()), "every difference has its reason");
        Self { entries: entries.into_iter().map(|entry| (entry, false)).collect() }
    }

    /// Whether a difference is listed; it is seen then.
    pub fn intended(&mut self, case: &str, at: &str) -> bool {
        let mut listed = false;
        for (entry, seen) in &mut self.entries {
            if matches(&entry.case, case) && matches(&entry.at, at) {
                (*seen, listed) = (true, true);
            }
        }
        listed
    }

    /// What was listed and never seen.
    pub fn unseen(&self) -> Vec<String> {
        self.unseen_of(|_| true)
    }

    /// The same of the entries whose pattern for cases `judged` takes, as not every run has all.
    pub fn unseen_of(&self, judged: impl Fn(&str) -> bool) -> Vec<String> {
        let unseen = self.entries.iter().filter(|(entry, seen)| !seen && judged(&entry.case));
        unseen.map(|(entry, _)| format!("{}: {}", entry.case, entry.at)).collect()
    }
}

/// Whether a text is what a pattern says, in which `*` stands for anything.
pub fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => {
            let Some(text) = text.strip_prefix(start) else { return false };
            (0..=text.len()).any(|place| text.is_char_boundary(place) && matches(rest, &text[place..]))
        }
    }
}

/// The cases that are known to differ and shall not: `open.txt`, one name a line; and what this run
/// found. With `<NAME>_WRITE_OPEN` set in the environment a run writes the list anew, with
/// `<NAME>_SHOW_OPEN` they fail.
#[derive(Debug)]
pub struct Open {
    path: PathBuf,
    writes: bool,
    shows: bool,
    listed: BTreeSet<String>,
    found: BTreeSet<String>,
}

impl Open {
    /// Reads the list of a folder; `name` begins the names of its environment variables.
    pub fn read(folder: &Path, name: &str) -> Self {
        let path = folder.join("open.txt");
        let text = std::fs::read_to_string(&path).unwrap();
        let names = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let is_set = |end: &str| std::env::var_os(format!("{name}_{end}")).is_some();
        Self {
            writes: is_set("WRITE_OPEN"),
            shows: is_set("SHOW_OPEN"),
            listed: names.map(str::to_owned).collect(),
            found: BTreeSet::new(),
            path,
        }
    }

    /// The verdict on a case: one that is listed must differ, any other must not.
    pub fn settle(&mut self, case: &str, judged: Result<(), Failed>) -> Result<(), Failed> {
        if judged.is_err() {
            self.found.insert(case.to_owned());
        }
        if self.writes || self.shows {
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
        if !self.writes {
            return;
        }
        let mut text =
            String::from("# Cases that differ and shall not. A case that agrees must leave the list.\n");
        let kept = self.listed.iter().filter(|name| !ran(name));
        for name in self.found.iter().chain(kept).collect::<BTreeSet<_>>() {
            text.push_str(name);
            text.push('\n');
        }
        std::fs::write(&self.path, text).unwrap();
    }
}
