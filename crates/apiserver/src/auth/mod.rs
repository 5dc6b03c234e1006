//! Who asks, and what that user may do.
//!
//! - `tokens` says who asks.
//! - A question is put as [`Attributes`]: a verb and what it is to be done to.
//! - `node` and `rbac` answer it; who is in system:masters may do everything.
//! - [`Guard`] looks at the object of a write, where its kind and name alone do not decide.

mod attributes;
mod audit;
mod certificate;
mod guard;
mod impersonate;
mod node;
mod rbac;
mod restriction;
mod service_accounts;
mod tokens;
mod user;

use std::path::Path;

use http::{HeaderMap, header};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::error::ApiError;
use crate::registry::Registry;
use crate::resource::Resource;
pub(crate) use attributes::{Attributes, Place, Wanted};
pub use audit::AuditConfig;
pub(crate) use audit::{Audit, Line};
pub(crate) use certificate::{Certificate, validity_of};
pub(crate) use guard::Guard;
use rbac::{Rbac, Rule};
use service_accounts::Keys;
pub(crate) use service_accounts::{Grant, ISSUER};
pub use tokens::TokenError;
use tokens::Tokens;
pub(crate) use user::User;
use user::{ANONYMOUS, UNAUTHENTICATED};

/// All that decides on who asks and what is allowed.
pub(crate) struct Auth {
    registry: Registry,
    tokens: Tokens,
    rbac: Rbac,
    keys: Keys,
}

impl Auth {
    /// Signs ServiceAccounts' tokens by `sa.key` of `dir`; knows the administrator by `admin_token`, and others by the static token file, if there is one.
    pub(crate) async fn open(
        registry: Registry,
        dir: &Path,
        admin_token: String,
        token_file: Option<&Path>,
    ) -> Result<Self, AuthError> {
        let rbac = Rbac::open(&registry).await.map_err(|e| AuthError::Roles(e.message))?;
        let keys = Keys::open(&dir.join("sa.key")).map_err(AuthError::Keys)?;
        Ok(Self { tokens: Tokens::new(admin_token, token_file)?, rbac, keys, registry })
    }

    /// Follows what it decides by, until the set is dropped.
    pub(crate) fn follow(&self, tasks: &mut JoinSet<()>) {
        self.rbac.follow(&self.registry, tasks);
    }

    /// Reads its files again.
    pub(crate) fn refresh(&self) {
        if let Err(error) = self.tokens.refresh() {
            tracing::warn!(%error, "the tokens known before stay in use");
        }
    }

    /// The user of a request; 401 when it shows something that is not known. Who shows nothing is
    /// anonymous, for the few paths that are open to such.
    pub(crate) fn authenticate(
        &self,
        certificate: Option<&Certificate>,
        headers: &HeaderMap,
        open: bool,
    ) -> Result<User, ApiError> {
        if let Some(user) = certificate.and_then(|c| c.user(jiff::Timestamp::now())) {
            return Ok(user);
        }
        let unauthorized = || ApiError::new(401, "Unauthorized", "Unauthorized");
        let anonymous = || User {
            name: ANONYMOUS.to_owned(),
            groups: vec![UNAUTHENTICATED.to_owned()],
            ..User::default()
        };
        match headers.get(header::AUTHORIZATION) {
            None if open => Ok(anonymous()),
            None => Err(unauthorized()),
            Some(_) => {
                let audiences = [ISSUER.to_owned()];
                let found = bearer(headers).and_then(|token| self.user_of_token(token, &audiences));
                found.map(|(user, _)| user).ok_or_else(unauthorized)
            }
        }
    }

    /// Whose a bearer token is, and for which of the audiences.
    pub(crate) fn user_of_token(&self, token: &str, audiences: &[String]) -> Option<(User, Vec<String>)> {
        if let Some(user) = self.tokens.user(token) {
            return audiences.iter().any(|a| a == ISSUER).then(|| (user, vec![ISSUER.to_owned()]));
        }
        self.keys.user(&self.registry, token, audiences, jiff::Timestamp::now())
    }

    /// A new token of a ServiceAccount, and when it ends.
    pub(crate) fn issue(&self, grant: &Grant<'_>) -> Result<(String, jiff::Timestamp), ApiError> {
        self.keys.issue(grant, jiff::Timestamp::now()).map_err(ApiError::internal)
    }

    /// Refuses a node a token that is not for a pod of its own.
    pub(crate) fn check_token(
        &self,
        user: &User,
        r: &Resource,
        name: &str,
        bound: &Value,
        held: Option<&Value>,
    ) -> Result<(), ApiError> {
        node::node_of(user).map_or(Ok(()), |node| restriction::check_token(node, r, name, bound, held))
    }

    /// Whether a user may; the error is the reason, which may be empty.
    pub(crate) fn may(&self, user: &User, asked: &Attributes) -> Result<(), String> {
        if user.is_master() {
            return Ok(());
        }
        let Err(of_node) = node::allows(&self.registry, user, asked) else { return Ok(()) };
        let Err(of_rbac) = self.rbac.allows(user, asked) else { return Ok(()) };
        let reasons = [of_node, of_rbac].into_iter().filter(|reason| !reason.is_empty());
        Err(reasons.collect::<Vec<_>>().join(", "))
    }

    /// As [`Auth::may`]; the error is the answer to the request.
    pub(crate) fn require(&self, user: &User, asked: &Attributes) -> Result<(), ApiError> {
        self.may(user, asked).map_err(|reason| asked.refusal(user, &reason))
    }

    /// The rules that a user has in a namespace by roles.
    pub(crate) fn rules_of(&self, user: &User, namespace: &str) -> Vec<Rule> {
        self.rbac.rules_of(user, namespace)
    }
}

/// The server cannot decide on who may do what.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The static tokens cannot be read.
    #[error(transparent)]
    Tokens(#[from] TokenError),
    /// The tokens of ServiceAccounts cannot be signed.
    #[error("the key of ServiceAccounts' tokens, sa.key in the data directory, cannot be used: {0}")]
    Keys(String),
    /// The default roles cannot be made.
    #[error("the default roles cannot be made: {0}")]
    Roles(String),
}

/// The bearer token of a request.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = given.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
