//! Answers without what differs from run to run: each such value is replaced by what it is.

use serde_json::{Map, Value, json};

use crate::side::Answered;

/// An answer's body, comparable.
pub fn normal(answered: &Answered, managed: bool) -> Value {
    let mut value = answered.body.clone();
    // Saved values are shown as $name where they are whole strings, the namespace anywhere.
    walk(&mut value, &|text| {
        let namespace = &answered.own["ns"];
        let saved = answered.own.iter().find(|(name, own)| *name != "ns" && own.len() > 12 && *own == text);
        saved.map_or_else(|| replace_whole(text, namespace), |(name, _)| format!("${name}"))
    });
    tidy(&mut value, managed);
    value
}

/// `judge-1` in `judge-1/x` is the namespace, in `judge-11` it is not.
fn replace_whole(text: &str, word: &str) -> String {
    let mut parts = text.split(word).peekable();
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let longer = part.starts_with(|c: char| c.is_ascii_digit());
        out.push_str(if longer { word } else { "$ns" });
        out.push_str(part);
    }
    out
}

fn walk(value: &mut Value, change: &dyn Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = change(text),
        Value::Array(items) => items.iter_mut().for_each(|item| walk(item, change)),
        Value::Object(map) => {
            let old = std::mem::take(map);
            for (key, mut item) in old {
                walk(&mut item, change);
                map.insert(change(&key), item);
            }
        }
        _ => {}
    }
}

fn tidy(value: &mut Value, managed: bool) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| tidy(item, managed)),
        Value::Object(map) => {
            if map.get("kind").is_some_and(|kind| kind == "Table") {
                table(map);
            }
            if map.get("kind").is_some_and(|kind| kind == "APIResourceList") {
                resources(map, "resources", "name");
            }
            if map.contains_key("responseKind") || map.contains_key("freshness") {
                resources(map, "subresources", "subresource");
                resources(map, "resources", "resource");
            }
            match map.get_mut("managedFields") {
                Some(Value::Array(entries)) if managed => owners(entries),
                _ => drop(map.remove("managedFields")),
            }
            generated(map);
            for (key, item) in map.iter_mut() {
                tidy(item, managed);
                volatile(key, item);
            }
        }
        Value::String(text) if is_uuid(text) => *value = "UID".into(),
        Value::String(text) if is_time(text) => *value = "TIME".into(),
        _ => {}
    }
}

/// Entries go by time, which is a second for all of a case.
fn owners(entries: &mut [Value]) {
    for entry in entries.iter_mut().filter_map(Value::as_object_mut) {
        entry.remove("time");
    }
    entries.sort_by_key(|entry| ["manager", "operation", "subresource"].map(|key| entry[key].to_string()));
}

/// A generated name keeps its start.
fn generated(map: &mut Map<String, Value>) {
    let Some(start) = map.get("generateName").and_then(Value::as_str).map(str::to_owned) else { return };
    if let Some(Value::String(name)) = map.get_mut("name")
        && name.starts_with(&start)
    {
        *name = format!("{start}{}", "?".repeat(name.len() - start.len()));
    }
}

fn volatile(key: &str, item: &mut Value) {
    match (key, &*item) {
        ("resourceVersion", Value::String(text)) if !text.is_empty() && text != "0" => *item = "RV".into(),
        ("continue", Value::String(text)) if !text.is_empty() => *item = "TOKEN".into(),
        ("clusterIP", Value::String(text)) => *item = address(text).into(),
        ("clusterIPs", Value::Array(all)) => {
            *item = all.iter().map(|one| address(one.as_str().unwrap_or_default())).collect();
        }
        ("nodePort" | "healthCheckNodePort", Value::Number(port)) if port.as_u64() >= Some(30000) => {
            *item = "PORT".into();
        }
        _ => {}
    }
}

fn address(text: &str) -> String {
    match text.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(_)) => "IPv4".into(),
        Ok(std::net::IpAddr::V6(_)) => "IPv6".into(),
        Err(_) => text.to_owned(),
    }
}

/// Column descriptions are prose, and ages go by the second.
fn table(map: &mut Map<String, Value>) {
    for column in map.get_mut("columnDefinitions").and_then(Value::as_array_mut).into_iter().flatten() {
        column["description"] = json!("");
    }
    for row in map.get_mut("rows").and_then(Value::as_array_mut).into_iter().flatten() {
        for cell in row.get_mut("cells").and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(text) = cell.as_str() else { continue };
            if is_age(text) {
                *cell = "AGE".into();
            } else if let Some((key, _)) = text.split_once('=').filter(|(_, value)| is_uuid(value)) {
                *cell = format!("{key}=UID").into();
            }
        }
    }
}

/// Discovery has no order: resources go by their names, and verbs by the alphabet.
fn resources(map: &mut Map<String, Value>, field: &str, name: &str) {
    let Some(Value::Array(list)) = map.get_mut(field).map(Value::take) else { return };
    let mut named = Map::new();
    for mut resource in list {
        if let Some(verbs) = resource.get_mut("verbs").and_then(Value::as_array_mut) {
            verbs.sort_by_key(Value::to_string);
        }
        named.insert(resource[name].as_str().unwrap_or_default().to_owned(), resource);
    }
    map.insert(field.into(), named.into());
}

fn is_age(text: &str) -> bool {
    text.len() > 1
        && text.ends_with(['s', 'm', 'h', 'd'])
        && text[..text.len() - 1].bytes().all(|b| b.is_ascii_digit())
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn is_time(text: &str) -> bool {
    text.len() >= 20
        && text.as_bytes()[10] == b'T'
        && text.ends_with('Z')
        && text.parse::<jiff::Timestamp>().is_ok()
}
