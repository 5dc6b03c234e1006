//! Processes held by pidfd, so that a recycled process number is never signalled.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::{Error, Result};

/// A process, whether child or not.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    fd: OwnedFd,
}

impl Process {
    /// The process `pid`, which must be running (or a zombie).
    pub fn open(pid: i32) -> Result<Process> {
        let refused = |e: Errno| Error::sys("open process", pid.to_string(), e);
        let number = (pid > 0).then(|| Pid::from_raw(pid)).flatten().ok_or_else(|| refused(Errno::INVAL))?;
        let fd = pidfd_open(number, PidfdFlags::empty()).map_err(refused)?;
        Ok(Process { pid, fd })
    }

    /// The process `pid` if it is the one that started at `began` ([`start_time`]); none if it
    /// has ended, or if the number belongs to another one now.
    pub fn open_started(pid: i32, began: u64) -> Result<Option<Process>> {
        let process = match Process::open(pid) {
            Err(e) if e.errno() == Some(libc::ESRCH) => return Ok(None),
            opened => opened?,
        };
        // Asked for after opening: from here on the number cannot change hands unseen.
        match start_time(pid) {
            Ok(now) if now == began => Ok(Some(process)),
            Err(e) if !e.not_found() => Err(e),
            _ => Ok(None),
        }
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends `signal` (`libc::SIGTERM`). A process that has ended is no error.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let refused = |e: Errno| Error::sys("signal process", self.pid.to_string(), e);
        let signal = Signal::from_named_raw(signal).ok_or_else(|| refused(Errno::INVAL))?;
        match pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(e) => Err(refused(e)),
        }
    }

    /// Waits until it has ended, at most `timeout`; says whether it has. Zero asks only. A child
    /// that ended still has to be reaped.
    pub fn wait_exit(&self, timeout: Duration) -> Result<bool> {
        let end = Instant::now() + timeout;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left)
                .map_err(|_| Error::sys("wait for process", self.pid.to_string(), Errno::INVAL))?;
            match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&left)) {
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::INTR) => {}
                Err(e) => return Err(Error::sys("wait for process", self.pid.to_string(), e)),
            }
        }
    }
}

impl AsFd for Process {
    /// Readable once the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// When process `pid` started, in clock ticks since boot (`/proc/PID/stat`, field 22); with the
/// number it names one process for as long as the machine runs.
pub fn start_time(pid: i32) -> Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).map_err(|e| match e.raw_os_error() {
        // It ended between open and read.
        Some(libc::ESRCH) => Error::sys("read", &path, io::Error::from_raw_os_error(libc::ENOENT)),
        _ => Error::sys("read", &path, e),
    })?;
    parse_start_time(&stat).ok_or(Error::Malformed { op: "read /proc/PID/stat", detail: "no field 22" })
}

/// The name of a process, field 2, is in parentheses and may contain any byte, these too.
fn parse_start_time(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// The calling process gets `signal` when the thread that started it ends.
pub fn set_parent_death_signal(signal: i32) -> Result<()> {
    let refused = |e: Errno| Error::sys("set", "parent death signal", e);
    let signal = Signal::from_named_raw(signal).ok_or_else(|| refused(Errno::INVAL))?;
    rustix::process::set_parent_process_death_signal(Some(signal)).map_err(refused)
}

/// Orphaned descendants become children of the calling process.
pub fn become_subreaper() -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true).map_err(|e| Error::sys("become", "child subreaper", e))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_name_with_parentheses_does_not_shift_the_fields() {
        let fields: Vec<String> = (4..=30).map(|field| field.to_string()).collect();
        let stat = format!("7 (a) b) c)) S {}", fields.join(" "));
        assert_eq!(parse_start_time(&stat), Some(22));
        assert_eq!(parse_start_time("7 (cat"), None);
        assert_eq!(parse_start_time("7 (cat) S 1"), None);
    }

    #[test]
    fn a_process_is_found_signalled_and_seen_to_end() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let began = start_time(pid).unwrap();
        let process = Process::open_started(pid, began).unwrap().unwrap();
        assert!(Process::open_started(pid, began + 1).unwrap().is_none(), "another process of that number");
        assert!(!process.wait_exit(Duration::ZERO).unwrap());
        process.signal(libc::SIGKILL).unwrap();
        assert!(process.wait_exit(Duration::from_secs(10)).unwrap());
        child.wait().unwrap();
        process.signal(libc::SIGKILL).unwrap();
        assert!(Process::open_started(pid, began).unwrap().is_none());
    }

    #[test]
    fn no_number_of_a_process_group_is_taken() {
        assert!(Process::open(0).is_err());
        assert!(Process::open(-1).is_err());
    }
}
