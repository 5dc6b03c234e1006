//! The `token` subresource of ServiceAccounts: `kubectl create token`.

use hyper::body::Incoming;
use serde_json::{Value, json};

use super::path::Target;
use super::{Call, Reply, body, reply};
use crate::auth::{Grant, ISSUER};
use crate::error::{ApiError, FieldError};
use crate::kinds;
use crate::resource::Resource;

/// Seconds that a token is good for: if nothing is said, at least, at most.
const USUAL: i64 = 3600;
const SHORTEST: i64 = 600;
const LONGEST: i64 = 1 << 32;

/// POST of a TokenRequest.
pub(super) async fn answer(
    call: &Call,
    r: &Resource,
    target: &Target,
    name: &str,
    body: Incoming,
) -> Result<Reply, ApiError> {
    let mut request = body::read_json(&call.headers, body).await?;
    check(&request)?;
    let account = call.registry.get(r, target.ns(), name).await?;
    let spec = &request["spec"];
    let lifetime = spec["expirationSeconds"].as_i64().unwrap_or(USUAL);
    let invalid = |rule: &str| {
        let error = FieldError::invalid("spec.expirationSeconds", &json!(lifetime), rule);
        let mut error = ApiError::invalid(r, name, &[error]);
        error.message = error.message.replacen("ServiceAccount", "TokenRequest.authentication.k8s.io", 1);
        error
    };
    if lifetime < SHORTEST {
        return Err(invalid("may not specify a duration less than 10 minutes"));
    }
    if lifetime > LONGEST {
        return Err(invalid("may not specify a duration larger than 2^32 seconds"));
    }
    let asked = spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut audiences: Vec<String> = asked.map(str::to_owned).collect();
    if audiences.is_empty() {
        audiences.push(ISSUER.to_owned());
    }
    let bound = &spec["boundObjectRef"];
    let held = held(call, r, target, name, bound).await?;
    call.app.auth.check_token(&call.user, r, name, bound, held.as_deref())?;
    let held = held.as_deref().map(|object| &object["metadata"]);
    let text = |value: &'_ Value| value.as_str().unwrap_or_default().to_owned();
    let of = held.map(|meta| (text(&bound["kind"]), text(&meta["name"]), text(&meta["uid"])));
    let grant = Grant {
        account: &account,
        bound: of.as_ref().map(|(kind, name, uid)| (kind.as_str(), name.as_str(), uid.as_str())),
        audiences: &audiences,
        lifetime,
    };
    let (token, end) = call.app.auth.issue(&grant)?;
    request["kind"] = json!("TokenRequest");
    request["apiVersion"] = json!("authentication.k8s.io/v1");
    request["metadata"] = json!({"name": name, "namespace": target.ns(), "creationTimestamp": null});
    request["spec"]["audiences"] = json!(audiences);
    request["spec"]["expirationSeconds"] = json!(lifetime);
    request["status"] =
        json!({"token": token, "expirationTimestamp": end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()});
    Ok(reply::json(201, &request))
}

/// Nothing of a TokenRequest is needed, but what is there can be read.
fn check(request: &Value) -> Result<(), ApiError> {
    if !request.is_object() {
        return Err(ApiError::bad_request("the body is no TokenRequest"));
    }
    match &request["spec"] {
        Value::Null | Value::Object(_) => Ok(()),
        _ => Err(ApiError::bad_request("the spec of the TokenRequest is no object")),
    }
}

/// The object that a token is to be bound to.
async fn held(
    call: &Call,
    r: &Resource,
    target: &Target,
    name: &str,
    bound: &Value,
) -> Result<Option<std::sync::Arc<Value>>, ApiError> {
    let kind = match bound["kind"].as_str() {
        None => return Ok(None),
        Some("Pod") => &kinds::PODS,
        Some("Secret") => &kinds::SECRETS,
        Some("Node") => &kinds::NODES,
        Some(other) => {
            return Err(ApiError::bad_request(format!(
                "cannot bind token for serviceaccount {name:?} to object of kind {other:?}"
            )));
        }
    };
    let object = call.registry.get(kind, target.ns(), bound["name"].as_str().unwrap_or_default()).await?;
    let wanted = bound["uid"].as_str().filter(|uid| !uid.is_empty());
    if wanted.is_some_and(|uid| object["metadata"]["uid"] != uid) {
        return Err(ApiError::conflict(
            r,
            name,
            "the UID in the bound object reference does not match the UID in record",
        ));
    }
    if kind.kind == "Pod" && object["spec"]["serviceAccountName"].as_str().unwrap_or("default") != name {
        return Err(ApiError::bad_request(format!(
            "cannot bind token for serviceaccount {name:?} to pod running with different serviceaccount name."
        )));
    }
    Ok(Some(object))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_another_type_is_refused() {
        for request in [json!({}), json!({"spec": null}), json!({"spec": {"audiences": ["a"]}})] {
            assert!(check(&request).is_ok(), "{request}");
        }
        for request in [json!(null), json!([]), json!({"spec": 1}), json!({"spec": "x"}), json!({"spec": []})]
        {
            assert_eq!(check(&request).unwrap_err().code, 400, "{request}");
        }
    }
}
