//! Two answers to one request, compared.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::case::Step;
use crate::normal::normal;
use crate::side::Answered;
use weft_judge::matches;

/// One place where the answers differ.
#[derive(Debug)]
pub struct Difference {
    /// `code`, or the path in the answer.
    pub at: String,
    ours: Option<Value>,
    theirs: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<Value>| value.as_ref().map_or("(nothing)".to_owned(), Value::to_string);
        write!(out, "{}: Weft {}, Kubernetes {}", self.at, shown(&self.ours), shown(&self.theirs))
    }
}

/// Every difference that a step looks at.
pub fn all(step: &Step, ours: &Answered, theirs: &Answered) -> Vec<Difference> {
    let mut found = Vec::new();
    if ours.code != theirs.code {
        let told = |side: &Answered| {
            let message = side.body.get("message").filter(|_| side.code >= 400);
            Some(message.map_or_else(|| json!(side.code), |message| json!([side.code, message])))
        };
        return vec![Difference { at: "code".into(), ours: told(ours), theirs: told(theirs) }];
    }
    if step.code_only {
        return found;
    }
    let (ours, theirs) = (shape(step, ours), shape(step, theirs));
    walk(&mut String::new(), Some(&ours), Some(&theirs), &mut found);
    found.retain(|difference| {
        let named = |list: &[String]| list.iter().any(|pattern| matches(pattern, &difference.at));
        !named(&step.ignore) && (step.only.is_empty() || named(&step.only))
    });
    found
}

/// What is compared of an answer: all of an object; of a failure what programs look at.
fn shape(step: &Step, answered: &Answered) -> Value {
    let mut value = normal(answered, step.managed);
    if value.get("kind").is_some_and(|kind| kind == "Status")
        && value.get("status") == Some(&json!("Failure"))
    {
        return failure(&value, step.messages);
    }
    if let Value::Array(events) = &mut value {
        for event in events.iter_mut() {
            if event.get("type") == Some(&json!("ERROR")) {
                event["object"] = failure(&event["object"], step.messages);
            }
        }
    }
    value
}

fn failure(status: &Value, messages: bool) -> Value {
    let mut kept = Map::new();
    for key in ["reason", "code"] {
        kept.insert(key.to_owned(), status[key].clone());
    }
    let details = &status["details"];
    for key in ["name", "group", "kind", "retryAfterSeconds"] {
        kept.insert(format!("details.{key}"), details[key].clone());
    }
    let mut causes: Vec<Value> = details["causes"].as_array().into_iter().flatten().cloned().collect();
    for cause in &mut causes {
        if !messages && let Some(cause) = cause.as_object_mut() {
            cause.remove("message");
        }
    }
    causes.sort_by_key(Value::to_string);
    kept.insert("details.causes".to_owned(), causes.into());
    if messages {
        kept.insert("message".to_owned(), status["message"].clone());
    }
    Value::Object(kept)
}

fn walk(at: &mut String, ours: Option<&Value>, theirs: Option<&Value>, found: &mut Vec<Difference>) {
    let length = at.len();
    match (ours, theirs) {
        (Some(Value::Object(ours)), Some(Value::Object(theirs))) => {
            let added = theirs.keys().filter(|key| !ours.contains_key(*key));
            for key in ours.keys().chain(added) {
                at.push_str(if length == 0 { "" } else { "." });
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
