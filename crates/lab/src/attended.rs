//! A command that ends with who asked for it, and so does what it has started.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use tokio::signal::unix::{SignalKind, signal};
use weft_kernel::process::become_subreaper;

/// How long it may take to end by itself.
const GRACE: Duration = Duration::from_secs(1);
/// Nothing outlives SIGKILL for so long but a process whose device does not answer.
const LAST: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(10);

/// Runs it and waits until it has ended; SIGTERM or SIGHUP end it and all of its descendants, also those that
/// left it. The caller must have no other children. Interrupts of the terminal are left to the command.
pub(crate) fn run(command: &mut Command) -> io::Result<ExitStatus> {
    become_subreaper().map_err(io::Error::other)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        // Registered for their side effect: this process outlives them.
        let _interrupt = signal(SignalKind::interrupt())?;
        let _quit = signal(SignalKind::quit())?;
        let mut ended = signal(SignalKind::child())?;
        let child = Pid::from_child(&command.spawn()?);
        loop {
            let told = tokio::select! {
                _ = terminate.recv() => true,
                _ = hangup.recv() => true,
                _ = ended.recv() => false,
            };
            if told {
                end_all();
            }
            if let Some(status) = reap(child)? {
                return Ok(status);
            }
        }
    })
}

/// Takes in which children have ended; how `child` did.
fn reap(child: Pid) -> io::Result<Option<ExitStatus>> {
    let mut status = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, how))) if pid == child => status = Some(ExitStatus::from_raw(how.as_raw())),
            Ok(Some(_)) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(status),
            Err(error) => return Err(error.into()),
        }
    }
}

fn end_all() {
    for (signal, patience) in [(Signal::TERM, GRACE), (Signal::KILL, LAST)] {
        let until = Instant::now() + patience;
        let mut told = BTreeSet::new();
        loop {
            let left = descendants();
            if left.is_empty() {
                return;
            }
            for pid in left.into_iter().filter(|pid| told.insert(*pid)) {
                // Ended meanwhile is as good.
                let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, signal));
            }
            if Instant::now() >= until {
                break;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// The processes that descend from this one and run.
fn descendants() -> BTreeSet<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let stat = fs::read_to_string(entry.path().join("stat")).ok();
        let (Some(pid), Some(parent)) = (pid, stat.as_deref().and_then(parent)) else { continue };
        children.entry(parent).or_default().push(pid);
    }
    let mut found = BTreeSet::new();
    let mut open = vec![i32::try_from(std::process::id()).unwrap_or_default()];
    while let Some(pid) = open.pop() {
        let of = children.remove(&pid).unwrap_or_default();
        found.extend(of.iter().copied());
        open.extend(of);
    }
    found
}

/// The parent in a `/proc/PID/stat`, of a process that has not ended. Its name, in parentheses, may hold anything.
fn parent(stat: &str) -> Option<i32> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.next()?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_read_whatever_the_name_and_the_dead_have_none() {
        assert_eq!(parent("7 (a) b) S 3 7 7"), Some(3));
        assert_eq!(parent("7 (cat) Z 3 7 7"), None);
        assert_eq!(parent("7 (cat"), None);
    }
}
