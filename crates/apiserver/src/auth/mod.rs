//! Who asks, and what that user may do.
//!
//! - `tokens` says who asks.
//! - A question is put as [`Attributes`]: a verb and what it is to be done to.
//! - `node` and `rbac` answer it; who is in system:masters may do everything.
//! - [`Guard`] looks at the object of a write, where its kind and name alone do not decide.

mod attributes;
mod certificate;
mod guard;
mod impersonate;
mod node;
mod rbac;
mod restriction;
mod tokens;
mod user;

use std::path::Path;

use http::{HeaderMap, header};
use tokio::task::JoinSet;

use crate::error::ApiError;
use crate::registry::Registry;
pub(crate) use attributes::{Attributes, Place, Wanted};
pub(crate) use certificate::{Certificate, end_of};
pub(crate) use guard::Guard;
use rbac::{Rbac, Rule};
pub use tokens::TokenError;
use tokens::Tokens;
pub(crate) use user::User;
use user::{ANONYMOUS, MASTERS, UNAUTHENTICATED};

/// All that decides on who asks and what is allowed.
pub(crate) struct Auth {
    registry: Registry,
    tokens: Tokens,
    rbac: Rbac,
}

impl Auth {
    /// Knows the administrator by `admin_token`, and others by the static token file, if there is one.
    pub(crate) async fn open(
        registry: Registry,
        admin_token: String,
        token_file: Option<&Path>,
    ) -> Result<Self, AuthError> {
        let rbac = Rbac::open(&registry).await.map_err(|e| AuthError::Roles(e.message))?;
        Ok(Self { tokens: Tokens::new(admin_token, token_file)?, rbac, registry })
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
            Some(_) => bearer(headers).and_then(|token| self.user_of_token(token)).ok_or_else(unauthorized),
        }
    }

    /// Whose a bearer token is.
    pub(crate) fn user_of_token(&self, token: &str) -> Option<User> {
        self.tokens.user(token)
    }

    /// Whether a user may; the error is the reason, which may be empty.
    pub(crate) fn may(&self, user: &User, asked: &Attributes) -> Result<(), String> {
        if user.is_in(MASTERS) {
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
