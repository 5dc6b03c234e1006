use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// What went wrong between Weft and the Kubernetes API.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The API answered, and refused.
    #[error("{0}")]
    Api(Box<Refusal>),
    /// No answer: connecting failed, the connection broke or fell silent.
    #[error("{request}: the API server is not reachable: {reason}")]
    Unreachable {
        /// Method and path of the request.
        request: String,
        /// What happened to the connection.
        reason: String,
    },
    /// The answer is not what a Kubernetes API sends.
    #[error("{request}: the API server's answer makes no sense: {reason}")]
    Malformed {
        /// Method and path of the request.
        request: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no ServiceAccount to be used.
    #[error(
        "no kubeconfig is given, and this pod has no usable ServiceAccount: {reason}; name a kubeconfig with --kubeconfig"
    )]
    ServiceAccount {
        /// What is missing.
        reason: String,
    },
    /// The kubeconfig cannot be used.
    #[error("kubeconfig {}: {reason}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// The API's refusal (meta/v1 Status) of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Method and path of the request.
    pub request: String,
    /// The HTTP status.
    pub code: u16,
    /// The machine-readable reason: `NotFound`, `AlreadyExists`, `Conflict`, `Expired`…
    pub reason: String,
    /// The API's own words.
    pub message: String,
    /// The `Retry-After` header, where it gives seconds.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal { request, code, reason, message, .. } = self;
        write!(f, "{request}: {code} {reason}: {message}")
    }
}

/// As much of a meta/v1 Status as an error needs.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct Status {
    code: u16,
    reason: String,
    message: String,
}

impl Error {
    /// The refusal that `body` (a Status, or any text) describes.
    pub(crate) fn refusal(request: &str, code: u16, body: &[u8], retry_after: Option<Duration>) -> Self {
        let status: Status = serde_json::from_slice(body).unwrap_or_default();
        let text = || String::from_utf8_lossy(&body[..body.len().min(200)]).trim().to_owned();
        Error::Api(Box::new(Refusal {
            request: request.to_owned(),
            code: if status.code == 0 { code } else { status.code },
            message: if status.message.is_empty() { text() } else { status.message },
            reason: if status.reason.is_empty() { reason_for(code).to_owned() } else { status.reason },
            retry_after,
        }))
    }

    /// The refusal, when it is one.
    pub fn api(&self) -> Option<&Refusal> {
        match self {
            Error::Api(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// The HTTP status of a refusal.
    pub fn code(&self) -> Option<u16> {
        self.api().map(|refusal| refusal.code)
    }

    /// Whether the object (or kind) does not exist.
    pub fn not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// Whether the object was there already.
    pub fn already_exists(&self) -> bool {
        self.api().is_some_and(|refusal| refusal.code == 409 && refusal.reason == "AlreadyExists")
    }

    /// Whether somebody else changed the object first: read it again and retry.
    pub fn conflict(&self) -> bool {
        self.api().is_some_and(|refusal| refusal.code == 409 && refusal.reason != "AlreadyExists")
    }

    /// Whether the resource version or continue token is too old: list again.
    pub fn expired(&self) -> bool {
        self.code() == Some(410)
    }

    /// Whether the token was not accepted.
    pub fn unauthorized(&self) -> bool {
        self.code() == Some(401)
    }

    /// Whether there was no answer at all.
    pub fn unreachable(&self) -> bool {
        matches!(self, Error::Unreachable { .. })
    }
}

fn reason_for(code: u16) -> &'static str {
    match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        413 => "RequestEntityTooLarge",
        422 => "Invalid",
        429 => "TooManyRequests",
        500..=599 => "ServerError",
        _ => "Unknown",
    }
}
