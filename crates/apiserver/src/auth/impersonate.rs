//! Acting as somebody else: `kubectl --as`, where the rules allow it.

use http::HeaderMap;

use super::user::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, User, service_account};
use super::{Attributes, Auth, Place};
use crate::error::ApiError;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
/// The group of the kinds that uids and extras are asked for as.
const AUTHENTICATION: &str = "authentication.k8s.io";

impl Auth {
    /// The user that a request acts as: `user` itself, or whom its headers name and `user` may act as.
    pub(crate) fn acting(&self, user: User, headers: &HeaderMap) -> Result<User, ApiError> {
        let Some(wanted) = wanted(headers)? else { return Ok(user) };
        let ask = |group: &str, resource: &str, part: &str, namespace: &str, name: &str| {
            let place = Place {
                group: group.to_owned(),
                resource: resource.to_owned(),
                part: part.to_owned(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            };
            self.require(&user, &Attributes::object("impersonate", place))
        };
        match service_account(&wanted.name) {
            Some((namespace, name)) => ask("", "serviceaccounts", "", namespace, name)?,
            None => ask("", "users", "", "", &wanted.name)?,
        }
        wanted.groups.iter().try_for_each(|group| ask("", "groups", "", "", group))?;
        if !wanted.uid.is_empty() {
            ask(AUTHENTICATION, "uids", "", "", &wanted.uid)?;
        }
        for (key, values) in &wanted.extra {
            values.iter().try_for_each(|value| ask(AUTHENTICATION, "userextras", key, "", value))?;
        }
        Ok(completed(wanted))
    }
}

/// With the groups that follow from the name.
fn completed(mut user: User) -> User {
    if user.groups.is_empty()
        && let Some((namespace, _)) = service_account(&user.name)
    {
        user.groups = User::service_account_groups(namespace);
    }
    let group = if user.name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
    if !user.is_in(AUTHENTICATED) && !user.is_in(UNAUTHENTICATED) {
        user.groups.push(group.to_owned());
    }
    user
}

/// Whom the headers name, if anybody.
fn wanted(headers: &HeaderMap) -> Result<Option<User>, ApiError> {
    let text = |value: &http::HeaderValue| {
        let text = value.to_str().map(str::to_owned);
        text.map_err(|_| ApiError::bad_request("an impersonation header is no plain text"))
    };
    let one = |name: &str| headers.get(name).map(text).transpose().map(Option::unwrap_or_default);
    let mut user = User { name: one(USER)?, uid: one(UID)?, ..User::default() };
    user.groups = headers.get_all(GROUP).iter().map(text).collect::<Result<_, _>>()?;
    for name in headers.keys() {
        let Some(key) = name.as_str().strip_prefix(EXTRA) else { continue };
        let key = crate::http::percent_decode(key, false)
            .ok_or_else(|| ApiError::bad_request("an impersonation header's name is no UTF-8"))?;
        let values = headers.get_all(name).iter().map(text).collect::<Result<_, _>>()?;
        user.extra.insert(key, values);
    }
    if !user.name.is_empty() {
        return Ok(Some(user));
    }
    if user == User::default() {
        return Ok(None);
    }
    Err(ApiError::bad_request(
        "requested to impersonate groups, a uid or extras without impersonating a user",
    ))
}
