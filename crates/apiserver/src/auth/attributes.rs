//! What is asked, as the rules about users see it.

use crate::auth::User;
use crate::error::ApiError;

/// One question: may a user do this?
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, or any other word.
    pub(crate) verb: String,
    pub(crate) wanted: Wanted,
}

/// To what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    Object(Place),
    /// A path that is no object's, such as `/version`.
    Path(String),
}

/// Objects of a kind, or one of them, or a part of one; what is not said is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) group: String,
    pub(crate) resource: String,
    /// The subresource.
    pub(crate) part: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Place {
    /// The resource with its subresource: `pods/status`.
    pub(crate) fn full(&self) -> String {
        if self.part.is_empty() { self.resource.clone() } else { format!("{}/{}", self.resource, self.part) }
    }
}

impl Attributes {
    /// A verb on an object.
    pub(crate) fn object(verb: &str, place: Place) -> Self {
        Self { verb: verb.to_owned(), wanted: Wanted::Object(place) }
    }

    /// The error of who may not, in Kubernetes' words; `reason` may be empty.
    pub(crate) fn refusal(&self, user: &User, reason: &str) -> ApiError {
        let (name, verb) = (&user.name, &self.verb);
        let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        let place = match &self.wanted {
            Wanted::Path(path) => {
                let message = format!("forbidden: User {name:?} cannot {verb} path {path:?}{why}");
                return ApiError::new(403, "Forbidden", message);
            }
            Wanted::Object(place) => place,
        };
        let scope = match place.namespace.as_str() {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        let (resource, group) = (place.full(), &place.group);
        let rule =
            format!("User {name:?} cannot {verb} resource {resource:?} in API group {group:?} {scope}{why}");
        let kind = match group.as_str() {
            "" => place.resource.clone(),
            group => format!("{}.{group}", place.resource),
        };
        let one = if place.name.is_empty() { String::new() } else { format!(" {:?}", place.name) };
        let mut error = ApiError::new(403, "Forbidden", format!("{kind}{one} is forbidden: {rule}"));
        let mut details = serde_json::json!({"kind": place.resource});
        for (field, value) in [("name", &place.name), ("group", group)] {
            if !value.is_empty() {
                details[field] = serde_json::json!(value);
            }
        }
        *error.details = details;
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_kubernetes_words() {
        let user = User::known("x", vec![]);
        let mut place = Place { resource: "pods".into(), namespace: "y".into(), ..Place::default() };
        let says = |place: &Place| Attributes::object("list", place.clone()).refusal(&user, "").message;
        assert_eq!(
            says(&place),
            r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "y""#
        );
        (place.group, place.name, place.part) = ("apps".into(), "a".into(), "scale".into());
        place.namespace = String::new();
        assert_eq!(
            says(&place),
            r#"pods.apps "a" is forbidden: User "x" cannot list resource "pods/scale" in API group "apps" at the cluster scope"#
        );
        let path = Attributes { verb: "get".into(), wanted: Wanted::Path("/metrics".into()) };
        assert_eq!(path.refusal(&user, "").message, r#"forbidden: User "x" cannot get path "/metrics""#);
    }
}
