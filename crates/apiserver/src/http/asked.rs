//! A request as a question to the rules about users.

use http::Method;
use http::request::Parts;

use super::path::{Path, Target};
use super::query::Query;
use crate::auth::{Attributes, Place, Wanted};

/// What a request wants to do. A path that is not known is asked for by its text.
pub(super) fn of(parts: &Parts, path: Option<&Path>, query: &Query) -> Attributes {
    match path {
        Some(Path::Object(target)) => object(&parts.method, target, query),
        _ => {
            let segments = parts.uri.path().split('/').filter(|s| !s.is_empty());
            let path = segments.fold(String::new(), |all, segment| all + "/" + segment);
            let path = if path.is_empty() { "/".to_owned() } else { path };
            Attributes { verb: parts.method.as_str().to_lowercase(), wanted: Wanted::Path(path) }
        }
    }
}

fn object(method: &Method, target: &Target, query: &Query) -> Attributes {
    let one = target.name.is_some();
    let verb = match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if one => "delete",
        Method::DELETE => "deletecollection",
        Method::GET | Method::HEAD if target.watch => "watch",
        Method::GET | Method::HEAD if one => "get",
        Method::GET | Method::HEAD if query.flag("watch") => "watch",
        Method::GET | Method::HEAD => "list",
        _ => "",
    };
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    let mut place = Place {
        group: target.group.clone(),
        resource: target.plural.clone(),
        part: text(&target.part),
        namespace: text(&target.namespace),
        name: text(&target.name),
    };
    if place.resource == "namespaces" && place.group.is_empty() {
        // A namespace is in itself: a role in it may give rights to it.
        place.namespace.clone_from(&place.name);
    }
    if !one && matches!(verb, "list" | "watch" | "deletecollection") {
        place.name = named(query).unwrap_or_default().to_owned();
    }
    Attributes::object(verb, place)
}

/// The only name that a field selector lets through.
fn named(query: &Query) -> Option<&str> {
    let mut terms = query.get("fieldSelector")?.split(',');
    terms.find_map(|term| {
        let (field, value) = term.split_once('=')?;
        let value = value.strip_prefix('=').unwrap_or(value);
        (field == "metadata.name" && !value.is_empty()).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, uri: &str) -> Attributes {
        let (parts, ()) = http::Request::builder().method(method).uri(uri).body(()).unwrap().into_parts();
        let path = super::super::path::parse(parts.uri.path()).ok();
        of(&parts, path.as_ref(), &Query::parse(parts.uri.query().unwrap_or_default()).unwrap())
    }

    #[test]
    fn verbs_and_places() {
        for (method, uri, verb, full, namespace, name) in [
            ("GET", "/api/v1/pods", "list", "pods", "", ""),
            ("GET", "/api/v1/namespaces/a/pods?watch=1", "watch", "pods", "a", ""),
            ("GET", "/api/v1/namespaces/a/pods/p", "get", "pods", "a", "p"),
            ("GET", "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dp", "list", "pods", "a", "p"),
            ("PATCH", "/api/v1/namespaces/a/pods/p/status", "patch", "pods/status", "a", "p"),
            ("DELETE", "/api/v1/namespaces/a/pods", "deletecollection", "pods", "a", ""),
            ("PUT", "/api/v1/namespaces/a", "update", "namespaces", "a", "a"),
            ("POST", "/apis/apps/v1/namespaces/a/deployments", "create", "deployments", "a", ""),
        ] {
            let Attributes { verb: got, wanted: Wanted::Object(place) } = asked(method, uri) else {
                panic!()
            };
            assert_eq!((got.as_str(), place.full().as_str()), (verb, full), "{method} {uri}");
            assert_eq!((place.namespace.as_str(), place.name.as_str()), (namespace, name), "{method} {uri}");
        }
        for (uri, path) in [("//version/", "/version"), ("/", "/"), ("/nothing/at/all", "/nothing/at/all")] {
            assert_eq!(asked("GET", uri).wanted, Wanted::Path(path.into()), "{uri}");
        }
    }
}
