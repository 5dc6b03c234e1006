//! One rule of a role: what it allows, and which other rules it covers.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::auth::attributes::{Attributes, Place, Wanted};

/// The word for everything.
pub(super) const ALL: &str = "*";

/// A `PolicyRule` of rbac.authorization.k8s.io/v1.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Rule {
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub(crate) urls: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) api_groups: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) resources: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) resource_names: Vec<String>,
    pub(crate) verbs: Vec<String>,
}

impl Rule {
    /// The rules of a Role or ClusterRole; one that cannot be read allows nothing.
    pub(super) fn all_of(role: &Value) -> Vec<Rule> {
        let rules = role["rules"].as_array().into_iter().flatten();
        rules.filter_map(|rule| Rule::deserialize(rule).ok()).collect()
    }

    pub(crate) fn allows(&self, asked: &Attributes) -> bool {
        has(&self.verbs, &asked.verb)
            && match &asked.wanted {
                Wanted::Path(path) => self.urls.iter().any(|url| url_covers(url, path)),
                Wanted::Object(place) => self.allows_object(place),
            }
    }

    fn allows_object(&self, place: &Place) -> bool {
        has(&self.api_groups, &place.group)
            && self.resources.iter().any(|r| resource_covers(r, &place.resource, &place.part))
            && (self.resource_names.is_empty() || self.resource_names.contains(&place.name))
    }

    /// The rule in pieces of one verb, one group, one resource, one name, or one verb and one path.
    fn pieces(&self) -> Vec<Rule> {
        let one = |s: &String| vec![s.clone()];
        let names: Vec<Vec<String>> = match self.resource_names.as_slice() {
            [] => vec![Vec::new()],
            names => names.iter().map(one).collect(),
        };
        let mut pieces = Vec::new();
        for verbs in self.verbs.iter().map(one) {
            for (group, resource) in
                self.api_groups.iter().flat_map(|g| self.resources.iter().map(move |r| (g, r)))
            {
                pieces.extend(names.iter().map(|names| Rule {
                    api_groups: one(group),
                    resources: one(resource),
                    resource_names: names.clone(),
                    verbs: verbs.clone(),
                    ..Rule::default()
                }));
            }
            let path = |url| Rule { urls: one(url), verbs: verbs.clone(), ..Rule::default() };
            pieces.extend(self.urls.iter().map(path));
        }
        pieces
    }

    /// Whether it allows all that a piece allows.
    fn covers(&self, piece: &Rule) -> bool {
        let resource = |full: &String| {
            let (resource, part) = full.split_once('/').unwrap_or((full, ""));
            self.resources.iter().any(|own| own == full || resource_covers(own, resource, part))
        };
        let named = self.resource_names.is_empty()
            || (!piece.resource_names.is_empty()
                && piece.resource_names.iter().all(|n| self.resource_names.contains(n)));
        piece.verbs.iter().all(|v| has(&self.verbs, v))
            && piece.api_groups.iter().all(|g| has(&self.api_groups, g))
            && piece.resources.iter().all(resource)
            && piece.urls.iter().all(|url| self.urls.iter().any(|own| url_covers(own, url)))
            && named
    }

    /// As Kubernetes prints it in an error.
    fn compact(&self) -> String {
        let fields = [
            ("NonResourceURLs", &self.urls),
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let texts = fields.iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| {
            let quoted: Vec<String> = list.iter().map(|s| format!("{s:?}")).collect();
            format!("{name}:[{}]", quoted.join(" "))
        });
        format!("{{{}}}", texts.collect::<Vec<_>>().join(", "))
    }
}

/// What `rules` would give beyond what `held` has: a line for each, empty if there is nothing.
pub(super) fn beyond(held: &[Rule], rules: &[Rule]) -> String {
    let missing =
        rules.iter().flat_map(Rule::pieces).filter(|piece| !held.iter().any(|own| own.covers(piece)));
    let mut merged: Vec<Rule> = Vec::new();
    for mut piece in missing {
        let same = |other: &&mut Rule| {
            (&other.urls, &other.api_groups, &other.resources, &other.resource_names)
                == (&piece.urls, &piece.api_groups, &piece.resources, &piece.resource_names)
        };
        match merged.iter_mut().find(same) {
            Some(other) => other.verbs.append(&mut piece.verbs),
            None => merged.push(piece),
        }
    }
    merged.iter().map(Rule::compact).collect::<Vec<_>>().join("\n")
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|own| own == ALL || own == wanted)
}

fn resource_covers(own: &str, resource: &str, part: &str) -> bool {
    match own.split_once('/') {
        _ if own == ALL => true,
        None => part.is_empty() && own == resource,
        Some((ALL, of)) => !part.is_empty() && of == part,
        Some((kind, of)) => kind == resource && of == part,
    }
}

fn url_covers(own: &str, path: &str) -> bool {
    match own.strip_suffix('*') {
        Some(start) => path.starts_with(start),
        None => own == path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(value: Value) -> Vec<Rule> {
        Rule::all_of(&json!({ "rules": value }))
    }

    fn asks(verb: &str, full: &str, name: &str) -> Attributes {
        let (resource, part) = full.split_once('/').unwrap_or((full, ""));
        let place =
            Place { resource: resource.into(), part: part.into(), name: name.into(), ..Place::default() };
        Attributes::object(verb, place)
    }

    #[test]
    fn a_rule_allows_what_it_names() {
        let rule =
            &rules(json!([{"apiGroups": [""], "resources": ["pods", "*/scale"], "verbs": ["get"]}]))[0];
        assert!(rule.allows(&asks("get", "pods", "a")) && rule.allows(&asks("get", "rs/scale", "a")));
        for (verb, full) in [("list", "pods"), ("get", "pods/status"), ("get", "nodes"), ("get", "scale")] {
            assert!(!rule.allows(&asks(verb, full, "")), "{verb} {full}");
        }
        let named =
            &rules(json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"], "resourceNames": ["a"]}]))
                [0];
        assert!(named.allows(&asks("get", "pods/status", "a")));
        assert!(!named.allows(&asks("get", "pods", "b")) && !named.allows(&asks("list", "pods", "")));
        let path = |p: &str| Attributes { verb: "get".into(), wanted: Wanted::Path(p.into()) };
        let urls = &rules(json!([{"nonResourceURLs": ["/healthz", "/apis/*"], "verbs": ["get"]}]))[0];
        assert!(urls.allows(&path("/healthz")) && urls.allows(&path("/apis/apps/v1")));
        assert!(!urls.allows(&path("/healthz/x")) && !urls.allows(&path("/apis")));
        assert!(!urls.allows(&asks("get", "pods", "")));
    }

    #[test]
    fn what_goes_beyond_is_told() {
        let held = rules(json!([
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
            {"apiGroups": ["apps"], "resources": ["*"], "verbs": ["*"]},
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": ["a"]},
            {"nonResourceURLs": ["/x/*"], "verbs": ["get"]},
        ]));
        for within in [
            json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]),
            json!([{"apiGroups": ["apps"], "resources": ["deployments/scale", "*"], "verbs": ["update"]}]),
            json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": ["a"]}]),
            json!([{"nonResourceURLs": ["/x/y", "/x/*"], "verbs": ["get"]}]),
        ] {
            assert_eq!(beyond(&held, &rules(within.clone())), "", "{within}");
        }
        let more = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "create", "*"]}]);
        assert_eq!(
            beyond(&held, &rules(more)),
            r#"{APIGroups:[""], Resources:["pods"], Verbs:["create" "*"]}"#
        );
        for more in [
            json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]),
            json!([{"apiGroups": [""], "resources": ["*"], "verbs": ["get"]}]),
            json!([{"nonResourceURLs": ["/*"], "verbs": ["get"]}]),
        ] {
            assert_ne!(beyond(&held, &rules(more.clone())), "", "{more}");
        }
    }
}
