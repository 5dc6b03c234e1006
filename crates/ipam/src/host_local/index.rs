//! The index by attachment: which addresses it holds, without reading every file.

use std::collections::HashMap;
use std::net::IpAddr;

use rustix::fs::{AtFlags, Timespec};

use crate::host_local::Attachment;
use crate::host_local::Result;
use crate::host_local::directory::Dir;
use crate::host_local::record::{Record, owner_of};

/// Where unfinished ADDs are recorded.
pub(crate) const INTENTS: &str = ".weft/intent";
/// Where finished ones are.
pub(crate) const IDS: &str = ".weft/id";

/// The fraction of a second in the modification time of a `last_reserved_ip` that we wrote. The
/// reference writes the file anew with each address it reserves, which ends the mark.
const MARK_NANOS: i64 = 87;

pub(crate) fn intent(key: &str) -> String {
    format!("{INTENTS}/{key}")
}

pub(crate) fn id(key: &str) -> String {
    format!("{IDS}/{key}")
}

pub(crate) fn last_reserved(set: usize) -> String {
    format!("last_reserved_ip.{set}")
}

/// The modification time to give to a `last_reserved_ip`.
pub(crate) fn mark(seconds: i64) -> Timespec {
    Timespec { tv_sec: seconds, tv_nsec: MARK_NANOS }
}

/// Of what the last reserved addresses are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marks {
    /// Of so many sets of ranges.
    Sets(usize),
    /// Of each family: IPv4 has the first place.
    Families,
}

/// Whether no other program has reserved an address since we last did.
pub(crate) fn is_current(dir: &Dir, marks: Marks) -> bool {
    let ours = |set| {
        let stat = rustix::fs::statat(dir, last_reserved(set), AtFlags::SYMLINK_NOFOLLOW);
        stat.ok().map(|stat| i64::try_from(stat.st_mtime_nsec) == Ok(MARK_NANOS))
    };
    match marks {
        Marks::Sets(sets) => (0..sets).all(|set| ours(set) == Some(true)),
        // A pod may have had one family only.
        Marks::Families => matches!((ours(0), ours(1)), (Some(true), None | Some(true)) | (None, Some(true))),
    }
}

/// What the records say of an attachment; unfinished ones count.
pub(crate) fn lookup(dir: &Dir, key: &str) -> Result<Option<Record>> {
    let found = match dir.read(&id(key))? {
        Some(bytes) => Some(bytes),
        None => dir.read(&intent(key))?,
    };
    Ok(found.map(|bytes| Record::parse(&bytes)))
}

/// Removes the records of an attachment.
pub(crate) fn forget(dir: &Dir, key: &str) -> Result<()> {
    dir.remove(&id(key))?;
    dir.remove(&intent(key))?;
    Ok(())
}

/// Makes the index agree with the address files.
pub(crate) fn rebuild(dir: &Dir) -> Result<()> {
    let mut held: HashMap<String, Record> = HashMap::new();
    for ip in dir.addresses()? {
        let content = dir.read(&ip.to_string())?.unwrap_or_default();
        if let Some((container_id, ifname)) = owner_of(&content) {
            let key = Attachment { container_id, ifname }.key();
            held.entry(key).or_default().addresses.push(ip);
        }
    }
    for key in dir.names(IDS)? {
        let indexed = dir.read(&id(&key))?.map(|bytes| Record::parse(&bytes)).unwrap_or_default();
        if held.get(&key).is_some_and(|found| same(&indexed.addresses, &found.addresses)) {
            held.remove(&key);
        } else {
            dir.remove(&id(&key))?;
        }
    }
    for (key, record) in held {
        if !dir.exists(&intent(&key))? {
            dir.write_renamed(&id(&key), record.text().as_bytes())?;
        }
    }
    Ok(())
}

fn same(a: &[IpAddr], b: &[IpAddr]) -> bool {
    a.len() == b.len() && a.iter().all(|ip| b.contains(ip))
}
