//! Time. Leases go on while the machine sleeps, so it is counted from boot, sleep included.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Far enough that what was acquired before this boot is not before the beginning.
const EPOCH: Duration = Duration::from_secs(1 << 33);

/// The present time of the clients.
pub(crate) fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
    EPOCH + Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), nanoseconds)
}

/// A time of the clients as seconds since 1970, which a restart does not change.
pub(crate) fn to_wall(time: Duration, now: Duration) -> u64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    wall.saturating_sub(now.saturating_sub(time)).as_secs()
}

/// And back. A time that would be yet to come was written before the clock was set back.
pub(crate) fn from_wall(seconds: u64, now: Duration) -> Duration {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(wall.saturating_sub(Duration::from_secs(seconds)))
}
