//! The differences that are intended, from `differences.yaml`.

use serde::Deserialize;

use crate::case::folder;

/// The list, and which of it was seen.
#[derive(Debug)]
pub struct Differences {
    entries: Vec<(Entry, bool)>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Names of cases; `*` stands for anything.
    case: String,
    /// Paths from the step on: its number and name, then answer, host, files or a pod; `*` stands for anything.
    at: String,
    /// The reason.
    why: String,
}

impl Differences {
    /// Reads the list.
    pub fn read() -> Self {
        let path = folder().join("differences.yaml");
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
        let unseen = self.entries.iter().filter(|(_, seen)| !seen);
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
