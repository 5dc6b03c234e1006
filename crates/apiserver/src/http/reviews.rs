//! Kinds that are answered and never stored: who am I, whose is this token, may I, may they.

use http::Method;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::path::Target;
use super::{Call, Reply, body, reply};
use crate::auth::{Attributes, ISSUER, Place, User, Wanted};
use crate::error::{ApiError, FieldError};
use crate::resource::Resource;
use crate::strategy;

/// POST of a review: the same object with its status.
pub(super) async fn answer(
    call: &Call,
    r: &Resource,
    target: &Target,
    method: &Method,
    body: Incoming,
) -> Result<Reply, ApiError> {
    if *method != Method::POST || target.name.is_some() {
        return Err(super::not_allowed());
    }
    let mut review = body::read_json(&call.headers, body).await?;
    strategy::identify(r, target.ns(), &mut review)?;
    let status = status(call, r, target, &review)?;
    review["status"] = status;
    review["metadata"]["creationTimestamp"] = Value::Null;
    Ok(reply::json(201, &review))
}

fn status(call: &Call, r: &Resource, target: &Target, review: &Value) -> Result<Value, ApiError> {
    let spec = &review["spec"];
    match &*r.kind {
        "SelfSubjectReview" => Ok(json!({"userInfo": call.user.info()})),
        "TokenReview" => token(call, r, spec),
        "SelfSubjectAccessReview" => access(call, &call.user, &asked(r, spec)?),
        "SelfSubjectRulesReview" => rules(call, r, spec),
        _ => {
            let asked = asked(r, spec)?;
            match (&asked.wanted, target.ns()) {
                (_, None) => {}
                (Wanted::Object(place), Some(ns)) if place.namespace == ns => {}
                _ => {
                    let rule = "must match metadata.namespace";
                    return Err(wrong(
                        r,
                        "spec.resourceAttributes.namespace",
                        &spec["resourceAttributes"]["namespace"],
                        rule,
                    ));
                }
            }
            access(call, &subject(r, spec)?, &asked)
        }
    }
}

fn wrong(r: &Resource, field: &str, value: &Value, rule: &str) -> ApiError {
    ApiError::invalid(r, "", &[FieldError::invalid(field, value, rule)])
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The question of an access review's spec.
fn asked(r: &Resource, spec: &Value) -> Result<Attributes, ApiError> {
    let (object, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    if object.is_object() == path.is_object() {
        let rule = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        return Err(wrong(r, "spec.resourceAttributes", object, rule));
    }
    if path.is_object() {
        return Ok(Attributes { verb: text(&path["verb"]), wanted: Wanted::Path(text(&path["path"])) });
    }
    let place = Place {
        group: text(&object["group"]),
        resource: text(&object["resource"]),
        part: text(&object["subresource"]),
        namespace: text(&object["namespace"]),
        name: text(&object["name"]),
    };
    Ok(Attributes::object(&text(&object["verb"]), place))
}

/// The user that an access review asks about.
fn subject(r: &Resource, spec: &Value) -> Result<User, ApiError> {
    let user = User {
        name: text(&spec["user"]),
        uid: text(&spec["uid"]),
        groups: texts(&spec["groups"]),
        ..User::default()
    };
    if user.name.is_empty() && user.groups.is_empty() {
        return Err(wrong(r, "spec.user", &spec["user"], "at least one of user or group must be specified"));
    }
    Ok(user)
}

fn access(call: &Call, user: &User, asked: &Attributes) -> Result<Value, ApiError> {
    Ok(match call.app.auth.may(user, asked) {
        Ok(()) => json!({"allowed": true}),
        Err(reason) if reason.is_empty() => json!({"allowed": false}),
        Err(reason) => json!({"allowed": false, "reason": reason}),
    })
}

fn rules(call: &Call, r: &Resource, spec: &Value) -> Result<Value, ApiError> {
    let Some(namespace) = spec["namespace"].as_str().filter(|ns| !ns.is_empty()) else {
        return Err(ApiError::bad_request(format!(
            "no namespace on request: spec.namespace of the {} is empty",
            r.kind
        )));
    };
    let (paths, objects): (Vec<_>, Vec<_>) =
        call.app.auth.rules_of(&call.user, namespace).into_iter().partition(|rule| !rule.urls.is_empty());
    Ok(json!({"resourceRules": objects, "nonResourceRules": paths, "incomplete": call.user.is_node()}))
}

fn token(call: &Call, r: &Resource, spec: &Value) -> Result<Value, ApiError> {
    let token = spec["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        return Err(ApiError::bad_request(format!("token is required for {} in authentication", r.kind)));
    }
    let asked = texts(&spec["audiences"]);
    let audiences = if asked.is_empty() { vec![ISSUER.to_owned()] } else { asked };
    Ok(match call.app.auth.user_of_token(token, &audiences) {
        Some((user, of)) => json!({"authenticated": true, "user": user.info(), "audiences": of}),
        None => json!({"user": {}, "error": "invalid bearer token"}),
    })
}
