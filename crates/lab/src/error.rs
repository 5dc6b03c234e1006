use std::io;
use std::path::{Path, PathBuf};

use crate::config::ConfigError;

/// What can keep a lab from doing as told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for cannot be made.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file or folder of the lab.
    #[error("cannot {op} {}", path.display())]
    File {
        /// What was attempted.
        op: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Others could change what is in the lab's folder.
    #[error(
        "{} is not a folder that only you can write to: remove it, or set WEFT_LAB_DIR to another place",
        dir.display()
    )]
    Unsafe {
        /// The folder.
        dir: PathBuf,
    },
    /// Another command holds the lab.
    #[error("lab {lab} is busy: another weft lab up or down of it runs; wait for it and try again")]
    Busy {
        /// The lab's name.
        lab: String,
    },
    /// `lab.json` is torn.
    #[error("{} cannot be understood ({error}): weft lab down --name {lab} removes the lab", path.display())]
    BadInfo {
        /// The lab's name.
        lab: String,
        /// Its `lab.json`.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        error: serde_json::Error,
    },
    /// It has no folder.
    #[error("there is no lab {lab}: weft lab up --name {lab} makes one")]
    NoSuchLab {
        /// The lab's name.
        lab: String,
    },
    /// It has a folder and no processes.
    #[error(
        "lab {lab} is not running (its processes are gone): weft lab up --name {lab} makes it anew, weft lab down --name {lab} removes what is left"
    )]
    Dead {
        /// The lab's name.
        lab: String,
    },
    /// It runs.
    #[error("lab {lab} is already up: use it, or weft lab down --name {lab} first, or choose another --name")]
    AlreadyUp {
        /// The lab's name.
        lab: String,
    },
    /// Its processes do not end.
    #[error("the lab's processes do not end even when killed: try again when the machine is less busy")]
    Unstoppable,
    /// Nothing in the lab has this name.
    #[error("lab {lab} has no {what}; there is {known}")]
    NoSuchPlace {
        /// The lab's name.
        lab: String,
        /// What was looked for.
        what: String,
        /// What could have been meant.
        known: String,
    },
    /// A kernel object.
    #[error(transparent)]
    Kernel(#[from] weft_kernel::Error),
}

impl Error {
    /// Whether a file or folder was not there.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Error::File { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    pub(crate) fn file(op: &'static str, path: &Path, source: io::Error) -> Error {
        Error::File { op, path: path.into(), source }
    }
}

/// A lab's own result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
