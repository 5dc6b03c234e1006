//! Label and field selectors.

use std::borrow::Cow;

use serde_json::Value;

use crate::error::ApiError;
use crate::resource::Resource;
use crate::storage::Object;

/// Which objects are wanted.
#[derive(Debug, Default, Clone)]
pub(super) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(String, String, bool)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
}

impl Selector {
    pub(super) fn parse(r: &Resource, labels: &str, fields: &str) -> Result<Self, ApiError> {
        Ok(Self { labels: parse_labels(labels)?, fields: parse_fields(r, fields)? })
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
    match path.split('.').fold(object, |v, part| &v[part]) {
        Value::String(s) => s.clone(),
        Value::Null if path == "spec.hostNetwork" => "false".to_owned(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

impl Requirement {
    fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        match self {
            Self::In(key, values) => label(key).is_some_and(|l| values.iter().any(|v| v == l)),
            Self::NotIn(key, values) => label(key).is_none_or(|l| values.iter().all(|v| v != l)),
            Self::Exists(key) => label(key).is_some(),
            Self::Missing(key) => label(key).is_none(),
        }
    }
}

fn parse_labels(text: &str) -> Result<Vec<Requirement>, ApiError> {
    let mut out = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (requirement, after) = parse_requirement(rest).ok_or_else(|| {
            ApiError::bad_request(format!(
                "unable to parse requirement: {rest:?} in the label selector {text:?}"
            ))
        })?;
        out.push(requirement);
        rest = match after.trim_start() {
            "" => "",
            more => more.strip_prefix(',').ok_or_else(|| {
                ApiError::bad_request(format!("expected ',' before {more:?} in the label selector {text:?}"))
            })?,
        }
        .trim_start();
    }
    Ok(out)
}

fn parse_requirement(text: &str) -> Option<(Requirement, &str)> {
    if let Some(rest) = text.strip_prefix('!') {
        let (key, rest) = word(rest)?;
        return Some((Requirement::Missing(key), rest));
    }
    let (key, rest) = word(text)?;
    let after = rest.trim_start();
    if let Some(rest) = after.strip_prefix("!=") {
        let (value, rest) = value(rest);
        return Some((Requirement::NotIn(key, vec![value]), rest));
    }
    if let Some(rest) = after.strip_prefix("==").or_else(|| after.strip_prefix('=')) {
        let (value, rest) = value(rest);
        return Some((Requirement::In(key, vec![value]), rest));
    }
    if after.is_empty() || after.starts_with(',') {
        return Some((Requirement::Exists(key), after));
    }
    let (operator, rest) = word(after)?;
    let (values, rest) = set(rest.trim_start())?;
    match operator.as_str() {
        "in" => Some((Requirement::In(key, values), rest)),
        "notin" => Some((Requirement::NotIn(key, values), rest)),
        _ => None,
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/')
}

fn word(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start();
    let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
    (end > 0).then(|| (text[..end].to_owned(), &text[end..]))
}

/// A value may be empty.
fn value(text: &str) -> (String, &str) {
    word(text).unwrap_or_else(|| (String::new(), text.trim_start()))
}

fn set(text: &str) -> Option<(Vec<String>, &str)> {
    let (inside, rest) = text.strip_prefix('(')?.split_once(')')?;
    let values: Vec<String> = inside.split(',').map(|v| v.trim().to_owned()).collect();
    values.iter().all(|v| v.chars().all(is_word)).then_some((values, rest))
}

fn parse_fields(r: &Resource, text: &str) -> Result<Vec<(String, String, bool)>, ApiError> {
    let mut out = Vec::new();
    for term in text.split(',').map(str::trim).filter(|t| !t.is_empty()) {
        let (path, value, equal) = if let Some((path, value)) = term.split_once("!=") {
            (path, value, false)
        } else if let Some((path, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
            (path, value, true)
        } else {
            return Err(ApiError::bad_request(format!("invalid field selector {text:?}: {term:?} has no =")));
        };
        if !selectable(r, path) {
            return Err(ApiError::bad_request(format!(
                "Unable to find {:?} that match label selector \"\", field selector {text:?}: field label not supported: {path}",
                r.plural
            )));
        }
        out.push((path.to_owned(), value.to_owned(), equal));
    }
    Ok(out)
}

/// The fields that Kubernetes lets select by.
fn selectable(r: &Resource, path: &str) -> bool {
    let of_kind: &[&str] = match (&*r.group, &*r.plural) {
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        ("", "nodes") => &["spec.unschedulable"],
        ("", "namespaces") => &["status.phase"],
        ("", "secrets") => &["type"],
        ("", "services") => &["spec.clusterIP", "spec.type"],
        ("apps", "replicasets") | ("", "replicationcontrollers") => &["status.replicas"],
        ("batch", "jobs") => &["status.successful"],
        ("", "events") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "type",
            "reportingComponent",
        ],
        _ => &[],
    };
    path == "metadata.name" || (path == "metadata.namespace" && r.namespaced) || of_kind.contains(&path)
}

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
