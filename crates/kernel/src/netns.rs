//! Network namespaces, held by file descriptor.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{Mode, OFlags};

use crate::{Error, Result};

const SELF: &str = "/proc/thread-self/ns/net";
const NSFS_MAGIC: i64 = 0x6e73_6673;
/// `NS_GET_NSTYPE`: which kind of namespace an nsfs file is.
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;

/// A network namespace. It lives at least as long as this value and its clones, which share
/// one file descriptor.
#[derive(Clone, Debug)]
pub struct Netns(Arc<OwnedFd>);

impl Netns {
    /// The calling thread's namespace.
    pub fn current() -> Result<Netns> {
        let file = File::open(SELF).map_err(|e| Error::sys("open", SELF, e))?;
        Ok(Netns(Arc::new(file.into())))
    }

    /// The namespace pinned at `path`. Whatever else the path is, a FIFO, a device or a plain
    /// file, is not opened at all and ends in [`Error::NotANetns`].
    pub fn open(path: &Path) -> Result<Netns> {
        let refused =
            |e: rustix::io::Errno| Error::sys("open network namespace", path.display().to_string(), e);
        let not_one = || Error::NotANetns { path: path.to_path_buf() };
        let look = OFlags::PATH | OFlags::CLOEXEC;
        if !on_nsfs(rustix::fs::open(path, look, Mode::empty()).map_err(refused)?.as_fd()) {
            return Err(not_one());
        }
        // The path may be another file by now: not blocking costs nothing, and it is asked again.
        let open = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = rustix::fs::open(path, open, Mode::empty()).map_err(refused)?;
        if on_nsfs(fd.as_fd()) && is_network(fd.as_fd()) { Ok(Netns(Arc::new(fd))) } else { Err(not_one()) }
    }

    /// A new namespace, kept alive by a bind mount on `pin`, a file this makes and which must
    /// not exist yet. Its loopback is up.
    pub fn create(pin: &Path) -> Result<Netns> {
        let named = || pin.display().to_string();
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(pin)
            .map_err(|e| Error::sys("create namespace file", named(), e))?;
        let made = in_new_thread(|| {
            let ns = unshared()?;
            mount(Some(SELF), pin, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .map_err(|e| Error::sys("pin network namespace on", named(), e))?;
            Ok(ns)
        });
        if made.is_err() {
            // The error of the first failure is the one to report.
            let _ = fs::remove_file(pin);
        }
        made
    }

    /// A new namespace that goes away with the last file descriptor, process and link peer that
    /// refers to it. Its loopback is up.
    pub fn create_unpinned() -> Result<Netns> {
        in_new_thread(unshared)
    }

    /// Undoes [`Netns::create`]: unmounts and removes `pin`. A pin that is gone is no error.
    pub fn unpin(pin: &Path) -> Result<()> {
        match umount2(pin, MntFlags::MNT_DETACH) {
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            Err(e) => return Err(Error::sys("unmount", pin.display().to_string(), e)),
        }
        match fs::remove_file(pin) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::sys("remove", pin.display().to_string(), e))
            }
            _ => Ok(()),
        }
    }

    /// Device and inode number of the namespace: equal for the same namespace.
    pub fn id(&self) -> Result<(u64, u64)> {
        let file = self.0.try_clone().map_err(|e| Error::sys("duplicate", "namespace descriptor", e))?;
        let meta = File::from(file).metadata().map_err(|e| Error::sys("stat", "namespace descriptor", e))?;
        Ok((meta.dev(), meta.ino()))
    }

    /// Runs `work` on a fresh thread inside this namespace and waits for it.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> Result<R> {
        in_new_thread(|| {
            self.enter()?;
            Ok(work())
        })
    }

    /// Moves the calling thread into this namespace for good.
    pub fn enter(&self) -> Result<()> {
        setns(self.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|e| Error::sys("enter", "network namespace", e))
    }

    /// Moves the calling thread into this namespace until the guard is dropped.
    pub fn guard(&self) -> Result<NetnsGuard> {
        let before = Netns::current()?;
        self.enter()?;
        Ok(NetnsGuard { before, _thread_bound: std::marker::PhantomData })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Brings the thread back to the namespace it was in when dropped. Not `Send`: it belongs to
/// the thread that made it.
#[derive(Debug)]
pub struct NetnsGuard {
    before: Netns,
    _thread_bound: std::marker::PhantomData<*const ()>,
}

impl Drop for NetnsGuard {
    fn drop(&mut self) {
        // The descriptor is ours and was our own namespace: only a lost privilege can fail here,
        // and going on in the wrong namespace would program the wrong machine.
        if let Err(error) = self.before.enter() {
            eprintln!("cannot return to the former network namespace: {error}");
            std::process::abort();
        }
    }
}

fn unshared() -> Result<Netns> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|e| Error::sys("create", "network namespace", e))?;
    let mut netlink = crate::Netlink::open()?;
    netlink.apply(&crate::Op::LinkSet(crate::LinkSet { index: 1, up: Some(true), ..Default::default() }))?;
    Netns::current()
}

/// Namespaces belong to a thread, so whoever must not change its own works on another.
fn in_new_thread<R: Send>(work: impl FnOnce() -> Result<R> + Send) -> Result<R> {
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .spawn_scoped(scope, work)
            .map_err(|e| Error::sys("start", "a thread for a namespace", e))?;
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn on_nsfs(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::fstatfs(fd).is_ok_and(|fs| i128::from(fs.f_type) == i128::from(NSFS_MAGIC))
}

/// Whether a file on nsfs is a network namespace rather than one of another kind.
fn is_network(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: fd is open for the length of the borrow; NS_GET_NSTYPE takes no argument.
    let kind = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) };
    kind == libc::CLONE_NEWNET
}
