//! Strategic merge patch: lists of named things merge by the key that Kubernetes' types give them.
//!
//! See "Update API Objects in Place Using kubectl patch" and the `patchMergeKey` tags of k8s.io/api.

use serde_json::{Map, Value};

use crate::error::ApiError;

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE: &str = "$deleteFromPrimitiveList/";

/// How a list merges.
enum ListRule {
    /// The patch's list takes its place.
    Replace,
    /// Plain values: the union.
    Set,
    /// Objects that are the same when this field is.
    Key(&'static str),
}

fn rule(kind: &str, field: &str) -> ListRule {
    match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "env"
        | "volumes"
        | "imagePullSecrets"
        | "webhooks"
        | "resourceClaims" => ListRule::Key("name"),
        "secrets" if kind == "ServiceAccount" => ListRule::Key("name"),
        "volumeMounts" => ListRule::Key("mountPath"),
        "volumeDevices" => ListRule::Key("devicePath"),
        "conditions" => ListRule::Key("type"),
        "addresses" if kind == "Node" => ListRule::Key("type"),
        "taints" => ListRule::Key("key"),
        "hostAliases" | "podIPs" | "hostIPs" => ListRule::Key("ip"),
        "topologySpreadConstraints" => ListRule::Key("topologyKey"),
        "ownerReferences" => ListRule::Key("uid"),
        "ports" if kind == "Service" => ListRule::Key("port"),
        "ports" if has_pods(kind) => ListRule::Key("containerPort"),
        "finalizers" | "podCIDRs" => ListRule::Set,
        _ => ListRule::Replace,
    }
}

fn has_pods(kind: &str) -> bool {
    matches!(
        kind,
        "Pod"
            | "Deployment"
            | "ReplicaSet"
            | "StatefulSet"
            | "DaemonSet"
            | "Job"
            | "CronJob"
            | "ReplicationController"
    )
}

/// Merges a patch into an object of a kind.
pub(super) fn merge(kind: &str, target: &mut Value, patch: &Value) -> Result<(), ApiError> {
    let Some(patch) = patch.as_object() else {
        return Err(ApiError::bad_request("a strategic merge patch must be a JSON object"));
    };
    merge_map(kind, target, patch)
}

fn merge_map(kind: &str, target: &mut Value, patch: &Map<String, Value>) -> Result<(), ApiError> {
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
        merge_field(kind, map, field, value)?;
    }
    for (directive, value) in patch.iter().filter(|(k, _)| k.starts_with('$')) {
        apply_list_directive(kind, map, directive, value);
    }
    Ok(())
}

fn own((key, value): (&String, &Value)) -> (String, Value) {
    (key.clone(), value.clone())
}

fn merge_field(kind: &str, map: &mut Map<String, Value>, field: &str, value: &Value) -> Result<(), ApiError> {
    match value {
        Value::Null => drop(map.remove(field)),
        Value::Object(patch) => {
            let deletes = patch.get(DIRECTIVE).is_some_and(|d| d == "delete");
            if deletes {
                map.remove(field);
            } else {
                merge_map(kind, map.entry(field).or_insert(Value::Null), patch)?;
            }
        }
        Value::Array(patch) => merge_list(kind, field, map.entry(field).or_insert(Value::Null), patch)?,
        plain => drop(map.insert(field.to_owned(), plain.clone())),
    }
    Ok(())
}

fn merge_list(kind: &str, field: &str, target: &mut Value, patch: &[Value]) -> Result<(), ApiError> {
    let list = match target {
        Value::Array(list) => std::mem::take(list),
        _ => Vec::new(),
    };
    *target = Value::Array(match rule(kind, field) {
        ListRule::Replace => patch.to_vec(),
        ListRule::Set => union(list, patch),
        ListRule::Key(key) => merge_by_key(kind, key, list, patch)?,
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
    kind: &str,
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
            (Some(at), _) => merge_map(kind, &mut list[at], fields)?,
            (None, _) => {
                let mut fresh = Value::Null;
                merge_map(kind, &mut fresh, fields)?;
                list.push(fresh);
            }
        }
    }
    Ok(list)
}

/// `$setElementOrder/F` and `$deleteFromPrimitiveList/F`.
fn apply_list_directive(kind: &str, map: &mut Map<String, Value>, directive: &str, value: &Value) {
    let Some(wanted) = value.as_array() else { return };
    if let Some(field) = directive.strip_prefix(DELETE) {
        if let Some(Value::Array(list)) = map.get_mut(field) {
            list.retain(|v| !wanted.contains(v));
        }
    } else if let Some(field) = directive.strip_prefix(ORDER)
        && let Some(Value::Array(list)) = map.get_mut(field)
    {
        let place = |item: &Value| match rule(kind, field) {
            ListRule::Key(key) => wanted.iter().position(|w| w[key] == item[key]),
            _ => wanted.iter().position(|w| w == item),
        };
        // What the patch does not name stays where it was, after the named ones before it.
        let mut last = 0;
        let mut keyed: Vec<(usize, usize, Value)> = Vec::with_capacity(list.len());
        for (index, item) in list.drain(..).enumerate() {
            last = place(&item).unwrap_or(last);
            keyed.push((last, index, item));
        }
        keyed.sort_by_key(|(place, index, _)| (*place, *index));
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
        let old = json!({"finalizers": ["a", "b"]});
        let patch = json!({"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]});
        assert_eq!(merged(old, patch), json!({"finalizers": ["b", "c"]}));
    }

    #[test]
    fn a_missing_key_is_an_error() {
        let error = merge("Pod", &mut json!({}), &json!({"containers": [{"image": "x"}]})).unwrap_err();
        assert_eq!(error.code, 400);
    }
}
