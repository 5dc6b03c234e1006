//! Which thread goes before which.

use std::io;

use crate::{Error, Result};

/// Has the calling thread go before all of ordinary priority (SCHED_RR, the lowest real-time priority), and not the
/// threads and processes that it starts. Needs CAP_SYS_NICE, or a limit of real-time priorities (RLIMIT_RTPRIO); and
/// where real-time time is given to control groups (CONFIG_RT_GROUP_SCHED), some of it.
pub fn go_first() -> Result<()> {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: `parameters` lives through the call; 0 is the calling thread.
    let done = unsafe {
        libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &raw const parameters)
    };
    if done < 0 {
        return Err(Error::sys("schedule", "a thread in real time", io::Error::last_os_error()));
    }
    Ok(())
}
