//! Where each key of a JSON text is.

use std::collections::BTreeMap;

use crate::protocol::readers::member;

/// Line and column, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

/// The keys and list elements of a text, by path (`plugins[0].ipam.ranges[0][0].subnet`).
#[derive(Debug, Default)]
pub(super) struct Places {
    by_path: BTreeMap<String, Position>,
    /// Keys that come again in the same object.
    pub(super) doubles: Vec<(String, Position)>,
}

impl Places {
    /// Of a text that was found to be JSON.
    pub(super) fn of(text: &str) -> Places {
        let mut places = Places::default();
        Scan { text, at: 0, places: &mut places }.value(String::new());
        places
    }

    /// The place of a path, or of the nearest above it that is there.
    pub(super) fn nearest(&self, path: &str) -> Position {
        let mut path = path;
        loop {
            match (self.by_path.get(path), parent(path)) {
                (Some(position), _) => return *position,
                (None, Some(above)) => path = above,
                (None, None) => return Position { line: 1, column: 1 },
            }
        }
    }
}

/// The path of what holds `path`; none for the whole.
pub(super) fn parent(path: &str) -> Option<&str> {
    let cut = path.rfind(['.', '['])?;
    Some(&path[..cut])
}

struct Scan<'a> {
    text: &'a str,
    at: usize,
    places: &'a mut Places,
}

impl Scan<'_> {
    /// The scan never goes deeper than serde_json did, which stops at 128 levels.
    fn value(&mut self, path: String) {
        match self.peek() {
            Some(b'{') => self.object(&path),
            Some(b'[') => self.list(&path),
            Some(b'"') => drop(self.string()),
            _ => {
                self.at +=
                    self.rest().find([',', ']', '}', ' ', '\n', '\r', '\t']).unwrap_or(self.rest().len())
            }
        }
    }

    fn object(&mut self, path: &str) {
        self.at += 1;
        while self.peek() == Some(b'"') {
            let position = self.position();
            let key = member(path, &self.string());
            if self.places.by_path.insert(key.clone(), position).is_some() {
                self.places.doubles.push((key.clone(), position));
            }
            self.step(b':');
            self.value(key);
            self.step(b',');
        }
        self.step(b'}');
    }

    fn list(&mut self, path: &str) {
        self.at += 1;
        let mut index = 0;
        while self.peek().is_some_and(|byte| byte != b']') {
            let element = format!("{path}[{index}]");
            self.places.by_path.insert(element.clone(), self.position());
            self.value(element);
            self.step(b',');
            index += 1;
        }
        self.step(b']');
    }

    fn string(&mut self) -> String {
        let start = self.at;
        let mut escaped = false;
        let end = self.rest().char_indices().skip(1).find(|(_, c)| {
            let ends = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        });
        self.at += end.map_or(self.rest().len(), |(at, _)| at + 1);
        serde_json::from_str(&self.text[start..self.at]).unwrap_or_default()
    }

    /// The next byte that is no space.
    fn peek(&mut self) -> Option<u8> {
        self.at += self.rest().find(|c: char| !c.is_ascii_whitespace()).unwrap_or(self.rest().len());
        self.rest().bytes().next()
    }

    fn step(&mut self, byte: u8) {
        if self.peek() == Some(byte) {
            self.at += 1;
        }
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn position(&self) -> Position {
        let before = &self.text[..self.at];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Position { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_key_has_its_place() {
        let text = "{\n  \"a\": [1, {\"b\\\"c\": \"x,}\"}],\n  \"ä\": {}, \"a\": true\n}";
        let places = Places::of(text);
        let at = |path: &str| places.nearest(path);
        assert_eq!(at("a[0]"), Position { line: 2, column: 9 });
        assert_eq!(at("a[1].b\"c"), Position { line: 2, column: 13 });
        assert_eq!(at("a[1].none.deeper"), Position { line: 2, column: 12 });
        assert_eq!(at("ä"), Position { line: 3, column: 3 });
        assert_eq!(at("none"), Position { line: 1, column: 1 });
        assert_eq!(places.doubles, [("a".to_owned(), Position { line: 3, column: 12 })]);
    }

    proptest! {
        #[test]
        fn no_text_stops_it(text in "[\\[\\]{}\":,a\\\\1 \n]{0,60}") {
            if serde_json::from_str::<serde_json::Value>(&text).is_ok() {
                Places::of(&text);
            }
        }
    }
}
