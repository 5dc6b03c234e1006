//! Errors as the CNI specification numbers them.

use serde::Serialize;

use crate::protocol::version::Version;

/// The error codes of the specification that these plugins use.
pub mod code {
    /// The configuration's cniVersion is not supported.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// A field of the configuration is not supported; the message has its key and value.
    pub const UNSUPPORTED_FIELD: u32 = 2;
    /// The container does not exist.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// An environment variable is missing or invalid; the message names it.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Reading, writing or asking the kernel failed.
    pub const IO: u32 = 5;
    /// Standard input could not be decoded.
    pub const DECODE: u32 = 6;
    /// The configuration is not valid.
    pub const INVALID_CONFIG: u32 = 7;
    /// The namespace is none that a pod could have (libcni's number).
    pub const INVALID_NETNS: u32 = 8;
    /// The same call may succeed later.
    pub const TRY_AGAIN: u32 = 11;
    /// STATUS: no ADD can be served.
    pub const NOT_AVAILABLE: u32 = 50;
    /// CHECK: the container's network is not as it was made. The plugin's own, as are all from 100.
    pub const NOT_AS_MADE: u32 = 100;
}

/// The answer to a call that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CniError {
    /// One of [`code`].
    pub code: u32,
    /// What failed, on what, and what to do.
    pub message: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    cni_version: &'a str,
    code: u32,
    msg: &'a str,
}

impl CniError {
    /// An error with this code.
    pub fn new(code: u32, message: impl Into<String>) -> CniError {
        CniError { code, message: message.into() }
    }

    /// The error object of the specification.
    pub fn to_json(&self, version: Version) -> String {
        let body = Body { cni_version: version.text(), code: self.code, msg: &self.message };
        serde_json::to_string(&body).unwrap_or_default()
    }
}

impl From<weft_kernel::Error> for CniError {
    fn from(error: weft_kernel::Error) -> CniError {
        CniError::new(code::IO, error.to_string())
    }
}

impl From<weft_ipam::host_local::Error> for CniError {
    fn from(error: weft_ipam::host_local::Error) -> CniError {
        use weft_ipam::host_local::Error;
        let code = match &error {
            Error::Io { .. } => code::IO,
            Error::Duplicate { .. } => code::INVALID_ENVIRONMENT,
            Error::Exhausted { .. } | Error::NotYet(_) => code::TRY_AGAIN,
            Error::Unavailable { .. } => code::INVALID_CONFIG,
        };
        CniError::new(code, error.to_string())
    }
}
