//! Label and field selectors.

use std::borrow::Cow;

use serde_json::Value;

use super::labels::{self, Requirement};
use crate::error::ApiError;
use crate::resource::Resource;
use crate::storage::Object;

/// Which objects are wanted.
#[derive(Debug, Default, Clone)]
pub(super) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(String, String, bool)>,
}

impl Selector {
    pub(super) fn parse(r: &Resource, labels: &str, fields: &str) -> Result<Self, ApiError> {
        let labels = labels::parse(labels).map_err(ApiError::bad_request)?;
        Ok(Self { labels, fields: parse_fields(r, fields)? })
    }

    /// Adds the wish for one name.
    pub(super) fn named(mut self, name: &str) -> Self {
        self.fields.push(("metadata.name".into(), name.into(), true));
        self
    }

    /// What tells whether a stored object is wanted; None when all are.
    pub(super) fn filter(&self) -> Option<impl Fn(&str, &Object) -> bool> {
        let some = !self.labels.is_empty() || !self.fields.is_empty();
        some.then_some(|key: &str, object: &Object| self.selects(key, object))
    }

    /// The node of the pods that are wanted, if that is asked.
    pub(super) fn node(&self) -> Option<&str> {
        let asked = self
            .fields
            .iter()
            .find(|(path, node, equal)| path == "spec.nodeName" && *equal && !node.is_empty());
        asked.map(|(_, node, _)| node.as_str())
    }

    /// Whether a stored object is wanted.
    pub(super) fn selects(&self, key: &str, object: &Object) -> bool {
        if !self.labels.iter().all(|r| r.matches(|label| object.label(label))) {
            return false;
        }
        let mut parsed = None;
        self.fields.iter().all(|(path, wanted, equal)| {
            // These are at hand: most lists and watches with fields ask for one of them.
            let found = match path.as_str() {
                "metadata.name" => Cow::Borrowed(key.rsplit('/').next().unwrap_or_default()),
                "spec.nodeName" => Cow::Borrowed(object.node().unwrap_or_default()),
                other => Cow::Owned(field(parsed.get_or_insert_with(|| object.parse()), other)),
            };
            (found == *wanted) == *equal
        })
    }

    #[cfg(test)]
    pub(super) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels.iter().all(|r| r.matches(|key| labels.get(key).and_then(Value::as_str)))
            && self.fields.iter().all(|(path, wanted, equal)| (field(object, path) == *wanted) == *equal)
    }
}

/// The text of a field; nothing where there is none.
fn field(object: &Value, path: &str) -> String {
    let found = match path {
        // The component that an event comes from, which newer ones tell elsewhere.
        "source" => match &object["source"]["component"] {
            Value::String(text) if !text.is_empty() => return text.clone(),
            _ => &object["reportingComponent"],
        },
        "status.podIPs" => &Value::Null,
        "status.successful" => &object["status"]["succeeded"],
        path => path.split('.').fold(object, |v, part| &v[part]),
    };
    match found {
        Value::String(s) => s.clone(),
        Value::Null if matches!(path, "spec.hostNetwork" | "spec.unschedulable") => "false".to_owned(),
        Value::Null if matches!(path, "status.replicas" | "status.successful") => "0".to_owned(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn parse_fields(r: &Resource, text: &str) -> Result<Vec<(String, String, bool)>, ApiError> {
    let mut out = Vec::new();
    for term in terms(text) {
        let at =
            term.find(['=', '!']).filter(|at| term[*at..].starts_with('=') || term[*at..].starts_with("!="));
        let (path, rest) = at.map_or((term, ""), |at| term.split_at(at));
        let (value, equal) =
            match (rest.strip_prefix("!="), rest.strip_prefix("==").or(rest.strip_prefix('='))) {
                (Some(value), _) => (value, false),
                (None, Some(value)) => (value, true),
                (None, None) => {
                    let message = format!("invalid selector: '{text}'; can't understand '{term}'");
                    return Err(ApiError::bad_request(message));
                }
            };
        let value = unescape(value).map_err(ApiError::bad_request)?;
        let path = field_of(r, path).map_err(ApiError::bad_request)?;
        out.push((path, value, equal));
    }
    Ok(out)
}

/// The terms between commas; a backslash takes a comma's meaning away.
fn terms(text: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    let split = text.split(move |c: char| {
        let ends = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    split.filter(|term| !term.is_empty())
}

/// A value without its backslashes.
fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(c) = letters.next() {
        match c {
            '\\' => match letters.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                other => {
                    let sequence: String = std::iter::once('\\').chain(other).collect();
                    return Err(format!("invalid field selector: invalid escape sequence: {sequence}"));
                }
            },
            ',' | '=' => return Err(format!("invalid field selector: unescaped character in value: {c}")),
            c => out.push(c),
        }
    }
    Ok(out)
}

/// The path of a field that Kubernetes lets select by.
fn field_of(r: &Resource, path: &str) -> Result<String, String> {
    let meta: &[&str] = &["metadata.name", "metadata.namespace"];
    let (known, own): (&[&str], &[&str]) = match (&*r.group, &*r.plural) {
        ("", "pods") => (meta, &POD_FIELDS),
        ("", "nodes") => (&meta[..1], &["spec.unschedulable"]),
        ("", "namespaces") => (&meta[..1], &["status.phase"]),
        ("", "secrets") => (meta, &["type"]),
        ("", "services") => (meta, &["spec.clusterIP", "spec.type"]),
        ("", "replicationcontrollers") => (meta, &["status.replicas"]),
        ("batch", "jobs") => (meta, &["status.successful"]),
        ("", "events") => (meta, &EVENT_FIELDS),
        ("events.k8s.io", "events") => {
            let core = REGARDING.iter().find(|(name, _)| *name == path).map(|(_, core)| (*core).to_owned());
            let core = core.or_else(|| meta.contains(&path).then(|| path.to_owned()));
            return core.ok_or_else(|| format!("field label not supported: {path}"));
        }
        _ if r.schema.is_some() => {
            let own = r.selectable.split_whitespace().any(|field| field == path);
            return match own || meta[..1 + usize::from(r.namespaced)].contains(&path) {
                true => Ok(path.to_owned()),
                false => Err(format!("field label not supported: {path}")),
            };
        }
        _ => {
            return match meta.contains(&path) {
                true => Ok(path.to_owned()),
                false => Err(format!(
                    "\"{path}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                )),
            };
        }
    };
    match path {
        "spec.host" if r.plural == "pods" => Ok("spec.nodeName".to_owned()),
        path if known.contains(&path) || own.contains(&path) => Ok(path.to_owned()),
        path if r.plural == "jobs" => Err(format!("field label {path:?} not supported for Job")),
        path => Err(format!("field label not supported: {path}")),
    }
}

const POD_FIELDS: [&str; 9] = [
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.podIPs",
    "status.nominatedNodeName",
];
const EVENT_FIELDS: [&str; 11] = [
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];
/// What the fields of events.k8s.io are called in the core group, as which events are kept.
const REGARDING: [(&str, &str); 10] = [
    ("regarding.kind", "involvedObject.kind"),
    ("regarding.namespace", "involvedObject.namespace"),
    ("regarding.name", "involvedObject.name"),
    ("regarding.uid", "involvedObject.uid"),
    ("regarding.apiVersion", "involvedObject.apiVersion"),
    ("regarding.resourceVersion", "involvedObject.resourceVersion"),
    ("regarding.fieldPath", "involvedObject.fieldPath"),
    ("reason", "reason"),
    ("reportingController", "reportingComponent"),
    ("type", "type"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::{CONFIG_MAPS, PODS};
    use serde_json::json;

    fn selects(labels: &str, object: &Value) -> bool {
        Selector::parse(&PODS, labels, "").unwrap().matches(object)
    }

    #[test]
    fn labels() {
        let pod = json!({"metadata": {"labels": {"app": "web", "tier": "front", "empty": ""}}});
        for yes in [
            "",
            "app=web",
            "app==web,tier",
            "app in (web, db)",
            "tier notin (back),!x",
            "x!=y",
            "empty=",
            "x notin (a)",
        ] {
            assert!(selects(yes, &pod), "{yes}");
        }
        for no in ["app=db", "app!=web", "!app", "app notin (web)", "x in (a)", "x"] {
            assert!(!selects(no, &pod), "{no}");
        }
        for bad in ["=", "app in web", "app web", "a=b c", "in (", "a in (b", "a=b,,", "(", "a near (b)"] {
            assert!(Selector::parse(&PODS, bad, "").is_err(), "{bad}");
        }
    }

    #[test]
    fn fields() {
        let pod =
            json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}});
        let yes =
            Selector::parse(&PODS, "", "spec.nodeName=n1,status.phase!=Failed,metadata.name==a").unwrap();
        assert!(yes.matches(&pod));
        assert!(!Selector::parse(&PODS, "", "spec.nodeName=").unwrap().matches(&pod));
        assert!(Selector::parse(&PODS, "", "spec.nodeName").is_err());
        assert!(Selector::parse(&CONFIG_MAPS, "", "spec.nodeName=n1").is_err());
    }
}
