//! The folder of records, and which of their sandboxes are gone.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use weft_cni::protocol::record::Record;

/// No record is larger; what is, is none.
const LARGEST: u64 = 64 << 10;
/// How long a sandbox must have been seen gone before it counts as gone.
pub(super) const GRACE: Duration = Duration::from_secs(60);

/// The records of this node's containers.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    /// Since when each sandbox is seen to be gone.
    gone: HashMap<PathBuf, Instant>,
}

impl Folder {
    pub(super) fn new(dir: PathBuf) -> Folder {
        Folder { dir, gone: HashMap::new() }
    }

    /// All records. One whose sandbox is gone is removed once that was seen twice with [`GRACE`]
    /// between, or at once if it is of an earlier boot.
    pub(super) fn read(&mut self, now: Instant) -> Vec<Record> {
        let mut records = Vec::new();
        let mut gone = HashMap::new();
        for path in files(&self.dir) {
            let Some(record) = load(&path) else { continue };
            if is_absent(&record.netns) {
                let since = self.gone.get(&path).copied().unwrap_or(now);
                if now.duration_since(since) >= GRACE || is_of_an_earlier_boot(&path) {
                    let id = &record.container_id;
                    match fs::remove_file(&path) {
                        Ok(()) => {
                            tracing::info!("the sandbox of container {id} is gone without a DEL: forgotten")
                        }
                        Err(error) => tracing::warn!("cannot remove {}: {error}", path.display()),
                    }
                    continue;
                }
                gone.insert(path, since);
            }
            records.push(record);
        }
        self.gone = gone;
        records
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect();
    paths.sort();
    paths
}

fn load(path: &Path) -> Option<Record> {
    let found = fs::symlink_metadata(path).ok().filter(|found| found.is_file() && found.len() <= LARGEST)?;
    let read = fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok());
    if read.is_none() && found.len() > 0 {
        tracing::warn!("{} is no record of a container", path.display());
    }
    read
}

/// Whether it is known that nothing is there.
pub(super) fn is_absent(netns: &Path) -> bool {
    fs::metadata(netns).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

fn is_of_an_earlier_boot(path: &Path) -> bool {
    let uptime = fs::read_to_string("/proc/uptime").ok();
    let up = uptime.and_then(|text| text.split('.').next()?.parse().ok()).map(Duration::from_secs);
    let started = up.and_then(|up| SystemTime::now().checked_sub(up));
    let written = fs::metadata(path).and_then(|found| found.modified()).ok();
    started.zip(written).is_some_and(|(started, written)| written < started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_goes_after_its_sandbox_was_seen_gone_twice() {
        let dir = tempfile::tempdir().unwrap();
        let netns = dir.path().join("netns");
        fs::write(&netns, "").unwrap();
        let record = Record { container_id: "c1".into(), netns: netns.clone(), ..Record::default() };
        let path = dir.path().join("wf1.json");
        fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
        fs::write(dir.path().join("bad.json"), "{").unwrap();
        fs::write(dir.path().join("wf2.new"), "{}").unwrap();
        let mut folder = Folder::new(dir.path().to_owned());
        let start = Instant::now();
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        assert_eq!(folder.read(start), std::slice::from_ref(&record));
        fs::remove_file(&netns).unwrap();
        assert_eq!(folder.read(after(100)).len(), 1, "seen gone once");
        fs::write(&netns, "").unwrap();
        assert_eq!(folder.read(after(200)).len(), 1, "and there again");
        fs::remove_file(&netns).unwrap();
        assert_eq!(folder.read(after(300)).len(), 1);
        assert_eq!(folder.read(after(330)).len(), 1, "seen gone twice, too soon");
        assert!(folder.read(after(360)).is_empty() && !path.exists());
    }
}
