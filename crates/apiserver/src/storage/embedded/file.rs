//! The file: keys to JSON text, the newest resourceVersion, and the history.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use super::history;
use crate::storage::error::StorageError;
use crate::storage::log::{Event, EventKind};
use crate::storage::object::Object;
use crate::storage::state::{Loaded, Objects, kind_of};

const OBJECTS: TableDefinition<&str, &[u8]> = TableDefinition::new("objects");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// For each change, by its resourceVersion, how to undo it.
const HISTORY: TableDefinition<u64, &[u8]> = TableDefinition::new("history");
/// Version of the file's layout. The first had no history.
const FORMAT: u64 = 2;
/// Names, in META, the resourceVersion up to which a kind's history is not held.
const FLOOR: &str = "floor/";
/// Names, in META, the same for kinds that have no such entry.
const ALL: &str = "floor";
/// In the first layout: the resourceVersion of a kind's last change.
const TIP: &str = "tip/";
/// Bytes of the file held in memory; reads come from the objects themselves.
const CACHE: usize = 8 * 1024 * 1024;

/// The open file.
pub(super) struct File {
    path: PathBuf,
    db: Database,
}

impl File {
    /// Opens the file, or makes it (readable by its owner only).
    pub(super) fn open(path: &Path) -> Result<Self, StorageError> {
        let name = || path.display().to_string();
        let error = |cause: String| StorageError::Store { path: name(), op: "be opened", cause };
        private(path).map_err(|e| error(e.to_string()))?;
        let db = Database::builder().set_cache_size(CACHE).create(path).map_err(|e| match e {
            DatabaseError::DatabaseAlreadyOpen => StorageError::InUse { path: name() },
            other => error(advice(&other)),
        })?;
        let file = Self { path: path.to_owned(), db };
        let format = file.upgrade().map_err(|e| file.failed("be opened", e))?;
        if format > FORMAT {
            return Err(error(format!(
                "its layout has version {format} and this program knows {FORMAT}; use the newer program that wrote it"
            )));
        }
        Ok(file)
    }

    fn failed(&self, op: &'static str, cause: impl Into<redb::Error>) -> StorageError {
        let cause = damaged(&cause.into().to_string());
        StorageError::Store { path: self.path.display().to_string(), op, cause }
    }

    /// Brings a new or older file to our layout; returns the layout's version.
    fn upgrade(&self) -> Result<u64, redb::Error> {
        let found = {
            let txn = self.db.begin_read()?;
            match txn.open_table(META) {
                Ok(meta) => meta.get("format")?.map(|v| v.value()),
                Err(redb::TableError::TableDoesNotExist(_)) => None,
                Err(e) => return Err(e.into()),
            }
        };
        if let Some(version @ FORMAT..) = found {
            return Ok(version);
        }
        let txn = self.db.begin_write()?;
        {
            txn.open_table(OBJECTS)?;
            txn.open_table(HISTORY)?;
            let mut meta = txn.open_table(META)?;
            let tips: Vec<(String, u64)> = meta
                .extract_if(|key, _| key.starts_with(TIP))?
                .map(|entry| entry.map(|(key, tip)| (key.value().replacen(TIP, FLOOR, 1), tip.value())))
                .collect::<Result<_, _>>()?;
            for (floor, rv) in tips {
                meta.insert(floor.as_str(), rv)?;
            }
            meta.insert("format", FORMAT)?;
        }
        txn.commit()?;
        Ok(FORMAT)
    }

    /// Reads everything.
    pub(super) fn load(&self) -> Result<Loaded, StorageError> {
        let failed = |why: String| StorageError::Store {
            path: self.path.display().to_string(),
            op: "be read",
            cause: damaged(&why),
        };
        let (mut loaded, undo) = self.read_all().map_err(|e| self.failed("be read", e))?.map_err(failed)?;
        loaded.events = history::events(undo, &loaded.objects);
        Ok(loaded)
    }

    #[allow(clippy::type_complexity, reason = "the database's errors and the contents' apart")]
    fn read_all(&self) -> Result<Result<(Loaded, Vec<history::Undo>), String>, redb::Error> {
        let txn = self.db.begin_read()?;
        let mut loaded = Loaded::default();
        for entry in txn.open_table(OBJECTS)?.iter()? {
            let (key, bytes) = entry?;
            match object(key.value(), bytes.value()) {
                Ok(object) => loaded.objects.insert(Arc::from(key.value()), Arc::new(object)),
                Err(why) => return Ok(Err(why)),
            };
        }
        let mut undo = Vec::new();
        for entry in txn.open_table(HISTORY)?.iter()? {
            let (rv, bytes) = entry?;
            match history::Undo::read(rv.value(), bytes.value()) {
                Ok(one) => undo.push(one),
                Err(why) => return Ok(Err(why)),
            }
        }
        for entry in txn.open_table(META)?.iter()? {
            let (key, value) = entry?;
            match key.value().strip_prefix(FLOOR) {
                Some(prefix) => drop(loaded.floors.insert(prefix.to_owned(), value.value())),
                None if key.value() == "rv" => loaded.rv = value.value(),
                None if key.value() == ALL => loaded.floor = value.value(),
                None => {}
            }
        }
        Ok(Ok((loaded, undo)))
    }

    /// Writes events, and removes old ones from the history, in one transaction, which is on the disk
    /// when this returns.
    pub(super) fn commit(
        &self,
        events: &[Arc<Event>],
        rv: u64,
        forget: &[Arc<Event>],
    ) -> Result<(), StorageError> {
        let failed = |e: redb::Error| StorageError::Store {
            path: self.path.display().to_string(),
            op: "be written",
            cause: e.to_string(),
        };
        self.write_all(events, rv, forget).map_err(failed)
    }

    /// Fills a new file and closes it; nothing that happened before is known.
    pub(super) fn fill(self, objects: &Objects, rv: u64) -> Result<(), StorageError> {
        let write = || -> Result<(), redb::Error> {
            let txn = self.db.begin_write()?;
            {
                let mut table = txn.open_table(OBJECTS)?;
                for (key, object) in objects {
                    table.insert(&**key, object.json().as_bytes())?;
                }
                let mut meta = txn.open_table(META)?;
                meta.insert("rv", rv)?;
                meta.insert(ALL, rv)?;
            }
            Ok(txn.commit()?)
        };
        write().map_err(|e| self.failed("be written", e))
    }

    fn write_all(&self, events: &[Arc<Event>], rv: u64, forget: &[Arc<Event>]) -> Result<(), redb::Error> {
        let txn = self.db.begin_write()?;
        write_events(&txn, events)?;
        {
            let mut meta = txn.open_table(META)?;
            meta.insert("rv", rv)?;
            let mut undo = txn.open_table(HISTORY)?;
            let mut floors: BTreeMap<&str, u64> = BTreeMap::new();
            for event in forget {
                undo.remove(event.rv)?;
                floors.insert(kind_of(&event.key), event.rv);
            }
            for (prefix, floor) in floors {
                meta.insert(format!("{FLOOR}{prefix}").as_str(), floor)?;
            }
        }
        txn.commit()?;
        Ok(())
    }
}

fn write_events(txn: &WriteTransaction, events: &[Arc<Event>]) -> Result<(), redb::Error> {
    let mut objects = txn.open_table(OBJECTS)?;
    let mut undo = txn.open_table(HISTORY)?;
    for event in events {
        match event.kind {
            EventKind::Deleted => drop(objects.remove(&*event.key)?),
            _ => drop(objects.insert(&*event.key, event.object.json().as_bytes())?),
        }
        undo.insert(event.rv, history::Undo::write(&event.key, event.previous.as_deref()).as_slice())?;
    }
    Ok(())
}

/// One object from the file.
fn object(key: &str, bytes: &[u8]) -> Result<Object, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| format!("the object {key} is no text"))?;
    Object::from_text(key, text)
}

/// What the database says about a file that it cannot open, and what to do.
fn advice(error: &DatabaseError) -> String {
    match error {
        DatabaseError::UpgradeRequired(version) => format!(
            "it was written by version {version} of the database's own layout, which this program does not read; use the program that wrote it"
        ),
        other => damaged(&other.to_string()),
    }
}

/// What to do about a file whose contents make no sense.
fn damaged(why: &str) -> String {
    format!("{why}; if it is damaged, move it away and use weft apiserver restore")
}

/// Makes the file with mode 0600 if it is not there: it holds Secrets.
fn private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).map(drop)
}
