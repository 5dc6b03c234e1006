//! Discovery in one answer: `APIGroupDiscoveryList`, made from the plain lists.

use http::header;
use serde_json::{Map, Value, json};

use crate::http::Call;

/// A name, and for each version its name and its plain resources.
pub(super) type Group = (String, Vec<(String, Vec<Value>)>);

/// A form of the answer that a client may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Several answers: groups, then kinds.
    Plain,
    V2,
    V2Beta1,
}

impl Form {
    /// The first form in the client's list that is known here.
    pub(super) fn wanted(call: &Call) -> Self {
        let accept = call.headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        accept.split(',').find_map(Self::of).unwrap_or(Self::Plain)
    }

    fn of(media: &str) -> Option<Self> {
        let mut parts = media.split(';').map(str::trim);
        let kind = parts.next()?;
        let parameters: Vec<&str> = parts.collect();
        let has = |p: &str| parameters.contains(&p);
        match kind {
            "application/json" if has("g=apidiscovery.k8s.io") && has("as=APIGroupDiscoveryList") => {
                [("v=v2", Self::V2), ("v=v2beta1", Self::V2Beta1)]
                    .into_iter()
                    .find_map(|(p, form)| has(p).then_some(form))
            }
            "application/json" | "application/*" | "*/*"
                if !parameters.iter().any(|p| p.starts_with("as=")) =>
            {
                Some(Self::Plain)
            }
            _ => None,
        }
    }

    pub(super) fn media(self) -> &'static str {
        match self {
            Self::Plain => "application/json",
            Self::V2 => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Self::V2Beta1 => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        }
    }

    /// The list of groups.
    pub(super) fn list(self, groups: Vec<Group>) -> Value {
        let version = if self == Self::V2 { "v2" } else { "v2beta1" };
        let one = |(name, versions): Group| {
            let of = |(version, resources): (String, Vec<Value>)| {
                json!({"version": version, "freshness": "Current",
                    "resources": resources_of(&name, &version, &resources)})
            };
            let mut metadata = json!({});
            if !name.is_empty() {
                metadata["name"] = json!(name);
            }
            json!({"metadata": metadata, "versions": versions.into_iter().map(of).collect::<Vec<_>>()})
        };
        json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
            "metadata": {}, "items": groups.into_iter().map(one).collect::<Vec<_>>()})
    }
}

/// The resources of a version, each with its subresources, from the plain list.
fn resources_of(group: &str, version: &str, plain: &[Value]) -> Vec<Value> {
    let mut out: Vec<Value> = Vec::new();
    for entry in plain {
        let name = entry["name"].as_str().unwrap_or_default();
        let own = |field: &str, instead: &str| entry[field].as_str().unwrap_or(instead).to_owned();
        // As Kubernetes has it, what is in the core group does not say its version.
        let version = if group.is_empty() { "" } else { version };
        let kind =
            json!({"group": own("group", group), "version": own("version", version), "kind": entry["kind"]});
        match name.split_once('/') {
            None => {
                let scope = if entry["namespaced"] == true { "Namespaced" } else { "Cluster" };
                let mut resource = json!({"resource": name, "responseKind": kind, "scope": scope,
                    "singularResource": entry["singularName"], "verbs": entry["verbs"]});
                copy(entry, &mut resource, &["shortNames", "categories"]);
                out.push(resource);
            }
            Some((of, sub)) => {
                let subresource = json!({"subresource": sub, "responseKind": kind, "verbs": entry["verbs"]});
                let parent = out.iter_mut().find(|r| r["resource"] == of).and_then(Value::as_object_mut);
                let list =
                    parent.map(|p: &mut Map<String, Value>| p.entry("subresources").or_insert(json!([])));
                if let Some(Value::Array(list)) = list {
                    list.push(subresource);
                }
            }
        }
    }
    out
}

fn copy(from: &Value, to: &mut Value, fields: &[&str]) {
    for field in fields.iter().filter(|f| !from[**f].is_null()) {
        to[*field] = from[*field].clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_form_counts() {
        let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        assert_eq!(Form::of(v2), Some(Form::V2));
        assert_eq!(Form::of(&v2.replace("v=v2", "v=v2beta1")), Some(Form::V2Beta1));
        assert_eq!(Form::of(&v2.replace("v=v2", "v=v3")), None);
        assert_eq!(Form::of("application/json"), Some(Form::Plain));
        assert_eq!(Form::of("application/json;as=Table"), None);
    }

    #[test]
    fn subresources_go_under_their_resource() {
        let plain = [
            json!({"name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod", "verbs": ["get"],
                "shortNames": ["po"]}),
            json!({"name": "pods/eviction", "namespaced": true, "kind": "Eviction", "group": "policy",
                "version": "v1", "verbs": ["create"]}),
        ];
        let all = resources_of("", "v1", &plain);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0]["responseKind"], json!({"group": "", "version": "", "kind": "Pod"}));
        assert_eq!(all[0]["subresources"][0]["responseKind"]["group"], "policy");
    }
}
