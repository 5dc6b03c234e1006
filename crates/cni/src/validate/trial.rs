//! One plugin's look at its configuration, again and again without what it refused, until it
//! has no more to say: so all mistakes are found at once, by the plugin's own code.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::places::parent;
use crate::protocol::args::{Args, Command, ExtraArgs};
use crate::protocol::config::NetConf;
use crate::protocol::error::code;
use crate::protocol::plugin;
use crate::protocol::readers::{Readers, member};
use crate::protocol::version::Version;

/// More mistakes than this are not looked for.
const MOST: usize = 100;
/// A namespace that cannot be: where a plugin asks for it, it has planned all it does.
const NOWHERE: &str = "/proc/self/fd/no-such-namespace";

const IPAM: &str = "ipam";

/// What a plugin said.
#[derive(Debug, Default)]
pub(super) struct Trial {
    /// Its mistakes: the key's path and what is wrong with it.
    pub(super) mistakes: Vec<(String, String)>,
    /// What it could not do here, which the configuration need not be guilty of.
    pub(super) notes: Vec<String>,
    /// Whether it looked at all of it.
    pub(super) complete: bool,
    /// Which keys it read.
    pub(super) readers: Readers,
}

/// Has the plugin that `config` names look at it, by the `command` that makes it plan and no more.
pub(super) fn of(config: &Map<String, Value>, command: Command, path: &[PathBuf]) -> Trial {
    let mut trial = Trial::default();
    let mut rest = Value::Object(config.clone());
    if command == Command::Status {
        // The first version that has it.
        rest["cniVersion"] = Version::V110.text().into();
    }
    let mut removed: Vec<String> = Vec::new();
    let mut seen = BTreeSet::new();
    for _ in 0..MOST {
        let input = rest.to_string().into_bytes();
        let readers = std::mem::take(&mut trial.readers);
        let common = readers.read::<NetConf>("", &rest).map(drop);
        let (readers, done) = match common {
            Ok(()) => plugin::rehearse(command, arguments(path), input, readers),
            Err(error) => (readers, Err(error)),
        };
        trial.readers = readers;
        let error = match done {
            Err(error) if error.code != code::UNKNOWN_CONTAINER => error,
            _ => {
                let shared = Readers::default();
                shared.read::<NetConf>("", &rest).ok();
                // One that did not read its own keys cannot say which there are.
                trial.complete = trial.readers.known("") != shared.known("");
                break;
            }
        };
        let blamed = blamed(&error.message, &rest).filter(|_| error.code != code::NOT_AVAILABLE);
        let Some((key, reason)) = blamed else {
            trial.notes.push(error.message);
            break;
        };
        let original = originally(&key, &removed);
        // What holds a removed key may lack it.
        let induced = removed.iter().any(|gone| is_within(&original, gone) || is_within(gone, &original));
        if !induced && seen.insert(original.clone()) {
            trial.mistakes.push((original, reason));
        }
        let Some(gone) = nearest(&rest, &key) else { break };
        let name = originally(&gone, &removed);
        if gone == IPAM && rest[IPAM].as_object().is_some_and(|ipam| !ipam.is_empty()) {
            // Without addresses a plugin still looks at its own keys.
            rest[IPAM] = Value::Object(Map::new());
            removed.push(name);
        } else if remove(&mut rest, &gone) {
            removed.push(name);
        } else {
            break;
        }
    }
    trial
}

fn arguments(path: &[PathBuf]) -> Args {
    Args {
        container_id: "validate".into(),
        ifname: "eth0".into(),
        netns: Some(NOWHERE.into()),
        path: path.to_vec(),
        text: String::new(),
        extra: ExtraArgs::default(),
    }
}

/// The key that a message begins with, and what it says of it.
fn blamed(message: &str, config: &Value) -> Option<(String, String)> {
    let end = message.find([':', ' '])?;
    let (key, rest) = message.split_at(end);
    let root = key.split(['.', '[']).next()?;
    let known = config.get(root).is_some() || rest.starts_with(" is missing");
    (!key.is_empty() && known).then(|| (key.to_owned(), rest.trim_start_matches([':', ' ']).to_owned()))
}

fn find<'a>(config: &'a Value, path: &str) -> Option<&'a Value> {
    walk(config, "", path)
}

fn walk<'a>(value: &'a Value, at: &str, path: &str) -> Option<&'a Value> {
    if at == path {
        return Some(value);
    }
    children(value, at)
        .into_iter()
        .filter(|(at, _)| is_within(path, at))
        .find_map(|(at, child)| walk(child, &at, path))
}

fn children<'a>(value: &'a Value, at: &str) -> Vec<(String, &'a Value)> {
    match value {
        Value::Object(map) => map.iter().map(|(key, child)| (member(at, key), child)).collect(),
        Value::Array(list) => {
            list.iter().enumerate().map(|(i, child)| (format!("{at}[{i}]"), child)).collect()
        }
        _ => Vec::new(),
    }
}

fn is_within(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The path itself or the nearest above it that is there; none when only the whole is.
fn nearest(config: &Value, path: &str) -> Option<String> {
    let mut path = path;
    while find(config, path).is_none() {
        path = parent(path)?;
    }
    (!path.is_empty()).then(|| path.to_owned())
}

fn remove(value: &mut Value, path: &str) -> bool {
    remove_at(value, "", path)
}

fn remove_at(value: &mut Value, at: &str, path: &str) -> bool {
    match value {
        Value::Object(map) => {
            let Some(key) = map.keys().find(|key| is_within(path, &member(at, key))).cloned() else {
                return false;
            };
            let below = member(at, &key);
            if below == path {
                return map.remove(&key).is_some();
            }
            map.get_mut(&key).is_some_and(|child| remove_at(child, &below, path))
        }
        Value::Array(list) => {
            let below = |i: usize| format!("{at}[{i}]");
            let Some(i) = (0..list.len()).find(|i| is_within(path, &below(*i))) else { return false };
            if below(i) == path {
                list.remove(i);
                return true;
            }
            remove_at(&mut list[i], &below(i), path)
        }
        _ => false,
    }
}

/// The path as it was before list elements were removed (`removed`: paths as they were, in the
/// order of their removal).
fn originally(path: &str, removed: &[String]) -> String {
    let mut original = String::new();
    for part in path.split_inclusive(']') {
        let Some((before, index)) = part.strip_suffix(']').and_then(|part| part.rsplit_once('[')) else {
            original += part;
            continue;
        };
        original += before;
        let Ok(mut index) = index.parse::<usize>() else { return path.to_owned() };
        let prefix = format!("{original}[");
        let gone: BTreeSet<usize> = removed
            .iter()
            .filter_map(|gone| gone.strip_prefix(&prefix)?.strip_suffix(']')?.parse().ok())
            .collect();
        gone.into_iter().for_each(|gone| index += usize::from(gone <= index));
        original += &format!("[{index}]");
    }
    original
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mistakes(config: Value) -> Vec<(String, String)> {
        let trial = of(config.as_object().unwrap(), Command::Add, &[]);
        assert!(trial.notes.is_empty(), "{:?}", trial.notes);
        trial.mistakes
    }

    fn keys(config: Value) -> Vec<String> {
        mistakes(config).into_iter().map(|(key, _)| key).collect()
    }

    fn bridge(ipam: Value) -> Value {
        json!({"cniVersion": "1.0.0", "name": "n", "type": "bridge", "ipam": ipam})
    }

    #[test]
    fn what_an_add_takes_has_no_mistakes() {
        assert_eq!(keys(bridge(json!({"type": "host-local", "subnet": "10.1.0.0/24"}))), [""; 0]);
        assert_eq!(keys(bridge(json!({}))), [""; 0]);
    }

    #[test]
    fn all_mistakes_are_found_at_once_in_their_original_places() {
        let mut config = bridge(json!({"type": "host-local", "ranges": [
            [{"subnet": "10.1.0.0/24"}],
            [{"subnet": "10.2.0.0/33"}],
            [{"subnet": "10.3.0.0/24"}],
            [{"subnet": "10.4.0.0/24", "gateway": "10.9.0.1"}, {"subnet": 5}],
            [{"subnet": "10.1.0.128/25"}],
        ], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "nowhere"}]}));
        config["mtu"] = json!("large");
        config["bridge"] = json!("a-name-that-is-too-long");
        config["hairpinMode"] = json!(3);
        let mut found = keys(config);
        found.sort();
        assert_eq!(
            found,
            [
                "bridge",
                "hairpinMode",
                "ipam.ranges[1][0].subnet",
                "ipam.ranges[3][0].gateway",
                "ipam.ranges[3][1].subnet",
                "ipam.ranges[4]",
                "ipam.routes[1].dst",
                "mtu",
            ]
        );
    }

    #[test]
    fn a_wrong_ipam_does_not_hide_the_rest() {
        let mut config = bridge(json!({"type": "host-local", "subnet": "10.1.0.0/33"}));
        config["mtu"] = json!(-1);
        let trial = of(config.as_object().unwrap(), Command::Add, &[]);
        assert!(trial.complete);
        assert_eq!(trial.mistakes.len(), 2, "{:?}", trial.mistakes);
        assert!(trial.readers.known("").unwrap().contains("bridge"));
    }

    #[test]
    fn paths_are_counted_as_before_removals() {
        let removed = ["a[1]", "a[3].b[0]", "a[2]"].map(str::to_owned);
        assert_eq!(originally("a[0]", &removed), "a[0]");
        assert_eq!(originally("a[1].b[0].c", &removed), "a[3].b[1].c");
        assert_eq!(originally("x.y", &removed), "x.y");
    }
}
