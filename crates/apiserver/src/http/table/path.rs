//! The JSON paths of printed columns: fields, indexes, `[*]` and `[?(@.field=="value")]`.

use serde_json::Value;

/// The first value at a path.
pub(super) fn first<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let mut found = vec![object];
    let mut rest = path;
    while !rest.is_empty() {
        let (step, tail) = next(rest)?;
        found = found.into_iter().flat_map(|value| take(value, &step)).collect();
        rest = tail;
    }
    found.first().copied()
}

enum Step {
    Field(String),
    Index(i64),
    All,
    /// Items whose field, by names from the item on, is this text.
    Where(Vec<String>, String),
}

/// The first step of a path and what follows it.
fn next(path: &str) -> Option<(Step, &str)> {
    if let Some(inside) = path.strip_prefix('[') {
        let end = if inside.starts_with('?') { inside.find(")]")? + 1 } else { inside.find(']')? };
        return Some((bracket(&inside[..end])?, &inside[end + 1..]));
    }
    let path = path.strip_prefix('.').unwrap_or(path);
    let mut name = String::new();
    let mut escaped = false;
    for (at, c) in path.char_indices() {
        match c {
            '\\' if !escaped => escaped = true,
            '.' | '[' if !escaped => return Some((Step::Field(name), &path[at..])),
            c => {
                name.push(c);
                escaped = false;
            }
        }
    }
    Some((Step::Field(name), ""))
}

fn bracket(inside: &str) -> Option<Step> {
    if inside == "*" {
        return Some(Step::All);
    }
    let unquoted = |text: &str| text.trim().trim_matches(['"', '\'']).to_owned();
    if let Some(filter) = inside.strip_prefix("?(@.").and_then(|f| f.strip_suffix(')')) {
        let (field, value) = filter.split_once("==")?;
        return Some(Step::Where(field.trim().split('.').map(str::to_owned).collect(), unquoted(value)));
    }
    if inside.starts_with(['"', '\'']) {
        return Some(Step::Field(unquoted(inside)));
    }
    inside.trim().parse().ok().map(Step::Index)
}

fn take<'a>(value: &'a Value, step: &Step) -> Vec<&'a Value> {
    match (step, value) {
        (Step::Field(name), Value::Object(map)) => map.get(name).into_iter().collect(),
        (Step::Index(n), Value::Array(list)) => {
            let at = if *n < 0 {
                list.len().checked_sub(n.unsigned_abs() as usize)
            } else {
                usize::try_from(*n).ok()
            };
            at.and_then(|at| list.get(at)).into_iter().collect()
        }
        (Step::All, Value::Array(list)) => list.iter().collect(),
        (Step::All, Value::Object(map)) => map.values().collect(),
        (Step::Where(field, wanted), Value::Array(list)) => {
            let is = |item: &&Value| {
                let found = field.iter().fold(*item, |v, name| &v[name.as_str()]);
                let text = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
                text == *wanted
            };
            list.iter().filter(is).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn paths_of_columns() {
        let object = json!({"spec": {"a": [{"b": 1}, {"b": 2}]}, "metadata": {"annotations": {"x.y/z": "v"}},
            "status": {"conditions": [{"type": "A", "status": "no"}, {"type": "Ready", "status": "yes"}]}});
        let cases = [
            (".spec.a[0].b", json!(1)),
            (".spec.a[-1].b", json!(2)),
            (".spec.a[*].b", json!(1)),
            (".metadata.annotations.x\\.y/z", json!("v")),
            (".metadata.annotations['x.y/z']", json!("v")),
            (".status.conditions[?(@.type==\"Ready\")].status", json!("yes")),
            (".status.conditions[?(@.type=='A')].status", json!("no")),
        ];
        for (path, value) in cases {
            assert_eq!(first(&object, path), Some(&value), "{path}");
        }
        for path in [
            ".nothing.there",
            ".spec.a[9]",
            ".spec.a[",
            ".spec[?(@.x)]",
            ".status.conditions[?(@.type=='B')].status",
        ] {
            assert_eq!(first(&object, path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_path_that_does_not_panic(path in r#"[\[\].a*?@='"()\\0-9-]{0,30}"#) {
            first(&json!({"a": [{"a": 1}], "0": []}), &path);
        }
    }
}
