//! Whether a process noted earlier still runs, although numbers are used again.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use weft_kernel::process::{Process, start_time};

/// A process for good: its number, and when it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The number, in the machine's PID namespace.
    pub pid: i32,
    /// Start time in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub start_time: u64,
}

impl ProcessId {
    /// The process that has this number now.
    pub fn of(pid: i32) -> weft_kernel::Result<ProcessId> {
        Ok(ProcessId { pid, start_time: start_time(pid)? })
    }

    /// A hold on the process; None when it has ended, also when nobody has collected it yet.
    pub fn open(&self) -> Option<Process> {
        let process = Process::open_started(self.pid, self.start_time).ok()??;
        let ended = process.wait_exit(Duration::ZERO).unwrap_or(true);
        (!ended).then_some(process)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_alive_until_it_ends_even_if_its_number_lives_on() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = ProcessId::of(child.id() as i32).unwrap();
        assert!(process.open().is_some());
        let other = ProcessId { start_time: process.start_time + 1, ..process.clone() };
        assert!(other.open().is_none());
        let held = process.open().unwrap();
        child.kill().unwrap();
        assert!(held.wait_exit(Duration::from_secs(5)).unwrap());
        assert!(process.open().is_none(), "ended, not yet collected");
        child.wait().unwrap();
        assert!(process.open().is_none());
    }
}
