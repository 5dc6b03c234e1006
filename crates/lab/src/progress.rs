//! What the daemon tells `lab up` while it makes the lab: JSON lines over a pipe.

use std::fs::File;
use std::io::Write;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

/// One step of making a lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Which: `leftovers`, `namespaces`, `apiserver`, `nodes`, `agents`.
    pub stage: String,
    /// What was done, in words.
    pub text: String,
}

impl Progress {
    /// A step done.
    pub fn new(stage: &str, text: impl Into<String>) -> Progress {
        Progress { stage: stage.into(), text: text.into() }
    }
}

/// A line of the pipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Message {
    /// A step is done.
    Progress(Progress),
    /// The lab is ready; nothing follows.
    Ready,
    /// The lab cannot be made; nothing follows.
    Failed(String),
}

/// The writing end.
pub(crate) struct Teller(Mutex<File>);

impl Teller {
    /// Another descriptor of what standard output is now.
    pub(crate) fn beside_stdout() -> std::io::Result<Teller> {
        let pipe = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
        Ok(Teller(Mutex::new(pipe.into())))
    }

    /// Says it. Nobody may listen any more: the lab is made all the same.
    pub(crate) fn say(&self, message: &Message) {
        let mut line = serde_json::to_vec(message).unwrap_or_default();
        line.push(b'\n');
        let mut pipe = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let _ = pipe.write_all(&line);
    }

    pub(crate) fn step(&self, stage: &str, text: impl Into<String>) {
        self.say(&Message::Progress(Progress::new(stage, text)));
    }
}
