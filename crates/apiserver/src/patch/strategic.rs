//! Strategic merge patch: lists of named things merge by the key that Kubernetes' types give them.
//!
//! See "Update API Objects in Place Using kubectl patch" and the `patchMergeKey` tags of k8s.io/api.

use serde_json::{Map, Value};

use super::lists::{Place, Strategy};
use crate::error::ApiError;

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE: &str = "$deleteFromPrimitiveList/";

/// Merges a patch into an object of a kind.
pub(super) fn merge(kind: &str, target: &mut Value, patch: &Value) -> Result<(), ApiError> {
    let Some(patch) = patch.as_object() else {
        return Err(ApiError::bad_request("a strategic merge patch must be a JSON object"));
    };
    merge_map(Place::root(kind), target, patch)
}

fn merge_map(place: Place<'_>, target: &mut Value, patch: &Map<String, Value>) -> Result<(), ApiError> {
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(map) = target.as_object_mut() else { return Ok(()) };
    match patch.get(DIRECTIVE).and_then(Value::as_str) {
        Some("replace") => {
            *map = patch.iter().filter(|(k, _)| !k.starts_with('$')).map(own).collect();
            return Ok(());
        }
        Some("delete") => {
            map.clear();
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => {
            let shown = go_map(patch);
            return Err(ApiError::unforeseen(format!("unknown patch type: {other} in map: {shown}")));
        }
    }
    let orders = patch.iter().filter_map(|(key, value)| Some((key.strip_prefix(ORDER)?, value.as_array()?)));
    let orders: Vec<_> = orders.map(|(field, wanted)| (field, wanted, map.get(field).cloned())).collect();
    if let Some(keep) = patch.get(RETAIN).and_then(Value::as_array) {
        map.retain(|key, _| keep.iter().any(|k| k == key));
    }
    for (field, value) in patch.iter().filter(|(k, _)| !k.starts_with('$')) {
        merge_field(place.field(field), map, field, value)?;
    }
    for (directive, value) in patch.iter().filter(|(k, _)| k.starts_with(DELETE)) {
        delete_values(map, directive, value);
    }
    for (field, wanted, before) in orders {
        if let Some(Value::Array(list)) = map.get_mut(field) {
            let before = before.as_ref().and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            order(list, wanted, before, &place.field(field).list().strategy);
        }
    }
    Ok(())
}

fn own((key, value): (&String, &Value)) -> (String, Value) {
    (key.clone(), value.clone())
}

fn merge_field(
    place: Place<'_>,
    map: &mut Map<String, Value>,
    field: &str,
    value: &Value,
) -> Result<(), ApiError> {
    match value {
        Value::Null => drop(map.remove(field)),
        Value::Object(patch) => {
            let deletes = patch.get(DIRECTIVE).is_some_and(|d| d == "delete");
            if deletes {
                map.remove(field);
            } else {
                merge_map(place, map.entry(field).or_insert(Value::Null), patch)?;
            }
        }
        Value::Array(patch) => merge_list(place, map.entry(field).or_insert(Value::Null), patch)?,
        plain => drop(map.insert(field.to_owned(), plain.clone())),
    }
    Ok(())
}

fn merge_list(place: Place<'_>, target: &mut Value, patch: &[Value]) -> Result<(), ApiError> {
    let list = match target {
        Value::Array(list) => std::mem::take(list),
        _ => Vec::new(),
    };
    *target = Value::Array(match place.list().strategy {
        Strategy::Replace => patch.to_vec(),
        strategy => {
            let before = list.clone();
            let mut merged = match strategy {
                Strategy::Key(key) => merge_by_key(place, key, list, patch)?,
                _ => union(list, patch),
            };
            order(&mut merged, patch, &before, &strategy);
            merged
        }
    });
    Ok(())
}

fn union(mut list: Vec<Value>, patch: &[Value]) -> Vec<Value> {
    for value in patch {
        if !list.contains(value) {
            list.push(value.clone());
        }
    }
    list
}

/// Puts what the patch names into the patch's order, among the rest in the order it had. As Kubernetes
/// has it, what is new goes before what the patch does not name.
fn order(list: &mut Vec<Value>, wanted: &[Value], before: &[Value], strategy: &Strategy) {
    let same = |a: &Value, b: &Value| match strategy {
        Strategy::Key(key) => a[*key] == b[*key],
        _ => a == b,
    };
    let place = |all: &[Value], item: &Value| all.iter().position(|other| same(other, item));
    let all = std::mem::take(list);
    let (mut named, mut rest): (Vec<Value>, Vec<Value>) =
        all.into_iter().partition(|item| place(wanted, item).is_some());
    named.sort_by_key(|item| place(wanted, item));
    rest.sort_by_key(|item| place(before, item));
    let (mut named, mut rest) = (named.into_iter().peekable(), rest.into_iter().peekable());
    loop {
        let first = match (rest.peek(), named.peek()) {
            (Some(kept), Some(patched)) => match (place(before, kept), place(before, patched)) {
                (Some(kept), Some(patched)) if kept < patched => rest.next(),
                _ => named.next(),
            },
            (Some(_), None) => rest.next(),
            (None, _) => named.next(),
        };
        match first {
            Some(item) => list.push(item),
            None => return,
        }
    }
}

/// A map as Go prints it, which is how Kubernetes' messages show one.
fn go_map(map: &Map<String, Value>) -> String {
    let mut fields: Vec<(&String, &Value)> = map.iter().collect();
    fields.sort_by_key(|(key, _)| *key);
    let each: Vec<String> = fields.into_iter().map(|(key, value)| format!("{key}:{}", go(value))).collect();
    format!("map[{}]", each.join(" "))
}

fn go(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".to_owned(),
        Value::Object(map) => go_map(map),
        Value::Array(list) => format!("[{}]", list.iter().map(go).collect::<Vec<_>>().join(" ")),
        plain => plain.to_string(),
    }
}

fn merge_by_key(
    place: Place<'_>,
    key: &str,
    mut list: Vec<Value>,
    patch: &[Value],
) -> Result<Vec<Value>, ApiError> {
    let replaces = |p: &Value| p[DIRECTIVE] == "replace" && p[key].is_null();
    if patch.iter().any(replaces) {
        return Ok(patch.iter().filter(|p| !replaces(p)).cloned().collect());
    }
    for item in patch {
        let Some(fields) = item.as_object() else {
            return Err(ApiError::bad_request(format!("an item of a list merged by {key:?} is no object")));
        };
        let Some(wanted) = fields.get(key).filter(|v| !v.is_null()) else {
            let shown = go_map(fields);
            let why = format!("map: {shown} does not contain declared merge key: {key}");
            return Err(ApiError::unforeseen(why));
        };
        let found = list.iter().position(|old| &old[key] == wanted);
        match (found, fields.get(DIRECTIVE).and_then(Value::as_str)) {
            (found, Some("delete")) => drop(found.map(|at| list.remove(at))),
            (Some(at), _) => merge_map(place, &mut list[at], fields)?,
            (None, _) => {
                let mut fresh = Value::Null;
                merge_map(place, &mut fresh, fields)?;
                list.push(fresh);
            }
        }
    }
    Ok(list)
}

/// `$deleteFromPrimitiveList/F`.
fn delete_values(map: &mut Map<String, Value>, directive: &str, value: &Value) {
    let field = directive.trim_start_matches(DELETE);
    if let (Some(Value::Array(list)), Some(gone)) = (map.get_mut(field), value.as_array()) {
        list.retain(|v| !gone.contains(v));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn merged(mut object: Value, patch: Value) -> Value {
        merge("Deployment", &mut object, &patch).unwrap();
        object
    }

    #[test]
    fn containers_merge_by_name() {
        let old = json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]});
        let patch = json!({"containers": [{"name": "b", "image": "2"}, {"name": "c", "image": "3"}]});
        let names = merged(old, patch);
        let images: Vec<_> =
            names["containers"].as_array().unwrap().iter().map(|c| c["image"].clone()).collect();
        assert_eq!(images, [json!("1"), json!("2"), json!("3")]);
    }

    #[test]
    fn an_item_is_deleted_by_directive() {
        let old = json!({"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]});
        let new = merged(old, json!({"env": [{"name": "A", "$patch": "delete"}]}));
        assert_eq!(new, json!({"env": [{"name": "B", "value": "2"}]}));
    }

    #[test]
    fn the_order_is_the_patchs() {
        let old = json!({"volumes": [{"name": "a"}, {"name": "b"}]});
        let patch = json!({"volumes": [{"name": "c"}],
            "$setElementOrder/volumes": [{"name": "c"}, {"name": "b"}, {"name": "a"}]});
        assert_eq!(merged(old, patch), json!({"volumes": [{"name": "c"}, {"name": "b"}, {"name": "a"}]}));
    }

    #[test]
    fn maps_are_replaced_and_keys_retained() {
        let old = json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}});
        let patch = json!({"strategy": {"type": "Recreate", "$retainKeys": ["type"]}});
        assert_eq!(merged(old.clone(), patch), json!({"strategy": {"type": "Recreate"}}));
        let patch = json!({"strategy": {"type": "Recreate", "$patch": "replace"}});
        assert_eq!(merged(old, patch), json!({"strategy": {"type": "Recreate"}}));
    }

    #[test]
    fn plain_values_leave_a_set() {
        let old = json!({"metadata": {"finalizers": ["a", "b"]}});
        let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}});
        assert_eq!(merged(old, patch), json!({"metadata": {"finalizers": ["c", "b"]}}));
    }

    #[test]
    fn taints_are_one_list() {
        let mut node = json!({"spec": {"taints": [{"key": "a"}, {"key": "b"}], "podCIDRs": ["x"]}});
        merge("Node", &mut node, &json!({"spec": {"taints": [{"key": "b"}], "podCIDRs": ["y"]}})).unwrap();
        assert_eq!(node, json!({"spec": {"taints": [{"key": "b"}], "podCIDRs": ["y", "x"]}}));
    }

    #[test]
    fn a_missing_key_is_an_error() {
        let error = merge("Pod", &mut json!({}), &json!({"containers": [{"image": "x"}]})).unwrap_err();
        assert_eq!(error.message, "map: map[image:x] does not contain declared merge key: name");
    }

    #[test]
    fn new_items_go_before_those_that_the_patch_does_not_name() {
        let old = json!({"env": [{"name": "A"}, {"name": "B"}, {"name": "C"}]});
        let new = merged(old, json!({"env": [{"name": "D"}, {"name": "B"}]}));
        assert_eq!(new, json!({"env": [{"name": "D"}, {"name": "A"}, {"name": "B"}, {"name": "C"}]}));
    }
}
