//! Working inside a lab: the same command line is run again as a process of the lab.
//!
//! A process cannot move into another user or PID namespace with its threads and its `/proc`
//! intact, but its children can be born there.

use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use anyhow::{Context, bail};
use weft_kernel::process::set_parent_death_signal;
use weft_kernel::sandbox;

use crate::daemon::executable;
use crate::places::{Place, places};
use crate::state::{DIR_VARIABLE, LabState, parent_dir};

/// Set in the process inside to the lab's name.
const INSIDE: &str = "WEFT_LAB_INSIDE";

/// On which side of the lab's wall this process is.
#[derive(Debug)]
pub enum Entered {
    /// Outside: the command line was run again inside and ended with this exit code, which is
    /// to be this process's too. It has printed all there is to print.
    Outside(u8),
    /// Inside, in the underlay's network namespace, root of the lab.
    Inside(Vec<Place>),
}

/// Goes into the lab. To be called first, while the process has one thread and no runtime.
pub fn enter(state: &LabState) -> anyhow::Result<Entered> {
    if std::env::var(INSIDE).is_ok_and(|name| name == state.name()) {
        // Whoever ends the process outside ends this one too, also by a signal that nobody hears.
        set_parent_death_signal(rustix::process::Signal::TERM.as_raw())?;
        if rustix::process::getppid() == Some(rustix::process::Pid::INIT) {
            bail!("the process that started this one has ended");
        }
        let info = state.info()?.context("the lab was removed meanwhile")?;
        return Ok(Entered::Inside(places(state, &info.config)?));
    }
    let (_, process) = state.require_alive()?;
    // Asked before, because inside /proc is another's.
    let mut command = Command::new(executable()?);
    let user = !rustix::process::geteuid().is_root();
    sandbox::enter(process.as_fd(), user).with_context(|| {
        format!("cannot enter lab {}: it belongs to another user, or is just ending", state.name())
    })?;
    command
        .args(std::env::args_os().skip(1))
        .env(INSIDE, state.name())
        .env(DIR_VARIABLE, parent_dir_before(state));
    // An interrupt from the terminal reaches the process inside; this one reports how it ended.
    let mut child = command.spawn().context("cannot start a process inside the lab")?;
    let status = wait(&mut child)?;
    Ok(Entered::Outside(code(status)))
}

/// The folder above the lab's: inside, another user's default would be taken.
fn parent_dir_before(state: &LabState) -> std::path::PathBuf {
    state.dir().parent().map_or_else(parent_dir, Into::into)
}

fn wait(child: &mut std::process::Child) -> anyhow::Result<ExitStatus> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _guard = runtime.enter();
    // Registered for its side effect: this process outlives an interrupt.
    let _interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let _quit = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::quit())?;
    child.wait().context("cannot wait for the process inside the lab")
}

/// A shell's exit code for how a process ended.
pub(crate) fn code(status: ExitStatus) -> u8 {
    let signal = || 128 + status.signal().unwrap_or(0);
    u8::try_from(status.code().unwrap_or_else(signal)).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_a_shells() {
        assert_eq!(code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(code(ExitStatus::from_raw(9)), 137);
    }
}
