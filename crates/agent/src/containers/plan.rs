//! What the API lacks of the node's containers, and has too much. Pure.

use std::collections::BTreeMap;

use serde_json::Value;
use weft_cni::protocol::record::Record;

use super::pod;

/// One change at the API.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// Create the Pod of a container, then tell its status.
    Create(Box<Record>),
    /// Tell the status of a Pod that is there.
    Status { record: Box<Record>, uid: String },
    /// Remove a Pod whose container is gone.
    Delete { path: String, uid: String },
}

/// What to do so that `pods`, those of the node, are as the containers of `records` want it; and
/// what stands in the way.
pub(super) fn plan(records: &[Record], pods: &[Value]) -> (Vec<Action>, Vec<String>) {
    let wanted = by_pod(records);
    let (mut actions, mut problems) = (Vec::new(), Vec::new());
    let mut present = BTreeMap::new();
    for found in pods {
        let text = |pointer: &str| found.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let key = (text("/metadata/namespace").to_owned(), text("/metadata/name").to_owned());
        let uid = text("/metadata/uid").to_owned();
        let container = found["metadata"]["annotations"][pod::CONTAINER].as_str();
        let record = wanted.get(&key);
        match (container, record) {
            (None, Some(record)) => {
                present.insert(key.clone(), ());
                problems.push(format!(
                    "container {} is not registered: the pod {}/{} is declared otherwise; give one of them another name",
                    record.container_id, key.0, key.1
                ));
            }
            (None, None) => {}
            (Some(id), Some(record)) if id == record.container_id && !is_leaving(found) => {
                present.insert(key, ());
                if !is_told(found, record) {
                    actions.push(Action::Status { record: Box::new((*record).clone()), uid });
                }
            }
            (Some(_), _) => actions.push(Action::Delete { path: path(&key.0, &key.1), uid }),
        }
    }
    let missing = wanted.iter().filter(|(key, _)| !present.contains_key(*key));
    actions.extend(missing.map(|(_, record)| Action::Create(Box::new((*record).clone()))));
    (actions, problems)
}

/// One record for each Pod: of a container with several interfaces the first by name, and of
/// containers of one name the first by ID.
fn by_pod(records: &[Record]) -> BTreeMap<(String, String), &Record> {
    let mut wanted: BTreeMap<(String, String), &Record> = BTreeMap::new();
    for record in records.iter().filter(|record| !record.ips.is_empty()) {
        let held = wanted.entry((record.namespace.clone(), pod::name(record))).or_insert(record);
        if (&record.container_id, &record.ifname) < (&held.container_id, &held.ifname) {
            *held = record;
        }
    }
    wanted
}

pub(super) fn path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods/{name}")
}

fn is_leaving(found: &Value) -> bool {
    found.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null())
}

fn is_told(found: &Value, record: &Record) -> bool {
    let ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    found["status"]["phase"] == "Running"
        && found["status"]["podIPs"] == pod::addresses(&record.ips)
        && found["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(ready))
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use serde_json::json;

    use super::*;

    fn record(id: &str, name: &str) -> Record {
        Record {
            container_id: id.into(),
            ifname: "eth0".into(),
            namespace: "default".into(),
            name: Some(name.into()),
            ips: vec!["10.1.0.2".parse().unwrap()],
            ..Record::default()
        }
    }

    /// The Pod of a record as the API has it when all was told.
    fn told(record: &Record) -> Value {
        let mut found = pod::object(record, "node");
        found["metadata"]["uid"] = json!("u");
        found["status"] = pod::status(record, "u", "2026-01-01T00:00:00Z")["status"].clone();
        found
    }

    #[test]
    fn a_container_is_created_told_and_then_left_alone() {
        let web = record("c1", "web");
        let create = Action::Create(Box::new(web.clone()));
        assert_eq!(plan(from_ref(&web), &[]), (vec![create], vec![]));
        let mut fresh = told(&web);
        fresh["status"] = json!({"phase": "Pending"});
        let status = Action::Status { record: Box::new(web.clone()), uid: "u".into() };
        assert_eq!(plan(from_ref(&web), &[fresh]), (vec![status], vec![]));
        assert_eq!(plan(from_ref(&web), &[told(&web)]), (vec![], vec![]));
    }

    #[test]
    fn what_is_gone_is_deleted_and_what_is_not_ours_is_left() {
        let web = record("c1", "web");
        let delete = Action::Delete { path: path("default", "web"), uid: "u".into() };
        assert_eq!(plan(&[], &[told(&web)]), (vec![delete.clone()], vec![]));
        // A container of the same name came after: the old Pod goes first.
        let (actions, _) = plan(&[record("c2", "web")], &[told(&web)]);
        assert_eq!(actions, [delete.clone(), Action::Create(Box::new(record("c2", "web")))]);
        let mut leaving = told(&web);
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(plan(from_ref(&web), &[leaving]).0, [delete, Action::Create(Box::new(web.clone()))]);
        let mut declared = told(&web);
        declared["metadata"]["annotations"] = json!({});
        assert_eq!(plan(&[], from_ref(&declared)), (vec![], vec![]));
        let (actions, problems) = plan(&[web], &[declared]);
        assert!(
            actions.is_empty() && problems[0].contains("default/web is declared otherwise"),
            "{problems:?}"
        );
    }

    #[test]
    fn several_interfaces_are_one_pod_and_one_without_an_address_is_none() {
        let second =
            Record { ifname: "eth1".into(), ips: vec!["10.2.0.2".parse().unwrap()], ..record("c1", "web") };
        let none = Record { ips: vec![], ..record("c3", "none") };
        let (actions, _) = plan(&[second, record("c1", "web"), none], &[]);
        assert_eq!(actions, [Action::Create(Box::new(record("c1", "web")))]);
    }
}
