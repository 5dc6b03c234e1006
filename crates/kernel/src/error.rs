use std::io;
use std::path::PathBuf;

/// What a kernel request may fail with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call or a kernel request failed.
    #[error("{op} {object}: {errno}{}", said(.message))]
    Sys {
        /// What was attempted, as a verb: "add route".
        op: &'static str,
        /// On which object, readable: "10.244.1.0/24 via 10.168.0.3 table 254".
        object: String,
        /// What the kernel's extended acknowledgement said; empty when it said nothing.
        message: String,
        /// The error number. The message holds it, so it is no further cause.
        errno: io::Error,
    },
    /// The file is no network namespace, so entering it would do something else.
    #[error("{path} is not a network namespace; give a path such as /run/netns/NAME")]
    NotANetns {
        /// The path as given.
        path: PathBuf,
    },
    /// The kernel refuses user namespaces to this user.
    #[error(
        "this machine forbids unprivileged user namespaces ({errno}): run as root, or let root do: sysctl -w {sysctl}"
    )]
    UserNamespacesForbidden {
        /// The sysctl to change, as `name=value`.
        sysctl: String,
        /// The error number of the refused call.
        errno: io::Error,
    },
    /// The table changed during every attempt to read it, so no view of it was consistent.
    #[error(
        "read {object}: changed during each of {attempts} attempts; try again when fewer changes are made"
    )]
    Inconsistent {
        /// Which table: "routes".
        object: &'static str,
        /// How often it was read.
        attempts: u32,
    },
    /// The kernel answered with something that is no valid message.
    #[error("{op}: the kernel's answer is malformed ({detail})")]
    Malformed {
        /// What was attempted.
        op: &'static str,
        /// What is wrong with the answer.
        detail: &'static str,
    },
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" (kernel: {message})") }
}

/// The result of a kernel request.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failed system call on `object`.
    pub fn sys(op: &'static str, object: impl Into<String>, errno: impl Into<io::Error>) -> Error {
        Error::Sys { op, object: object.into(), message: String::new(), errno: errno.into() }
    }

    /// The error number of the kernel, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Sys { errno, .. } | Error::UserNamespacesForbidden { errno, .. } => errno.raw_os_error(),
            _ => None,
        }
    }

    /// Whether the object was there already (EEXIST).
    pub fn exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// Whether the rule set was changed since the generation that a transaction expects (ERESTART).
    pub fn is_outdated(&self) -> bool {
        self.errno() == Some(libc::ERESTART)
    }

    /// Whether the object was not there: ENOENT, ENODEV, ESRCH (routes) or EADDRNOTAVAIL (addresses).
    pub fn not_found(&self) -> bool {
        matches!(self.errno(), Some(libc::ENOENT | libc::ENODEV | libc::ESRCH | libc::EADDRNOTAVAIL))
    }
}
