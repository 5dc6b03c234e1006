//! The file: keys to JSON bytes, and the newest resourceVersion.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::Value;

const OBJECTS: TableDefinition<&str, &[u8]> = TableDefinition::new("objects");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Version of the file's layout.
const FORMAT: u64 = 1;
const TIP: &str = "tip/";

/// The data directory's file cannot be read or written.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the store {path} could not {op}: {cause}")]
pub struct StorageError {
    /// The file.
    pub path: String,
    /// What was attempted.
    pub op: &'static str,
    /// What the file system or the database said.
    pub cause: String,
}

/// What a file holds when it is opened.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) objects: BTreeMap<Arc<str>, Arc<Value>>,
    /// The newest resourceVersion.
    pub(crate) rv: u64,
    /// For each kind's prefix the resourceVersion of its last change.
    pub(crate) tips: BTreeMap<String, u64>,
}

/// One key's new bytes, or its removal.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) key: Arc<str>,
    pub(crate) value: Option<Vec<u8>>,
}

/// The open file.
pub(crate) struct File {
    path: PathBuf,
    db: Database,
}

impl File {
    /// Opens the file, or makes it (readable by its owner only).
    pub(crate) fn open(path: &Path) -> Result<Self, StorageError> {
        let error = |cause: String| StorageError { path: path.display().to_string(), op: "be opened", cause };
        private(path).map_err(|e| error(e.to_string()))?;
        let db = Database::create(path).map_err(|e| error(e.to_string()))?;
        let file = Self { path: path.to_owned(), db };
        file.check_format()?;
        Ok(file)
    }

    fn failed(&self, op: &'static str, cause: impl Into<redb::Error>) -> StorageError {
        StorageError { path: self.path.display().to_string(), op, cause: cause.into().to_string() }
    }

    fn check_format(&self) -> Result<(), StorageError> {
        let found = self.write_format().map_err(|e| self.failed("be opened", e))?;
        if found == FORMAT {
            return Ok(());
        }
        let cause = format!("its layout has version {found} and this program knows {FORMAT}");
        Err(StorageError { path: self.path.display().to_string(), op: "be opened", cause })
    }

    /// The layout's version; a new file gets ours.
    fn write_format(&self) -> Result<u64, redb::Error> {
        let txn = self.db.begin_write()?;
        let found = {
            let mut meta = txn.open_table(META)?;
            txn.open_table(OBJECTS)?;
            let found = meta.get("format")?.map(|v| v.value());
            if found.is_none() {
                meta.insert("format", FORMAT)?;
            }
            found
        };
        match found {
            Some(version) => {
                txn.abort()?;
                Ok(version)
            }
            None => {
                txn.commit()?;
                Ok(FORMAT)
            }
        }
    }

    /// Reads everything.
    pub(crate) fn load(&self) -> Result<Loaded, StorageError> {
        self.read_all().map_err(|e| self.failed("be read", e))?.map_err(|cause| StorageError {
            path: self.path.display().to_string(),
            op: "be read",
            cause,
        })
    }

    fn read_all(&self) -> Result<Result<Loaded, String>, redb::Error> {
        let txn = self.db.begin_read()?;
        let mut loaded = Loaded::default();
        for entry in txn.open_table(OBJECTS)?.iter()? {
            let (key, bytes) = entry?;
            match serde_json::from_slice::<Value>(bytes.value()) {
                Ok(value) => loaded.objects.insert(Arc::from(key.value()), Arc::new(value)),
                Err(e) => return Ok(Err(format!("the object {} is no JSON: {e}", key.value()))),
            };
        }
        for entry in txn.open_table(META)?.iter()? {
            let (key, value) = entry?;
            match key.value().strip_prefix(TIP) {
                Some(prefix) => drop(loaded.tips.insert(prefix.to_owned(), value.value())),
                None if key.value() == "rv" => loaded.rv = value.value(),
                None => {}
            }
        }
        Ok(Ok(loaded))
    }

    /// Writes all records in one transaction, which is on the disk when this returns.
    pub(crate) fn commit(
        &self,
        records: &[Record],
        rv: u64,
        tips: &BTreeMap<String, u64>,
    ) -> Result<(), StorageError> {
        self.write_all(records, rv, tips).map_err(|e| self.failed("be written", e))
    }

    fn write_all(
        &self,
        records: &[Record],
        rv: u64,
        tips: &BTreeMap<String, u64>,
    ) -> Result<(), redb::Error> {
        let txn = self.db.begin_write()?;
        {
            let mut objects = txn.open_table(OBJECTS)?;
            for record in records {
                match &record.value {
                    Some(bytes) => drop(objects.insert(&*record.key, bytes.as_slice())?),
                    None => drop(objects.remove(&*record.key)?),
                }
            }
            let mut meta = txn.open_table(META)?;
            meta.insert("rv", rv)?;
            for (prefix, tip) in tips {
                meta.insert(format!("{TIP}{prefix}").as_str(), tip)?;
            }
        }
        txn.commit()?;
        Ok(())
    }
}

/// Makes the file with mode 0600 if it is not there: it holds Secrets.
fn private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).map(drop)
}
