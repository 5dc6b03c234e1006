//! The paths of the API.

use crate::error::ApiError;

/// What a path means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// `/healthz` and `/livez`
    Health,
    /// `/readyz`
    Ready,
    Version,
    /// `/`
    Root,
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/G`
    Group(String),
    /// `/api/V` (empty group) or `/apis/G/V`
    Kinds(String, String),
    OpenApiV2,
    /// `/weft/backup`
    Backup,
    /// `/openapi/v3`, or the document of one group and version.
    OpenApiV3(Option<(String, String)>),
    Object(Target),
}

/// Objects of a kind, one of them, or a part of one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) plural: String,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    /// The subresource.
    pub(super) part: Option<String>,
    /// Whether the path itself asks for a watch, as `/api/v1/watch/pods` does.
    pub(super) watch: bool,
}

impl Target {
    pub(super) fn ns(&self) -> Option<&str> {
        self.namespace.as_deref()
    }
}

/// Reads a path; what is not known is 404.
pub(super) fn parse(path: &str) -> Result<Path, ApiError> {
    let path = path.trim_matches('/');
    let parts: Vec<String> =
        path.split('/').filter(|_| !path.is_empty()).map(decode).collect::<Result<_, _>>()?;
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let both = |g: &str, v: &str| (g.to_owned(), v.to_owned());
    Ok(match parts.as_slice() {
        [] => Path::Root,
        ["healthz" | "livez", ..] => Path::Health,
        ["readyz", ..] => Path::Ready,
        ["version"] => Path::Version,
        ["weft", "backup"] => Path::Backup,
        ["openapi", "v2"] => Path::OpenApiV2,
        ["openapi", "v3"] => Path::OpenApiV3(None),
        ["openapi", "v3", "api", v] => Path::OpenApiV3(Some(both("", v))),
        ["openapi", "v3", "apis", g, v] => Path::OpenApiV3(Some(both(g, v))),
        ["api"] => Path::CoreVersions,
        ["apis"] => Path::Groups,
        ["apis", g] => Path::Group((*g).to_owned()),
        ["api", v] => Path::Kinds(String::new(), (*v).to_owned()),
        ["apis", g, v] => Path::Kinds((*g).to_owned(), (*v).to_owned()),
        ["api", v, rest @ ..] => Path::Object(target("", v, rest)?),
        ["apis", g, v, rest @ ..] => Path::Object(target(g, v, rest)?),
        _ => return Err(ApiError::no_such_page()),
    })
}

fn target(group: &str, version: &str, rest: &[&str]) -> Result<Target, ApiError> {
    let own = |s: &&str| Some((**s).to_owned());
    let mut target = Target { group: group.to_owned(), version: version.to_owned(), ..Target::default() };
    let rest = match rest {
        ["watch", rest @ ..] => {
            target.watch = true;
            rest
        }
        rest => rest,
    };
    let rest = match rest {
        // A namespace itself, or its own subresources.
        ["namespaces"] | ["namespaces", _] | ["namespaces", _, "status" | "finalize"] if group.is_empty() => {
            rest
        }
        ["namespaces", ns, rest @ ..] if !rest.is_empty() => {
            // A namespace without a name is all of them.
            target.namespace = own(ns).filter(|ns| !ns.is_empty());
            rest
        }
        rest => rest,
    };
    match rest {
        [plural] => target.plural = (*plural).to_owned(),
        [plural, name] => (target.plural, target.name) = ((*plural).to_owned(), own(name)),
        [plural, name, part] => {
            (target.plural, target.name, target.part) = ((*plural).to_owned(), own(name), own(part));
        }
        _ => return Err(ApiError::no_such_path()),
    }
    Ok(target)
}

fn decode(part: &str) -> Result<String, ApiError> {
    let decoded = super::query::percent_decode(part, false);
    let decoded = decoded.ok_or_else(|| ApiError::bad_request("the path is no UTF-8"))?;
    match decoded.contains('/') {
        false => Ok(decoded),
        true => Err(ApiError::bad_request(format!("a part of the path may not contain '/': {decoded:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(path: &str) -> Target {
        match parse(path).unwrap() {
            Path::Object(target) => target,
            other => panic!("{path} is {other:?}"),
        }
    }

    #[test]
    fn objects_and_their_parts() {
        let t = object("/api/v1/namespaces/shop/pods/web-0/status");
        assert_eq!((t.ns(), t.plural.as_str(), t.name.as_deref()), (Some("shop"), "pods", Some("web-0")));
        assert_eq!(t.part.as_deref(), Some("status"));
        let t = object("/apis/apps/v1/deployments");
        assert_eq!((t.group.as_str(), t.version.as_str(), t.plural.as_str()), ("apps", "v1", "deployments"));
    }

    #[test]
    fn a_namespace_is_an_object_too() {
        assert_eq!(object("/api/v1/namespaces/shop").name.as_deref(), Some("shop"));
        assert_eq!(object("/api/v1/namespaces/shop/finalize").part.as_deref(), Some("finalize"));
        assert_eq!(object("/api/v1/namespaces/shop/pods").ns(), Some("shop"));
    }

    #[test]
    fn what_is_not_known_is_not_found() {
        for path in ["/nothing", "/api/v1/a/b/c/d/e", "/openapi/v4"] {
            assert_eq!(parse(path).unwrap_err().code, 404, "{path}");
        }
        for path in ["/api/v1/pods/%ff%fe", "/api/v1/namespaces/a%2Fb/pods"] {
            assert_eq!(parse(path).unwrap_err().code, 400, "{path}");
        }
    }
}
