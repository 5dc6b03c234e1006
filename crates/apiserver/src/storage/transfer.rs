//! Backups, and moving from one backend to the other.
//!
//! A backup is text: a first line with the format, the resourceVersion and the number of objects, then
//! one line for each object with its key.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::iter;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::error::StorageError;
use super::object::Object;
use super::state::Objects;
use super::{EtcdConfig, embedded, etcd};
use crate::files::sync_folder;

/// Version of the backup's format.
const VERSION: u64 = 1;
/// Characters of a backup that are handed on at once, about.
const PART: usize = 64 * 1024;
/// What a restored store is ahead of its backup, so that no resourceVersion that was given out after the
/// backup is given out again for something else.
const AHEAD: u64 = 1_000_000_000;

/// Where objects are.
#[derive(Debug, Clone)]
pub enum Place {
    /// A data directory that no server uses.
    Dir(PathBuf),
    /// An etcd; servers may use it while it is read.
    Etcd(EtcdConfig),
}

/// All objects at one resourceVersion.
#[derive(Debug, Clone, PartialEq)]
pub struct Backup {
    rv: u64,
    objects: Objects,
}

impl Backup {
    pub(crate) fn new(rv: u64, objects: Objects) -> Self {
        Self { rv, objects }
    }

    /// Reads everything from a place.
    pub async fn of(place: &Place) -> Result<Self, StorageError> {
        let loaded = match place {
            Place::Dir(dir) => embedded::read(dir)?,
            Place::Etcd(config) => etcd::read(config).await?,
        };
        Ok(Self { rv: loaded.rv, objects: loaded.objects })
    }

    /// Fills a place that is empty. Its resourceVersions go on far beyond the backup's, and clients that
    /// watched list again.
    pub async fn fill(&self, place: &Place) -> Result<(), StorageError> {
        let rv = self.rv.saturating_add(AHEAD);
        match place {
            Place::Dir(dir) => embedded::fill(dir, &self.objects, rv),
            Place::Etcd(config) => etcd::fill(config, &self.objects, rv).await,
        }
    }

    /// The number of objects.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is no object.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Writes a file that only its owner can read, since it holds Secrets; one that is there is kept.
    pub fn save(&self, path: &Path) -> Result<(), StorageError> {
        let failed = |e: io::Error| StorageError::Backup {
            path: path.display().to_string(),
            op: "be written",
            cause: e.to_string(),
        };
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        let mut parts = self.clone().into_parts();
        let written = parts.try_for_each(|part| file.write_all(part.as_bytes()));
        written.and_then(|()| file.sync_all()).and_then(|()| sync_folder(path)).map_err(|e| {
            // Half a backup helps nobody.
            let _ = std::fs::remove_file(path);
            failed(e)
        })
    }

    /// The file's text, in parts.
    pub(crate) fn into_parts(self) -> impl Iterator<Item = String> + Send + 'static {
        let head = json!({"weftBackup": VERSION, "resourceVersion": self.rv, "objects": self.objects.len()});
        let mut head = Some(format!("{head}\n"));
        let mut objects = self.objects.into_iter();
        iter::from_fn(move || {
            let mut part = head.take().unwrap_or_default();
            while part.len() < PART
                && let Some((key, object)) = objects.next()
            {
                part.push_str(&format!("{{\"key\":{},\"object\":{}}}\n", json!(&*key), object.json()));
            }
            (!part.is_empty()).then_some(part)
        })
    }

    /// Reads a file that [`Backup::save`] wrote.
    pub fn load(path: &Path) -> Result<Self, StorageError> {
        let name = || path.display().to_string();
        let failed = |cause: String| StorageError::Backup { path: name(), op: "be read", cause };
        let file = File::open(path).map_err(|e| failed(e.to_string()))?;
        Self::read(BufReader::new(file)).map_err(failed)
    }

    fn read(input: impl BufRead) -> Result<Self, String> {
        let mut lines = input.lines();
        let mut next = || -> Result<Option<Value>, String> {
            let Some(line) = lines.next() else { return Ok(None) };
            let line = line.map_err(|e| e.to_string())?;
            serde_json::from_str(&line).map(Some).map_err(|e| format!("it is no backup, or damaged: {e}"))
        };
        let head = next()?.unwrap_or_default();
        match head["weftBackup"].as_u64() {
            Some(VERSION) => {}
            Some(other) => {
                return Err(format!("its format has version {other}, this program knows {VERSION}"));
            }
            None => return Err("it is no backup of weft apiserver".to_owned()),
        }
        let rv = head["resourceVersion"].as_u64().ok_or("its first line has no resourceVersion")?;
        let mut objects = Objects::new();
        while let Some(line) = next()? {
            let key = line["key"].as_str().ok_or("a line of it has no key")?;
            let object = Object::from_text(key, &line["object"].to_string())?;
            objects.insert(key.into(), Arc::new(object));
        }
        if head["objects"].as_u64() != u64::try_from(objects.len()).ok() {
            return Err(format!(
                "it is cut short: {} objects of {} are there",
                objects.len(),
                head["objects"]
            ));
        }
        Ok(Self { rv, objects })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_read_as_it_was_written() {
        let object = |n: u64| {
            let key = format!("core/configmaps/default/{n}");
            let mut value = json!({"metadata": {"name": n.to_string()}, "data": {"text": "a\nb \u{1F980}"}});
            let object = Object::new(&key, &mut value, n).unwrap();
            (Arc::from(key), Arc::new(object))
        };
        let backup = Backup { rv: 9, objects: (1..=3).map(object).collect() };
        let text = backup.clone().into_parts().collect::<String>().into_bytes();
        assert_eq!(Backup::read(&*text).unwrap(), backup);
        let lines: Vec<&[u8]> = text.split_inclusive(|b| *b == b'\n').collect();
        let bad = [&lines[..3].concat(), &text[..text.len() - 4], b"", b"{}", b"x", b"{\"weftBackup\":2}"];
        for bad in bad {
            assert!(Backup::read(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }
}
