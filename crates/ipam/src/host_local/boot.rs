//! Reservations end with the boot they were made in.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::host_local::directory::{Dir, Lock, fault};
use crate::host_local::record::owner_of;
use crate::host_local::{Attachment, Result, index};

const RECORD: &str = ".weft/boot";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// This boot of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Boot(String);

impl Boot {
    pub(crate) fn current() -> Result<Boot> {
        let id = fs::read_to_string(BOOT_ID).map_err(fault("read", Path::new(BOOT_ID)))?;
        Ok(Boot(id.trim().to_owned()))
    }

    /// Removes what earlier boots reserved. A directory without a record is one taken over from
    /// the reference on a running node: it is recorded, and nothing is removed.
    pub(crate) fn void_earlier(&self, dir: &Dir, _held: &Lock) -> Result<()> {
        match dir.read_link(RECORD)? {
            Some(id) if id == self.0 => return Ok(()),
            Some(_) => void(dir)?,
            None => dir.make_folders()?,
        }
        dir.replace_link(RECORD, &self.0)
    }
}

/// What the index lists is ours and of an earlier boot, for this one has not written yet. A file
/// that it does not list is the reference's, which may have run in this boot before us: it goes
/// only if it is older than the boot.
fn void(dir: &Dir) -> Result<()> {
    let started = started();
    for ip in dir.addresses()? {
        let name = ip.to_string();
        let content = dir.read(&name)?.unwrap_or_default();
        let owner = owner_of(&content).map(|(container_id, ifname)| Attachment { container_id, ifname });
        let record = owner.map(|owner| index::lookup(dir, &owner.key())).transpose()?.flatten();
        let ours = record.is_some_and(|record| record.addresses.contains(&ip));
        if ours || dir.modified(&name)?.is_some_and(|modified| modified < started) {
            dir.remove(&name)?;
        }
    }
    // What the node had of pools may be another's since.
    dir.remove(super::pools::FILE)?;
    for folder in [index::IDS, index::INTENTS] {
        for key in dir.names(folder)? {
            dir.remove(&format!("{folder}/{key}"))?;
        }
    }
    Ok(())
}

/// When this boot began, in seconds since 1970 by the present clock. Where it cannot be known,
/// 1970: then nothing is older.
fn started() -> i64 {
    let uptime = fs::read_to_string("/proc/uptime").ok();
    let seconds = uptime.and_then(|text| text.split('.').next()?.parse().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let started = seconds.and_then(|up| now.checked_sub(Duration::from_secs(up)));
    started.and_then(|at| i64::try_from(at.as_secs()).ok()).unwrap_or(0)
}
