//! `lab down`: ends a lab's processes and removes its folder, whatever state it is in.

use std::fmt;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use weft_kernel::process::Process;

use crate::error::{Error, Result};
use crate::liveness::ProcessId;
use crate::state::LabState;

/// How long a lab may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long until it is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// How long another command may hold the lab.
const LOCK_PATIENCE: Duration = Duration::from_secs(15);

/// What `lab down` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There was no such lab.
    Nothing,
    /// Its processes were gone; the rest is removed.
    Leftovers,
    /// It ended when asked to.
    Stopped,
    /// It had to be killed.
    Killed,
}

/// What `lab down` did to which lab; displays as a line for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DownReport {
    /// The lab.
    pub lab: String,
    /// What happened to it.
    pub outcome: Outcome,
}

impl fmt::Display for DownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lab = &self.lab;
        match self.outcome {
            Outcome::Nothing => write!(f, "there is no lab {lab}: nothing to do"),
            Outcome::Leftovers => write!(f, "lab {lab}: its processes were gone; removed what was left"),
            Outcome::Stopped => write!(f, "lab {lab}: stopped and removed"),
            Outcome::Killed => write!(f, "lab {lab}: did not stop when asked; killed and removed"),
        }
    }
}

/// Ends the lab and removes it. Doing it again does nothing.
pub fn down(name: &str) -> Result<DownReport> {
    let state = LabState::open(name)?;
    let report = |outcome| Ok(DownReport { lab: name.into(), outcome });
    if !state.dir().is_dir() {
        return report(Outcome::Nothing);
    }
    let lock = match state.lock(LOCK_PATIENCE) {
        Err(error) if error.is_missing() => return report(Outcome::Nothing),
        lock => lock?,
    };
    // A torn lab.json must not keep a lab from being removed.
    let info = state.info().ok().flatten();
    let open = |process: Option<&ProcessId>| process.and_then(ProcessId::open);
    let relay = open(info.as_ref().and_then(|info| info.relay.as_ref()));
    let outcome = match open(info.as_ref().and_then(|info| info.process.as_ref())) {
        Some(process) => stop(&process)?,
        None => Outcome::Leftovers,
    };
    // It ends when all of the lab has.
    if let Some(relay) = relay
        && !relay.wait_exit(PATIENCE)?
    {
        relay.signal(Signal::KILL.as_raw())?;
    }
    clear(&state)?;
    fs::remove_dir_all(state.dir()).or_else(gone).map_err(|e| Error::file("remove", state.dir(), e))?;
    drop(lock);
    report(outcome)
}

/// Ends and removes every lab of this user.
pub fn down_all() -> Result<Vec<DownReport>> {
    LabState::all()?.iter().map(|lab| down(lab.name())).collect()
}

fn stop(process: &Process) -> Result<Outcome> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        // The kernel drops what the first process of a PID namespace does not listen for yet.
        process.signal(Signal::TERM.as_raw())?;
        if process.wait_exit(ASK_AGAIN)? {
            return Ok(Outcome::Stopped);
        }
    }
    process.signal(Signal::KILL.as_raw())?;
    if process.wait_exit(PATIENCE)? { Ok(Outcome::Killed) } else { Err(Error::Unstoppable) }
}

/// Removes everything in the lab's folder but its lock; says whether there was anything.
pub(crate) fn clear(state: &LabState) -> Result<bool> {
    let failed = |path: &std::path::Path, error| Error::file("remove", path, error);
    let entries = fs::read_dir(state.dir()).map_err(|e| Error::file("list", state.dir(), e))?;
    let mut any = false;
    for entry in entries {
        let entry = entry.map_err(|e| Error::file("list", state.dir(), e))?;
        if entry.file_name() == "lock" {
            continue;
        }
        any = true;
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.or_else(gone).map_err(|e| failed(&path, e))?;
    }
    Ok(any)
}

fn gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
