//! What a network configuration will do, and every mistake in it with its place.
//!
//! The plugins' own code finds the mistakes: each looks at its configuration as its ADD does, so
//! what passes here is not refused there.

mod chain;
mod explain;
mod places;
mod spelling;
mod trial;

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Map, Value};

pub use places::Position;

use crate::protocol::args::Command;
use crate::protocol::exec;
use crate::protocol::readers::member;
use crate::protocol::version::Version;
use crate::{is_own, names};
use explain::Place;
use places::Places;

/// What is to be said of a configuration.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The network's name.
    pub network: String,
    /// The version its plugins are spoken to in.
    #[serde(rename = "cniVersion")]
    pub cni_version: String,
    /// What ADD does, in order; DEL undoes it in reverse.
    pub steps: Vec<Step>,
    /// What cannot be as it is, by place.
    pub mistakes: Vec<Mistake>,
    /// What could not be found out here.
    pub notes: Vec<String>,
}

/// One plugin of the list.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Its `type`.
    pub plugin: String,
    /// What it does.
    pub does: String,
    /// What its settings mean.
    pub settings: Vec<String>,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// Where it is in the file.
    #[serde(flatten)]
    pub position: Position,
    /// The key's path; empty for the whole.
    pub key: String,
    /// What is wrong and what to do.
    pub reason: String,
}

/// Looks at the configuration in `text`. `path` is where other programs' plugins are.
pub fn validate(text: &[u8], path: &[PathBuf]) -> Report {
    let whole = match std::str::from_utf8(text) {
        Err(error) => Err(broken(text, error.valid_up_to(), "it is not UTF-8")),
        Ok(text) => match serde_json::from_str::<Value>(text) {
            Ok(value) if value.is_object() => Ok((text, value)),
            Ok(_) => Err(broken(text.as_bytes(), 0, "it is not a JSON object")),
            Err(error) => {
                let reason = error.to_string();
                let reason = reason.split(" at line ").next().unwrap_or_default();
                let position = Position { line: error.line().max(1), column: error.column().max(1) };
                Err(Mistake { position, key: String::new(), reason: reason.to_owned() })
            }
        },
    };
    match whole {
        Ok((text, value)) => Look::new(text, path).whole(&value),
        Err(mistake) => Report { mistakes: vec![mistake], ..Report::default() },
    }
}

fn broken(text: &[u8], at: usize, reason: &str) -> Mistake {
    let before = &text[..at];
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let position = Position { line, column: at - line_start + 1 };
    Mistake { position, key: String::new(), reason: reason.to_owned() }
}

/// The keys of a list; those of a single plugin are its own.
const LIST_KEYS: &[&str] =
    &["cniVersion", "cniVersions", "name", "disableCheck", "disableGC", "loadOnlyInlinedPlugins", "plugins"];

/// Keys of a plugin that the runtime reads, or whoever names an IPAM plugin.
const COMMON_KEYS: &[&str] = &["capabilities", "type", "name", "cniVersion", "ipam.type"];

struct Look<'a> {
    path: &'a [PathBuf],
    places: Places,
    report: Report,
}

impl<'a> Look<'a> {
    fn new(text: &str, path: &'a [PathBuf]) -> Look<'a> {
        Look { path, places: Places::of(text), report: Report::default() }
    }

    fn whole(mut self, value: &Value) -> Report {
        for (key, position) in std::mem::take(&mut self.places.doubles) {
            let reason = "it comes twice in the same object: only the last counts".into();
            self.report.mistakes.push(Mistake { position, key, reason });
        }
        if let Some(config) = value.as_object() {
            match value.get("plugins") {
                None if value.get("type").is_some() => self.single(config),
                plugins => self.list(config, plugins),
            }
        }
        self.report.mistakes.sort_by(|a, b| (a.position, &a.key).cmp(&(b.position, &b.key)));
        self.report.mistakes.dedup();
        self.report
    }

    fn single(&mut self, config: &Map<String, Value>) {
        self.network(config);
        self.plugins(&[(String::new(), config.clone())]);
    }

    fn list(&mut self, config: &Map<String, Value>, plugins: Option<&Value>) {
        self.network(config);
        for key in config.keys().filter(|key| !LIST_KEYS.contains(&key.as_str()) && !is_foreign(key)) {
            let hint = spelling::hint(key, LIST_KEYS.iter().copied());
            self.mistake(key, &format!("no list has this key{hint}"));
        }
        for key in ["disableCheck", "disableGC", "loadOnlyInlinedPlugins"] {
            let text = config
                .get(key)
                .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_lowercase));
            if text.is_some_and(|text| text != "true" && text != "false") {
                self.mistake(key, "give true or false");
            }
        }
        let inlined = config.get("loadOnlyInlinedPlugins").is_some_and(|on| *on == true || *on == "true");
        let mut chain = Vec::new();
        match plugins {
            None if inlined => {
                self.mistake("plugins", "it is missing although loadOnlyInlinedPlugins is true")
            }
            None => self.report.notes.push(format!(
                "the plugins are in the folder {:?} beside the file, which is not looked at",
                self.report.network
            )),
            Some(Value::Array(list)) if list.is_empty() => {
                self.mistake("plugins", "it is empty: name a plugin")
            }
            Some(Value::Array(list)) => {
                for (at, plugin) in list.iter().enumerate() {
                    let key = format!("plugins[{at}]");
                    match plugin.as_object() {
                        Some(plugin) => chain.push((key, plugin.clone())),
                        None => self.mistake(&key, "it is no object"),
                    }
                }
            }
            Some(_) => self.mistake("plugins", "it is no list"),
        }
        self.plugins(&chain);
    }

    /// Name and version, which all plugins get.
    fn network(&mut self, config: &Map<String, Value>) {
        match crate::runtime::version(config) {
            Ok(version) if Version::parse(&version).is_some() => self.report.cni_version = version,
            Ok(version) => {
                let known = Version::ALL.map(Version::text).join(", ");
                self.mistake("cniVersion", &format!("{version:?} is not supported: give one of {known}"));
            }
            Err(error) => {
                let (key, reason) = error.message.split_once(": ").unwrap_or(("cniVersion", &error.message));
                self.mistake(key, reason);
            }
        }
        if !config.contains_key("cniVersion") && !config.contains_key("cniVersions") {
            self.mistake("cniVersion", "it is missing: give 1.0.0, or what your runtime speaks");
        }
        match config.get("name").map(Value::as_str) {
            None => self.mistake("name", "it is missing: give the network a name"),
            Some(None) => self.mistake("name", "it is no string"),
            Some(Some(name)) => self.report.network = name.to_owned(),
        }
    }

    fn plugins(&mut self, chain: &[(String, Map<String, Value>)]) {
        let mut kinds = Vec::new();
        for (key, plugin) in chain {
            let at = |name: &str| member(key, name);
            let kind = match plugin.get("type") {
                Some(Value::String(kind)) if !kind.is_empty() => kind,
                Some(Value::String(_)) | None => {
                    self.mistake(&at("type"), "it is missing: name the plugin");
                    continue;
                }
                Some(_) => {
                    self.mistake(&at("type"), "it is no string");
                    continue;
                }
            };
            kinds.push((key.as_str(), kind.as_str()));
            let does = explain::summary(if is_own(kind) { kind } else { "" }).to_owned();
            let settings = explain::settings(plugin);
            self.report.steps.push(Step { plugin: kind.clone(), does, settings });
            if is_own(kind) {
                self.own(key, kind, plugin);
            } else {
                self.other(&at("type"), kind);
            }
            self.ipam(key, plugin);
        }
        for (key, reason) in chain::mistakes(&kinds, chain) {
            self.mistake(&key, &reason);
        }
    }

    fn own(&mut self, key: &str, kind: &str, plugin: &Map<String, Value>) {
        let command = match explain::place(kind) {
            // These act before they open the namespace, or never open it.
            Place::Interface if ["sriov", "host-device", "ovs"].contains(&kind) => Command::Status,
            Place::Interface => Command::Add,
            Place::Chained => Command::Status,
            Place::Ipam => return,
        };
        let mut config = plugin.clone();
        // Those that are wrong were told already.
        let version = Some(self.report.cni_version.as_str()).filter(|version| !version.is_empty());
        config.insert("cniVersion".into(), version.unwrap_or(Version::V110.text()).into());
        let name = Some(self.report.network.as_str()).filter(|name| !name.is_empty());
        config.insert("name".into(), name.unwrap_or("network").into());
        let trial = trial::of(&config, command, self.path);
        for (path, reason) in &trial.mistakes {
            let path = if path == "name" { path.clone() } else { joined(key, path) };
            self.mistake(&path, reason);
        }
        self.report.notes.extend(trial.notes.iter().map(|note| format!("{kind}: {note}")));
        if trial.complete {
            self.unknown(key, "", &Value::Object(plugin.clone()), &trial.readers);
        }
    }

    /// Keys that nothing reads.
    fn unknown(&mut self, key: &str, path: &str, value: &Value, readers: &crate::protocol::readers::Readers) {
        match value {
            Value::Object(map) => {
                let known = readers.known(path);
                for (name, child) in map {
                    let below = member(path, name);
                    let told = known
                        .as_ref()
                        .is_none_or(|known| known.iter().any(|key| key.eq_ignore_ascii_case(name)));
                    let common = COMMON_KEYS.contains(&below.as_str());
                    if told || common || is_foreign(name) {
                        self.unknown(key, &below, child, readers);
                    } else {
                        let hint = spelling::hint(name, known.iter().flatten().copied());
                        self.mistake(&joined(key, &below), &format!("the plugin has no such key{hint}"));
                    }
                }
            }
            Value::Array(list) => {
                for (at, child) in list.iter().enumerate() {
                    self.unknown(key, &format!("{path}[{at}]"), child, readers);
                }
            }
            _ => {}
        }
    }

    fn other(&mut self, key: &str, kind: &str) {
        if exec::find_in("type", kind, self.path).is_err() {
            let dirs: Vec<String> = self.path.iter().map(|dir| dir.display().to_string()).collect();
            let hint = spelling::hint(kind, names());
            let reason =
                format!("there is no plugin {kind:?} here or in CNI_PATH ({}){hint}", dirs.join(", "));
            self.mistake(key, &reason);
        }
    }

    fn ipam(&mut self, key: &str, plugin: &Map<String, Value>) {
        let kind = plugin.get("ipam").and_then(|ipam| ipam.get("type")).and_then(Value::as_str);
        let Some(kind) = kind.filter(|kind| !kind.is_empty()) else { return };
        let key = joined(key, "ipam.type");
        if !is_own(kind) {
            self.other(&key, kind);
        } else if explain::place(kind) != Place::Ipam {
            self.mistake(&key, &format!("{kind} gives no addresses: use host-local, static or dhcp"));
        }
    }

    fn mistake(&mut self, key: &str, reason: &str) {
        let position = self.places.nearest(key);
        // Two looks may find the same mistake: the first says what it is.
        let told: BTreeSet<&str> = self.report.mistakes.iter().map(|mistake| mistake.key.as_str()).collect();
        if !told.contains(key) {
            self.report.mistakes.push(Mistake { position, key: key.to_owned(), reason: reason.to_owned() });
        }
    }
}

/// Keys with a domain are other programs' own.
fn is_foreign(key: &str) -> bool {
    key.contains('/') || key.starts_with('_')
}

fn joined(key: &str, path: &str) -> String {
    match (key, path) {
        ("", path) => path.to_owned(),
        (key, "") => key.to_owned(),
        (key, path) => format!("{key}.{path}"),
    }
}

#[cfg(test)]
mod tests;
