//! A node's state and a plugin's result without what is chosen at random or counts by itself.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use serde_json::{Map, Value, json};

use crate::dump::{IPTABLES, Namespace, Node};

/// The names and hardware addresses that mean nothing.
#[derive(Debug)]
pub struct Names {
    /// Links made at random, each with the name that it is shown by.
    links: Vec<(String, String)>,
    /// Hardware addresses that no case gives, with what they are shown by.
    macs: BTreeMap<String, String>,
    given: BTreeSet<String>,
    random: Regex,
    mac: Regex,
    link_local: Regex,
}

impl Names {
    /// Those of a node; `given` are hardware addresses that the case itself names.
    pub fn of(node: &Node, given: &BTreeSet<String>) -> Names {
        let random = Regex::new("^(veth[0-9a-f]{8}|wf[0-9a-f]{11})$").unwrap();
        let mut links = Vec::new();
        let mut macs = BTreeMap::new();
        let mut own = |place: &str, namespace: &Namespace, bridges: bool| {
            for link in array(&namespace.links) {
                let (name, mac) = (text(&link["ifname"]), text(&link["address"]).to_lowercase());
                let bridge = link["linkinfo"]["info_kind"] == "bridge";
                if bridge == bridges && !mac.starts_with("00:00") && !given.contains(&mac) {
                    macs.entry(mac).or_insert_with(|| format!("MAC of {place} {name}"));
                }
            }
        };
        for bridges in [false, true] {
            node.pods.iter().for_each(|(pod, namespace)| own(pod, namespace, bridges));
            own("host", &node.host, bridges);
        }
        for link in array(&node.host.links) {
            let name = text(&link["ifname"]);
            if random.is_match(name) && !node.prepared.contains(name) {
                links.push((name.to_owned(), format!("PEER{}", links.len() + 1)));
            }
        }
        let mac = Regex::new("(?i)([0-9a-f]{2}:){5}[0-9a-f]{2}").unwrap();
        let random = Regex::new(r"\b(veth[0-9a-f]{8}|wf[0-9a-f]{11})\b").unwrap();
        // ipvlan's have a number of the kernel's in the place of ff:fe.
        let link_local = Regex::new("fe80::([0-9a-f:]*ff:fe[0-9a-f:]*|[0-9a-f]+(:[0-9a-f]+){3})").unwrap();
        Names { links, macs, given: given.clone(), random, mac, link_local }
    }

    /// A text without them.
    pub fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, shown) in &self.links {
            if text.contains(name) {
                text = text.replace(name, shown);
            }
        }
        // A link that has gone, or is in a pod.
        if text.contains("veth") || text.contains("wf") {
            text = self.random.replace_all(&text, "A LINK").into_owned();
        }
        if !text.contains(':') {
            return text;
        }
        let text = self.mac.replace_all(&text, |found: &regex::Captures<'_>| {
            let mac = found[0].to_lowercase();
            let known = self.given.contains(&mac) || mac.starts_with("00:00") || mac.starts_with("ff:ff");
            self.macs.get(&mac).cloned().unwrap_or_else(|| if known { mac } else { "a MAC".to_owned() })
        });
        self.link_local.replace_all(&text, "LINK-LOCAL").into_owned()
    }

    fn tree(&self, value: Value) -> Value {
        match value {
            Value::String(text) => self.text(&text).into(),
            Value::Array(list) => list.into_iter().map(|one| self.tree(one)).collect(),
            Value::Object(map) => {
                map.into_iter().map(|(key, one)| (self.text(&key), self.tree(one))).collect()
            }
            other => other,
        }
    }
}

/// The state of a node.
pub fn state(node: &Node, names: &Names, given: &BTreeSet<String>) -> Value {
    let mut tree = Map::new();
    tree.insert("host".to_owned(), namespace(&node.host, given));
    for (pod, one) in &node.pods {
        tree.insert(pod.clone(), namespace(one, given));
    }
    let file = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| json!(text));
    let files = node.files.iter().map(|(path, text)| (path.clone(), file(text))).collect();
    tree.insert("files".to_owned(), Value::Object(files));
    names.tree(tree.into())
}

/// The result of an ADD, with each interface's hardware address said to be the kernel's or not.
pub fn result(result: &Value, node: &Node, names: &Names, given: &BTreeSet<String>) -> Value {
    let mut result = result.clone();
    for interface in result["interfaces"].as_array_mut().into_iter().flatten() {
        let name = text(&interface["name"]).to_owned();
        let sandbox = text(&interface["sandbox"]).rsplit('/').next().unwrap_or_default().to_owned();
        let namespace = node.pods.get(&sandbox).unwrap_or(&node.host);
        let Some(mac) = interface.get("mac").and_then(Value::as_str).map(str::to_lowercase) else { continue };
        let link = array(&namespace.links).find(|link| link["ifname"] == name.as_str());
        let right = link.is_some_and(|link| link["address"] == mac.as_str());
        if right && !given.contains(&mac) {
            interface["mac"] = "as the link".into();
        }
    }
    names.tree(result)
}

fn namespace(raw: &Namespace, given: &BTreeSet<String>) -> Value {
    let links = array(&raw.links).map(|one| (text(&one["ifname"]).to_owned(), link(one, given))).collect();
    let keep = |value: &Value| without(value, &["handle", "refcnt"]);
    json!({
        "links": Value::Object(links),
        "routes": lines(&raw.routes),
        "rules": [lines(&raw.rules[0]), lines(&raw.rules[1])],
        "neighbours": lines(&raw.neighbours),
        "proxies": lines(&raw.proxies),
        "vlans": by_name(&raw.vlans, "ifname"),
        "qdiscs": array(&raw.qdiscs).map(|one| (line(&keep(one)), json!(true))).collect::<Map<_, _>>(),
        "filters": raw.filters.iter().map(|(asked, told)| (asked.clone(), without(told, &["index"]))).collect::<Map<_, _>>(),
        "nft": nft(&raw.nft),
        "iptables": [saved(&raw.iptables[0]), saved(&raw.iptables[1])],
        "sysctls": raw.sysctls,
    })
}

/// What of a link is its index, its name for people, a random address, a timer or an offload.
fn link(raw: &Value, given: &BTreeSet<String>) -> Value {
    const NOTHING: [&str; 14] = [
        "ifindex",
        "link_index",
        "link_netnsid",
        "ifalias",
        "ifname",
        "broadcast",
        "bridge_id",
        "root_id",
        "designated_bridge",
        "designated_root",
        "topology_change",
        "topology_change_detected",
        "root_port",
        "addr_info",
    ];
    let mut kept = without(raw, &NOTHING);
    let map = kept.as_object_mut().unwrap();
    if !given.contains(&text(&raw["address"]).to_lowercase()) {
        map.remove("address");
    }
    let address = |one: &Value| {
        let key = format!("{} {}/{}", text(&one["family"]), text(&one["local"]), one["prefixlen"]);
        let rest = ["family", "local", "prefixlen", "valid_life_time", "preferred_life_time"];
        (key, without(one, &rest))
    };
    // A carrier that is lost is told late, and by two words.
    if let Some(flags) = map.get_mut("flags").and_then(Value::as_array_mut) {
        flags.retain(|flag| flag != "NO-CARRIER");
        if !flags.contains(&json!("LOWER_UP")) {
            map.remove("operstate");
        } else if let Some(state) = map.get_mut("operstate").filter(|state| **state == "UNKNOWN") {
            // So says the kernel for a while of a carrier that it never lost.
            *state = json!("UP");
        }
    }
    map.insert("addresses".to_owned(), Value::Object(array(&raw["addr_info"]).map(address).collect()));
    kept
}

/// A tree without these keys, and without timers.
fn without(value: &Value, keys: &[&str]) -> Value {
    match value {
        Value::Object(map) => {
            let stays = |key: &String| !keys.contains(&key.as_str()) && !key.ends_with("_timer");
            map.iter().filter(|(key, _)| stays(key)).map(|(k, v)| (k.clone(), without(v, keys))).collect()
        }
        Value::Array(list) => list.iter().map(|one| without(one, keys)).collect(),
        other => other.clone(),
    }
}

/// Objects that have no order, by their texts; two alike are told apart.
fn lines(list: &Value) -> Value {
    let mut map = Map::new();
    for one in array(list) {
        let mut one = without(one, &["expires", "cache"]);
        if let Some(flags) = one.get_mut("flags").and_then(Value::as_array_mut) {
            flags.retain(|flag| flag != "linkdown");
        }
        let text = line(&one);
        let copies = map.keys().filter(|key| key.starts_with(&text)).count();
        map.insert(if copies == 0 { text } else { format!("{text} ({copies} more)") }, json!(true));
    }
    map.into()
}

fn line(one: &Value) -> String {
    let word = |(key, value): (&String, &Value)| match value {
        Value::String(text) => format!("{key} {text}"),
        other => format!("{key} {other}"),
    };
    one.as_object().map(|map| map.iter().map(word).collect::<Vec<_>>().join(", ")).unwrap_or_default()
}

fn by_name(list: &Value, name: &str) -> Value {
    Value::Object(array(list).map(|one| (text(&one[name]).to_owned(), without(one, &[name]))).collect())
}

/// Tables with their chains, each with its rules in order, and their sets; no handles or counts.
fn nft(raw: &Value) -> Value {
    let mut tables = Map::new();
    for object in array(&raw["nftables"]).filter_map(Value::as_object) {
        let Some((kind, one)) = object.iter().next() else { continue };
        let of = if kind == "table" { &one["name"] } else { &one["table"] };
        let (family, table) = (text(&one["family"]), text(of));
        let saved = ["ip", "ip6"].contains(&family) && IPTABLES.contains(&table);
        if saved || kind == "metainfo" {
            continue;
        }
        let table = tables.entry(format!("{family} {table}")).or_insert_with(|| json!({}));
        let mut plain = without(one, &["handle", "family", "table", "name", "index", "packets", "bytes"]);
        match kind.as_str() {
            "table" => table["table"] = plain,
            "rule" => {
                let chain = &mut table[format!("chain {}", text(&one["chain"]))];
                plain.as_object_mut().unwrap().remove("chain");
                match chain["rules"].as_array_mut() {
                    Some(rules) => rules.push(plain),
                    None => chain["rules"] = json!([plain]),
                }
            }
            _ => {
                if let Some(elements) = plain.get_mut("elem").and_then(Value::as_array_mut) {
                    elements.sort_by_key(Value::to_string);
                }
                let place = &mut table[format!("{kind} {}", text(&one["name"]))];
                *place = plain;
            }
        }
    }
    tables.into()
}

/// Tables with their chains, each with its policy and its rules in order.
fn saved(text: &str) -> Value {
    let mut tables = json!({});
    let mut table = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name.to_owned();
        } else if let Some((chain, rest)) = line.strip_prefix(':').and_then(|l| l.split_once(' ')) {
            let policy = rest.split(' ').next().unwrap_or_default();
            tables[&table][chain] = json!({"policy": policy, "rules": []});
        } else if let Some((chain, rule)) = line.strip_prefix("-A ").and_then(|l| l.split_once(' '))
            && let Some(rules) = tables[&table][chain]["rules"].as_array_mut()
        {
            rules.push(rule.into());
        }
    }
    tables
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
