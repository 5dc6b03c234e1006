//! Two trees, compared.

use std::fmt;

use serde_json::Value;

/// One place where the sides differ.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The path from the step on.
    pub at: String,
    ours: Option<Value>,
    theirs: Option<Value>,
}

impl Difference {
    pub fn new(at: String, ours: Value, theirs: Value) -> Difference {
        Difference { at, ours: Some(ours), theirs: Some(theirs) }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<Value>| value.as_ref().map_or("(nothing)".to_owned(), Value::to_string);
        write!(out, "{}: here {}, reference {}", self.at, shown(&self.ours), shown(&self.theirs))
    }
}

/// Every place below `at` where the trees differ.
pub fn differences(at: &str, ours: &Value, theirs: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    walk(&mut at.to_owned(), Some(ours), Some(theirs), &mut found);
    found
}

fn walk(at: &mut String, ours: Option<&Value>, theirs: Option<&Value>, found: &mut Vec<Difference>) {
    let length = at.len();
    match (ours, theirs) {
        (Some(Value::Object(ours)), Some(Value::Object(theirs))) => {
            let added = theirs.keys().filter(|key| !ours.contains_key(*key));
            for key in ours.keys().chain(added) {
                at.push('.');
                at.push_str(key);
                walk(at, ours.get(key), theirs.get(key), found);
                at.truncate(length);
            }
        }
        (Some(Value::Array(ours)), Some(Value::Array(theirs))) => {
            for place in 0..ours.len().max(theirs.len()) {
                at.push_str(&format!("[{place}]"));
                walk(at, ours.get(place), theirs.get(place), found);
                at.truncate(length);
            }
        }
        _ if ours == theirs => {}
        _ => found.push(Difference { at: at.clone(), ours: ours.cloned(), theirs: theirs.cloned() }),
    }
}
