//! A speaker that other programs of its machine ask: a socket that its owner alone may open, by which one question
//! and one answer go as JSON.

use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use ipnet::IpNet;
use rustix::net::{Shutdown, shutdown};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Asker, Filter};

/// The name of the socket in a folder of its owner.
pub const SOCKET: &str = "bgp.sock";
/// A question is shorter, in bytes.
const QUESTION: u64 = 64 << 10;
/// Nobody keeps the others waiting for longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Question {
    /// For the [`super::Status`].
    Status,
    /// For [`super::Route`]s.
    Routes(Filter),
    /// For the paths to one prefix, and why one is the best.
    Explain(IpNet),
    /// That a neighbour's session ends and begins again; the text is for its people. Whether there is one.
    Reset {
        /// Its name.
        neighbour: String,
        /// RFC 9003.
        text: String,
    },
}

/// Answers while it is there.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    listener: UnixListener,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Answers at this path for a speaker. A socket that another one left there is replaced.
    pub fn serve(path: &Path, asker: Asker) -> io::Result<Control> {
        // Named only when nobody else may open it.
        let new = path.with_extension("new");
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&new)?;
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&new, path)?;
        let accepts = listener.try_clone()?;
        let thread = std::thread::Builder::new().name("weft-bgp-ask".to_owned()).spawn(move || {
            while let Ok((stream, _)) = accepts.accept() {
                // Who asked may have gone.
                let _ = answer(stream, &asker);
            }
        })?;
        Ok(Control { path: path.to_owned(), listener, thread: Some(thread) })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        // The thread waits no longer.
        if let (Ok(()), Some(thread)) = (shutdown(&self.listener, Shutdown::Both), self.thread.take()) {
            let _ = thread.join();
        }
    }
}

fn answer(mut stream: UnixStream, asker: &Asker) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut text = Vec::new();
    Read::by_ref(&mut stream).take(QUESTION).read_to_end(&mut text)?;
    let answer = match serde_json::from_slice(&text)? {
        Question::Status => serde_json::to_vec(&asker.status())?,
        Question::Routes(filter) => serde_json::to_vec(&asker.routes(filter))?,
        Question::Explain(prefix) => serde_json::to_vec(&asker.explain(prefix))?,
        Question::Reset { neighbour, text } => serde_json::to_vec(&asker.reset(&neighbour, &text))?,
    };
    stream.write_all(&answer)
}

/// Asks the speaker at this path.
pub fn ask<T: DeserializeOwned>(path: &Path, question: &Question) -> io::Result<T> {
    let mut stream = UnixStream::connect(path)?;
    stream.write_all(&serde_json::to_vec(question)?)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}
