//! Who asks, and what that user may do.

mod tokens;
mod user;

use std::path::Path;

use http::{HeaderMap, header};

use crate::error::ApiError;
pub use tokens::TokenError;
use tokens::Tokens;
pub(crate) use user::User;

/// All that decides on who asks and what is allowed.
pub(crate) struct Auth {
    tokens: Tokens,
}

impl Auth {
    /// Knows the administrator by `admin_token`, and others by the static token file, if there is one.
    pub(crate) fn new(admin_token: String, token_file: Option<&Path>) -> Result<Self, TokenError> {
        Ok(Self { tokens: Tokens::new(admin_token, token_file)? })
    }

    /// The user of a request; 401 when it shows nothing that is known.
    pub(crate) fn authenticate(&self, headers: &HeaderMap) -> Result<User, ApiError> {
        let unauthorized = || ApiError::new(401, "Unauthorized", "Unauthorized");
        let token = bearer(headers).ok_or_else(unauthorized)?;
        self.tokens.user(token).ok_or_else(unauthorized)
    }
}

/// The bearer token of a request.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = given.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
