//! Who owns which fields of an object: `metadata.managedFields`.

use serde_json::{Map, Value, json};

use super::set::FieldSet;

/// Managers by Update in one object; the oldest beyond are merged into one, as kube-apiserver does.
const MAX_UPDATERS: usize = 10;
const ANCIENT: &str = "ancient-changes";

/// How a manager came to own its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    /// By server-side apply.
    Apply,
    /// By any other write.
    Update,
}

/// Who writes: what tells one entry from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manager {
    pub(crate) name: String,
    pub(crate) operation: Operation,
    /// Empty for the object itself.
    pub(crate) subresource: String,
    pub(crate) api_version: String,
}

/// One manager's fields.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) manager: Manager,
    pub(crate) time: Option<String>,
    pub(crate) fields: FieldSet,
}

/// All managers of an object.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Managed(pub(crate) Vec<Entry>);

impl Manager {
    /// Appliers keep their entry when they move to another version.
    pub(super) fn is(&self, other: &Manager) -> bool {
        let version = self.operation == Operation::Apply || self.api_version == other.api_version;
        version
            && self.name == other.name
            && self.operation == other.operation
            && self.subresource == other.subresource
    }

    /// As conflicts name it.
    pub(super) fn shown(&self) -> String {
        let mut text = json!(self.name).to_string();
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {}", json!(self.subresource)));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

impl Managed {
    /// Reads `metadata.managedFields`; None when it is malformed.
    pub(crate) fn read(list: &Value) -> Option<Self> {
        match list {
            Value::Null => Some(Self::default()),
            Value::Array(list) => Some(Self(list.iter().map(read_entry).collect::<Option<_>>()?)),
            _ => None,
        }
    }

    /// As `metadata.managedFields`: appliers first, then by time; null when there is nobody.
    pub(crate) fn to_json(&self) -> Value {
        let mut entries: Vec<&Entry> = self.0.iter().filter(|e| !e.fields.is_empty()).collect();
        entries.sort_by(|a, b| {
            let key = |e: &Entry| (e.manager.operation, e.time.clone(), e.manager.name.clone());
            key(a).cmp(&key(b))
        });
        if entries.is_empty() { Value::Null } else { entries.into_iter().map(entry_json).collect() }
    }

    /// The fields that a manager has now.
    pub(crate) fn fields(&self, manager: &Manager) -> Option<&FieldSet> {
        self.0.iter().find(|e| e.manager.is(manager)).map(|e| &e.fields)
    }

    /// Gives a manager these fields and no others.
    pub(crate) fn set(&mut self, manager: &Manager, fields: FieldSet, now: &str) {
        let entry = Entry { manager: manager.clone(), time: Some(now.to_owned()), fields };
        match self.0.iter_mut().find(|e| e.manager.is(manager)) {
            Some(old) if old.fields == entry.fields => {}
            Some(old) => *old = entry,
            None => self.0.push(entry),
        }
    }

    /// All fields that anybody has.
    pub(crate) fn union(&self) -> FieldSet {
        let mut all = FieldSet::default();
        self.0.iter().for_each(|e| all.add(&e.fields));
        all
    }

    /// Merges the oldest updaters where there are too many.
    pub(crate) fn cap(&mut self) {
        self.0.retain(|e| !e.fields.is_empty());
        let mut updaters: Vec<usize> =
            (0..self.0.len()).filter(|i| self.0[*i].manager.operation == Operation::Update).collect();
        if updaters.len() <= MAX_UPDATERS {
            return;
        }
        updaters.sort_by(|a, b| self.0[*a].time.cmp(&self.0[*b].time));
        updaters.truncate(updaters.len() - MAX_UPDATERS + 1);
        let mut ancient: Option<Entry> = None;
        for index in &updaters {
            let entry = &self.0[*index];
            match &mut ancient {
                Some(sum) => sum.fields.add(&entry.fields),
                None => ancient = Some(entry.clone()),
            }
        }
        let mut index = 0;
        self.0.retain(|_| {
            index += 1;
            !updaters.contains(&(index - 1))
        });
        if let Some(mut sum) = ancient {
            sum.manager.name = ANCIENT.to_owned();
            sum.manager.subresource.clear();
            self.0.push(sum);
        }
    }
}

fn read_entry(entry: &Value) -> Option<Entry> {
    let text = |field: &str| match &entry[field] {
        Value::Null => Some(String::new()),
        Value::String(text) => Some(text.clone()),
        _ => None,
    };
    let operation = match entry["operation"].as_str() {
        Some("Apply") => Operation::Apply,
        Some("Update") => Operation::Update,
        _ => return None,
    };
    if text("fieldsType")? != "FieldsV1" {
        return None;
    }
    let manager = Manager {
        name: text("manager")?,
        operation,
        subresource: text("subresource")?,
        api_version: text("apiVersion")?,
    };
    let time = Some(text("time")?).filter(|t| !t.is_empty());
    Some(Entry { manager, time, fields: FieldSet::from_json(&entry["fieldsV1"])? })
}

fn entry_json(entry: &Entry) -> Value {
    let manager = &entry.manager;
    let operation = if manager.operation == Operation::Apply { "Apply" } else { "Update" };
    let mut map = Map::new();
    map.insert("manager".into(), json!(manager.name));
    map.insert("operation".into(), json!(operation));
    map.insert("apiVersion".into(), json!(manager.api_version));
    if let Some(time) = &entry.time {
        map.insert("time".into(), json!(time));
    }
    map.insert("fieldsType".into(), json!("FieldsV1"));
    map.insert("fieldsV1".into(), entry.fields.to_json());
    if !manager.subresource.is_empty() {
        map.insert("subresource".into(), json!(manager.subresource));
    }
    Value::Object(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn updater(index: usize) -> Value {
        json!({"manager": format!("m{index}"), "operation": "Update", "apiVersion": "v1",
            "time": format!("2026-01-01T00:00:{index:02}Z"), "fieldsType": "FieldsV1",
            "fieldsV1": {format!("f:x{index}"): {}}})
    }

    #[test]
    fn entries_come_back_as_they_were() {
        let list = json!([
            {"manager": "a", "operation": "Apply", "apiVersion": "apps/v1", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:spec": {"f:replicas": {}}}, "subresource": "scale", "time": "2026-01-01T00:00:00Z"},
            updater(1)]);
        assert_eq!(Managed::read(&list).unwrap().to_json(), list);
        for bad in [json!(1), json!([{}]), json!([{"operation": "Apply"}])] {
            assert_eq!(Managed::read(&bad), None, "{bad}");
        }
    }

    #[test]
    fn the_oldest_updaters_become_one() {
        let list: Vec<_> = (0..15).map(updater).collect();
        let mut managed = Managed::read(&json!(list)).unwrap();
        let all = managed.union();
        managed.cap();
        assert_eq!(managed.0.len(), MAX_UPDATERS);
        assert_eq!(managed.union(), all);
        let ancient = managed.0.iter().find(|e| e.manager.name == ANCIENT).unwrap();
        assert_eq!(ancient.fields.paths().len(), 6);
    }
}
