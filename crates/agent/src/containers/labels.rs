//! Which labels the Pod of a container has. Pure.
//!
//! Those of CNI_ARGS go before the network configuration's (`weft-cni` writes both into the record),
//! and these before the runtime's own.

use std::collections::HashMap;

use weft_cni::protocol::record::Record;

/// Longest value, and longest name behind the prefix of a key.
const LONGEST: usize = 63;
/// Longest prefix of a key.
const LONGEST_PREFIX: usize = 253;
/// Labels in which runtimes keep what they need themselves.
const BOOKKEEPING: [&str; 5] =
    ["nerdctl/", "io.containerd.", "io.cri-containerd.", "io.kubernetes.", "containerd.io/"];
/// What a container is called by runtimes that do not tell CNI its name.
const NAMES: [&str; 2] = ["io.kubernetes.pod.name", "nerdctl/name"];

/// The record with what the runtime says of the container, and the labels that Kubernetes would
/// refuse, which are left out.
pub(super) fn complete(record: &Record, runtime: &HashMap<String, String>) -> (Record, Vec<String>) {
    let name = NAMES.iter().find_map(|label| runtime.get(*label)).filter(|name| !name.is_empty());
    let kept = |key: &str| BOOKKEEPING.iter().any(|prefix| key.starts_with(prefix));
    let own = runtime.iter().filter(|(key, _)| !kept(key));
    let all = own.chain(&record.labels).map(|(key, value)| (key.clone(), value.clone()));
    let (good, bad): (HashMap<_, _>, HashMap<_, _>) = all.partition(|(key, value)| is_valid(key, value));
    let mut bad: Vec<String> = bad.into_keys().collect();
    bad.sort();
    let name = record.name.clone().or_else(|| name.cloned());
    (Record { name, labels: good.into_iter().collect(), ..record.clone() }, bad)
}

/// Whether Kubernetes takes it as a label.
fn is_valid(key: &str, value: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    prefix.is_none_or(is_subdomain) && !name.is_empty() && is_word(name) && is_word(value)
}

/// Letters, digits, and `-`, `_`, `.` between them; or nothing.
fn is_word(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let ends = [text.bytes().next(), text.bytes().last()];
    text.len() <= LONGEST
        && text.bytes().all(inner)
        && ends.into_iter().flatten().all(|b| b.is_ascii_alphanumeric())
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= LONGEST_PREFIX && text.split('.').all(is_label)
}

/// Whether it is a name of DNS, as a namespace must have.
pub(super) fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=LONGEST).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn labels_are_what_kubernetes_takes_for_one() {
        let (long, longer) = ("a".repeat(63), "a".repeat(64));
        for (key, value) in
            [("app", ""), ("app", "web"), ("a.b/c_d", "A-1.x_y"), (&*long, &*long), ("nerdctl/x", "1")]
        {
            assert!(is_valid(key, value), "{key}: {value}");
        }
        for (key, value) in [
            ("", "x"),
            ("/x", ""),
            ("A/x", ""),
            ("a/b/c", ""),
            ("a/", ""),
            ("-a", ""),
            ("a", "b "),
            ("a", "-"),
            ("a", "ä"),
            ("a", "https://x"),
            (&*longer, ""),
            ("a", &*longer),
            ("a..b/c", ""),
        ] {
            assert!(!is_valid(key, value), "{key}: {value}");
        }
        assert!(is_label("default") && !is_label("") && !is_label("../x") && !is_label("A"));
    }

    #[test]
    fn the_network_goes_before_the_runtime_and_bad_labels_are_left_out() {
        let given = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let record = Record {
            labels: given(&[("app", "network"), ("note", "two words")]).into_iter().collect(),
            ..Record::default()
        };
        let runtime = given(&[
            ("app", "runtime"),
            ("tier", "front"),
            ("source", "https://example.org"),
            ("nerdctl/name", "web_1"),
            ("nerdctl/networks", "[]"),
        ]);
        let (complete, bad) = complete(&record, &runtime.into_iter().collect());
        let expected: BTreeMap<String, String> =
            given(&[("app", "network"), ("tier", "front")]).into_iter().collect();
        assert_eq!((complete.labels, complete.name), (expected, Some("web_1".to_owned())));
        assert_eq!(bad, ["note", "source"]);
    }
}
