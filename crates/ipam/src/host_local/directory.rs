//! The directory: every file operation, relative to one descriptor.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RawDir, Timespec, Timestamps};
use rustix::io::Errno;

use crate::host_local::{Error, Result};

/// The file that is written before it is linked to the addresses' names.
pub(crate) const NEW: &str = ".weft/new";
/// The file that is written before it is renamed.
const ASIDE: &str = ".weft/aside";
const LOCK: &str = "lock";
/// More than any of our files holds; what is longer is not ours.
const LONGEST: usize = 4096;

const FILE: Mode = Mode::from_raw_mode(0o644);
const FOLDER: Mode = Mode::from_raw_mode(0o755);

/// The open directory of a network.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

/// The lock of the directory, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _fd: OwnedFd,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// An error of a file operation.
pub(crate) fn fault<E: Into<io::Error>>(op: &'static str, path: &Path) -> impl Fn(E) -> Error {
    move |source| Error::Io { op, path: path.to_owned(), source: source.into() }
}

fn no_room(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
}

impl Dir {
    pub(crate) fn open(path: &Path) -> Result<Option<Dir>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Dir { fd, path: path.to_owned() })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(fault("open the allocation directory", path)(error)),
        }
    }

    pub(crate) fn create(path: &Path) -> Result<Dir> {
        std::fs::create_dir_all(path).map_err(fault("create the allocation directory", path))?;
        let gone = || fault("open the allocation directory", path)(Errno::NOENT);
        Dir::open(path)?.ok_or_else(gone)
    }

    pub(crate) fn make_folders(&self) -> Result<()> {
        for folder in [".weft", ".weft/id", ".weft/intent"] {
            match rustix::fs::mkdirat(self, folder, FOLDER) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(self.fault("create", folder)(error)),
            }
        }
        Ok(())
    }

    pub(crate) fn lock(&self) -> Result<Lock> {
        // Not for writing, so that a file that is there can be locked on a read-only disk.
        let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(0o750);
        let fd = rustix::fs::openat(self, LOCK, flags, mode).map_err(self.fault("open", LOCK))?;
        let wait = || rustix::fs::flock(&fd, FlockOperation::LockExclusive);
        rustix::io::retry_on_intr(wait).map_err(self.fault("lock", LOCK))?;
        Ok(Lock { _fd: fd })
    }

    /// The lock of somebody who only removes: without one where none can be made, on a disk that
    /// is full or read-only. Whoever wants to add meets the same disk.
    pub(crate) fn lock_to_remove(&self) -> Result<Option<Lock>> {
        match self.lock() {
            Err(Error::Io { op: "open", source, .. }) if no_room(&source) => Ok(None),
            other => other.map(Some),
        }
    }

    /// The first 4 KiB of a file; `None` when it is absent or no regular file.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = match rustix::fs::openat(self, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(None),
            Err(error) => return Err(self.fault("open", name)(error)),
        };
        let mut bytes = vec![0; LONGEST];
        match rustix::io::retry_on_intr(|| rustix::io::read(&fd, &mut bytes[..])) {
            Ok(length) => bytes.truncate(length),
            Err(Errno::ISDIR) => return Ok(None),
            Err(error) => return Err(self.fault("read", name)(error)),
        }
        Ok(Some(bytes))
    }

    /// A whole file of ours that may be longer, up to `limit`; `None` when it is absent.
    pub(crate) fn read_long(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        use std::io::Read;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = match rustix::fs::openat(self, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.fault("open", name)(error)),
        };
        let mut bytes = Vec::new();
        let read = std::fs::File::from(fd).take(limit).read_to_end(&mut bytes);
        read.map_err(|error| self.fault("read", name)(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        Ok(Some(bytes))
    }

    /// The length of what has this name.
    pub(crate) fn length(&self, name: &str) -> Result<Option<u64>> {
        Ok(self.stat(name)?.map(|stat| u64::try_from(stat.st_size).unwrap_or(u64::MAX)))
    }

    /// When it was modified, in seconds since 1970.
    pub(crate) fn modified(&self, name: &str) -> Result<Option<i64>> {
        Ok(self.stat(name)?.map(|stat| stat.st_mtime))
    }

    pub(crate) fn exists(&self, name: &str) -> Result<bool> {
        Ok(self.stat(name)?.is_some())
    }

    fn stat(&self, name: &str) -> Result<Option<rustix::fs::Stat>> {
        match rustix::fs::statat(self, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.fault("look at", name)(error)),
        }
    }

    /// Whether it was there to be removed.
    pub(crate) fn remove(&self, name: &str) -> Result<bool> {
        match rustix::fs::unlinkat(self, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(self.fault("remove", name)(error)),
        }
    }

    /// The names in a folder; none when it is absent.
    pub(crate) fn names(&self, folder: &str) -> Result<Vec<String>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(self, folder, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(Vec::new()),
            Err(error) => return Err(self.fault("open", folder)(error)),
        };
        let mut buffer = Vec::with_capacity(32 * 1024);
        let mut entries = RawDir::new(fd, buffer.spare_capacity_mut());
        let mut names = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(self.fault("list", folder))?;
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
        }
        Ok(names)
    }

    /// The addresses taken: every name in the directory that is one.
    pub(crate) fn addresses(&self) -> Result<Vec<IpAddr>> {
        Ok(self.names(".")?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    pub(crate) fn read_link(&self, name: &str) -> Result<Option<String>> {
        match rustix::fs::readlinkat(self, name, Vec::new()) {
            Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.fault("read the link", name)(error)),
        }
    }

    pub(crate) fn replace_link(&self, name: &str, target: &str) -> Result<()> {
        self.remove(ASIDE)?;
        rustix::fs::symlinkat(target, self, ASIDE).map_err(self.fault("write", name))?;
        self.rename(ASIDE, name)
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<()> {
        let rename = || rustix::fs::renameat(self, from, self, to);
        let done = match rename() {
            Err(Errno::NOENT) => {
                self.make_folders()?;
                rename()
            }
            other => other,
        };
        done.map_err(self.fault("write", to))
    }

    pub(crate) fn link(&self, from: &str, to: &str) -> Result<()> {
        rustix::fs::linkat(self, from, self, to, AtFlags::empty()).map_err(self.fault("write", to))
    }

    /// A new file with this content; what had the name before is unlinked, not overwritten, for
    /// it may be linked elsewhere.
    pub(crate) fn write_new(&self, name: &str, content: &[u8]) -> Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(self, name, flags, FILE);
        let fd = match open() {
            Err(Errno::EXIST) => {
                self.remove(name)?;
                open()
            }
            // Only in a folder of ours can it be absent, which somebody has removed then.
            Err(Errno::NOENT) => {
                self.make_folders()?;
                open()
            }
            other => other,
        };
        let fd = fd.map_err(self.fault("write", name))?;
        let written = rustix::io::retry_on_intr(|| rustix::io::write(&fd, content));
        match written {
            Ok(length) if length == content.len() => Ok(fd),
            Ok(_) => self.give_up(name, Errno::NOSPC),
            Err(error) => self.give_up(name, error),
        }
    }

    /// Replaces a file as a whole.
    pub(crate) fn write_renamed(&self, name: &str, content: &[u8]) -> Result<()> {
        self.write_new(ASIDE, content)?;
        self.rename(ASIDE, name)
    }

    /// Writes a file in place, with this modification time: no new inode, and no rename over the
    /// old one, which would have ext4 write to the disk at once. For what may be torn by a death.
    pub(crate) fn overwrite(&self, name: &str, content: &[u8], modified: Timespec) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let times = Timestamps { last_access: modified, last_modification: modified };
        let write = || {
            let fd = rustix::fs::openat(self, name, flags, FILE)?;
            rustix::fs::ftruncate(&fd, content.len() as u64)?;
            rustix::io::retry_on_intr(|| rustix::io::write(&fd, content))?;
            rustix::fs::futimens(&fd, &times)
        };
        write().map_err(self.fault("write", name))
    }

    /// A new file, locked by this process until the descriptor is closed.
    pub(crate) fn write_locked(&self, name: &str, content: &[u8]) -> Result<OwnedFd> {
        let fd = self.write_new(name, content)?;
        rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).map_err(self.fault("lock", name))?;
        Ok(fd)
    }

    /// Whether the process that locked the file is gone.
    pub(crate) fn is_abandoned(&self, name: &str) -> Result<bool> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = match rustix::fs::openat(self, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(self.fault("open", name)(error)),
        };
        Ok(rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).is_ok())
    }

    fn give_up<T>(&self, name: &str, error: Errno) -> Result<T> {
        self.remove(name).ok();
        Err(self.fault("write", name)(error))
    }

    fn fault(&self, op: &'static str, name: &str) -> impl Fn(Errno) -> Error + use<> {
        let path = self.path.join(name);
        move |source| Error::Io { op, path: path.clone(), source: source.into() }
    }
}
