//! How values are written in cells.

use jiff::Timestamp;
use serde_json::{Value, json};

/// A list, or none.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A text, or another where it is missing or empty.
pub(super) fn or(value: &Value, instead: &str) -> Value {
    if value.as_str().is_none_or(str::is_empty) { json!(instead) } else { value.clone() }
}

/// A whole number, 0 where there is none.
pub(super) fn number(value: &Value) -> Value {
    json!(value.as_i64().unwrap_or(0))
}

/// A number or a text as text.
pub(super) fn plain(value: &Value, instead: &str) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(n) => n.to_string(),
        _ => instead.to_owned(),
    }
}

/// Fields of a map.
pub(super) fn count(value: &Value) -> usize {
    value.as_object().map_or(0, serde_json::Map::len)
}

/// Labels as `a=b,c=d`.
pub(super) fn labels(value: &Value) -> String {
    let pairs = value.as_object().into_iter().flatten();
    let text: Vec<_> = pairs.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    if text.is_empty() { "<none>".into() } else { text.join(",") }
}

/// A label selector as text, ordered by key.
pub(super) fn selector(value: &Value) -> Value {
    let pairs = value["matchLabels"].as_object().into_iter().flatten();
    let mut terms: Vec<(String, String)> =
        pairs.map(|(k, v)| (k.clone(), format!("{k}={}", v.as_str().unwrap_or_default()))).collect();
    for expression in list(&value["matchExpressions"]) {
        let key = expression["key"].as_str().unwrap_or_default();
        let mut values: Vec<&str> = list(&expression["values"]).iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let text = match expression["operator"].as_str() {
            Some("In") => format!("{key} in ({values})"),
            Some("NotIn") => format!("{key} notin ({values})"),
            Some("DoesNotExist") => format!("!{key}"),
            _ => key.to_owned(),
        };
        terms.push((key.to_owned(), text));
    }
    terms.sort_by(|a, b| a.0.cmp(&b.0));
    let text: Vec<String> = terms.into_iter().map(|(_, text)| text).collect();
    json!(if text.is_empty() { "<none>".to_owned() } else { text.join(",") })
}

/// A few of many, and how many more there are.
pub(super) fn some(all: &[String], most: usize, none: &str) -> String {
    match all.len() {
        0 => none.to_owned(),
        n if n > most => format!("{} + {} more...", all[..most].join(","), n - most),
        _ => all.join(","),
    }
}

/// The addresses of a load balancer, ordered.
pub(super) fn balanced(status: &Value) -> String {
    let each = list(&status["loadBalancer"]["ingress"]).iter();
    let mut all: Vec<&str> = each.filter_map(|i| i["ip"].as_str().or(i["hostname"].as_str())).collect();
    all.sort_unstable();
    all.dedup();
    all.join(",")
}

/// The status of a condition.
pub(super) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    let found = list(&object["status"]["conditions"]).iter().find(|c| c["type"] == kind);
    found.and_then(|c| c["status"].as_str())
}

/// The time since, as short as kubectl writes it.
pub(super) fn age(since: &Value, now: Timestamp) -> Value {
    let since = since.as_str().and_then(|s| s.parse::<Timestamp>().ok());
    json!(since.map_or_else(|| "<unknown>".to_owned(), |since| between(since, now)))
}

/// The time between two moments.
pub(super) fn between(from: Timestamp, to: Timestamp) -> String {
    short(to.duration_since(from).as_secs().max(0))
}

fn short(s: i64) -> String {
    let (m, h, d) = (s / 60, s / 3600, s / 86_400);
    let two = |big: i64, unit: char, small: i64, less: char| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{less}") }
    };
    match s {
        0..120 => format!("{s}s"),
        120..600 => two(m, 'm', s % 60, 's'),
        600..10_800 => format!("{m}m"),
        10_800..28_800 => two(h, 'h', m % 60, 'm'),
        28_800..172_800 => format!("{h}h"),
        172_800..691_200 => two(d, 'd', h % 24, 'h'),
        691_200..63_072_000 => format!("{d}d"),
        63_072_000..252_288_000 => two(d / 365, 'y', d % 365, 'd'),
        _ => format!("{}y", d / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        let cases = [
            (5, "5s"),
            (119, "119s"),
            (125, "2m5s"),
            (900, "15m"),
            (11_000, "3h3m"),
            (90_000, "25h"),
            (200_000, "2d7h"),
            (70_000_000, "2y80d"),
            (300_000_000, "9y"),
        ];
        for (seconds, text) in cases {
            assert_eq!(short(seconds), text);
        }
    }

    #[test]
    fn selectors_are_written_by_key() {
        let value = json!({"matchLabels": {"b": "1"}, "matchExpressions": [
            {"key": "a", "operator": "In", "values": ["y", "x"]}, {"key": "c", "operator": "DoesNotExist"}]});
        assert_eq!(selector(&value), "a in (x,y),b=1,!c");
        assert_eq!(selector(&Value::Null), "<none>");
    }

    #[test]
    fn some_of_many() {
        let all: Vec<String> = ["a", "b", "c", "d"].map(str::to_owned).into();
        assert_eq!(some(&all, 3, "-"), "a,b,c + 1 more...");
        assert_eq!(some(&all[..2], 3, "-"), "a,b");
        assert_eq!(some(&[], 3, "-"), "-");
    }
}
