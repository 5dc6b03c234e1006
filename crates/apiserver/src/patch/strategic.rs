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
        Some(other) => return Err(ApiError::bad_request(format!("unknown patch directive {other:?}"))),
    }
    if let Some(keep) = patch.get(RETAIN).and_then(Value::as_array) {
        map.retain(|key, _| keep.iter().any(|k| k == key));
    }
    for (field, value) in patch.iter().filter(|(k, _)| !k.starts_with('$')) {
        merge_field(place.field(field), map, field, value)?;
    }
    for (directive, value) in patch.iter().filter(|(k, _)| k.starts_with('$')) {
        apply_list_directive(place, map, directive, value);
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
        Strategy::Set => union(list, patch),
        Strategy::Key(key) => merge_by_key(place, key, list, patch)?,
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
            return Err(ApiError::bad_request(format!("map does not contain declared merge key: {key}")));
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

/// `$setElementOrder/F` and `$deleteFromPrimitiveList/F`.
fn apply_list_directive(place: Place<'_>, map: &mut Map<String, Value>, directive: &str, value: &Value) {
    let Some(wanted) = value.as_array() else { return };
    if let Some(field) = directive.strip_prefix(DELETE) {
        if let Some(Value::Array(list)) = map.get_mut(field) {
            list.retain(|v| !wanted.contains(v));
        }
    } else if let Some(field) = directive.strip_prefix(ORDER)
        && let Some(Value::Array(list)) = map.get_mut(field)
    {
        let rank = |item: &Value| match place.field(field).list().strategy {
            Strategy::Key(key) => wanted.iter().position(|w| w[key] == item[key]),
            _ => wanted.iter().position(|w| w == item),
        };
        // What the patch does not name stays where it was, after the named ones before it.
        let mut last = 0;
        let mut keyed: Vec<(usize, usize, Value)> = Vec::with_capacity(list.len());
        for (index, item) in list.drain(..).enumerate() {
            last = rank(&item).unwrap_or(last);
            keyed.push((last, index, item));
        }
        keyed.sort_by_key(|(rank, index, _)| (*rank, *index));
        list.extend(keyed.into_iter().map(|(_, _, item)| item));
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
        assert_eq!(merged(old, patch), json!({"metadata": {"finalizers": ["b", "c"]}}));
    }

    #[test]
    fn taints_are_one_list() {
        let mut node = json!({"spec": {"taints": [{"key": "a"}, {"key": "b"}], "podCIDRs": ["x"]}});
        merge("Node", &mut node, &json!({"spec": {"taints": [{"key": "b"}], "podCIDRs": ["y"]}})).unwrap();
        assert_eq!(node, json!({"spec": {"taints": [{"key": "b"}], "podCIDRs": ["x", "y"]}}));
    }

    #[test]
    fn a_missing_key_is_an_error() {
        let error = merge("Pod", &mut json!({}), &json!({"containers": [{"image": "x"}]})).unwrap_err();
        assert_eq!(error.code, 400);
    }
}
