//! Mistakes in how the plugins of a list follow one another, and in what they take from the
//! runtime.

use serde_json::{Map, Value};

use super::explain::{CAPABILITIES, Place, place};
use super::spelling;
use crate::is_own;
use crate::protocol::readers::member;

/// The mistakes of a chain: key and reason. `kinds` are the keys and types of those that have one.
pub(super) fn mistakes(
    kinds: &[(&str, &str)],
    chain: &[(String, Map<String, Value>)],
) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (at, (key, kind)) in kinds.iter().enumerate().filter(|(_, (_, kind))| is_own(kind)) {
        let reason = match place(kind) {
            Place::Ipam => {
                format!("{kind} gives addresses to another plugin: name it in that plugin's ipam.type")
            }
            Place::Chained if at == 0 => {
                format!(
                    "{kind} adds to what a plugin before it made: put it after the one that makes the interface"
                )
            }
            Place::Interface if at > 0 => {
                format!(
                    "{kind} makes the container's interface, as the plugins before it did: give it a network of its own"
                )
            }
            _ => continue,
        };
        found.push((member(key, "type"), reason));
    }
    for (key, plugin) in chain {
        let kind = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
        capabilities(key, kind, plugin, &mut found);
    }
    found
}

fn capabilities(key: &str, kind: &str, plugin: &Map<String, Value>, found: &mut Vec<(String, String)>) {
    let at = |name: &str| member(&member(key, "capabilities"), name);
    let declared = plugin.get("capabilities");
    if declared.is_some_and(|declared| !declared.is_object()) {
        found.push((member(key, "capabilities"), "it is no object such as {\"portMappings\": true}".into()));
    }
    let ipam =
        plugin.get("ipam").and_then(|ipam| ipam.get("type")).and_then(Value::as_str).unwrap_or_default();
    for (name, on) in declared.and_then(Value::as_object).into_iter().flatten() {
        let known = CAPABILITIES.iter().find(|(known, _)| known == name);
        let own = is_own(kind);
        if !on.is_boolean() {
            found.push((at(name), "give true or false".into()));
        }
        match known {
            None if own => {
                let hint = spelling::hint(name, CAPABILITIES.iter().map(|(name, _)| *name));
                found.push((at(name), format!("there is no such capability{hint}")));
            }
            // What another program's IPAM plugin takes is its own.
            Some((_, takers))
                if own
                    && (ipam.is_empty() || is_own(ipam))
                    && !takers.contains(&kind)
                    && !takers.contains(&ipam) =>
            {
                found.push((at(name), format!("{kind} takes nothing of this kind from the runtime")));
            }
            _ => {}
        }
    }
    let is_on = |name: &str| declared.and_then(|d| d.get(name)).and_then(Value::as_bool) == Some(true);
    if kind == "portmap" && !is_on("portMappings") {
        let reason = "it is not declared, so no port is ever published: add \"portMappings\": true";
        found.push((at("portMappings"), reason.into()));
    }
    let rates = ["ingressRate", "egressRate"].iter().any(|key| plugin.contains_key(*key));
    if kind == "bandwidth" && !rates && !is_on("bandwidth") {
        let reason =
            "it is not declared and no rate is written, so nothing is ever limited: add \"bandwidth\": true";
        found.push((at("bandwidth"), reason.into()));
    }
}
