use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use super::require_root;
use crate::sandbox;

/// A small memory file system for tests of a full disk. It is mounted in a mount namespace of the
/// calling thread alone: child processes started from the thread see it, other threads do not.
#[derive(Debug)]
pub struct SmallDisk {
    directory: TempDir,
}

impl SmallDisk {
    /// A file system of at most `bytes`.
    pub fn new(bytes: u64) -> SmallDisk {
        require_root();
        // The working directory is shared between threads, and a thread that shares it may not
        // have its own mounts.
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).expect("make a mount namespace");
        sandbox::make_mounts_private().expect("make the mounts private");
        let directory = tempfile::tempdir().expect("make a directory");
        sandbox::mount_tmpfs(directory.path(), bytes).expect("mount a small file system");
        SmallDisk { directory }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Fills what is left of it; remove the file that this returns to make room again.
    pub fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = File::create(&path).expect("make the filler");
        let full = loop {
            if let Err(error) = file.write_all(&[0; 4096]) {
                break error;
            }
        };
        assert_eq!(full.raw_os_error(), Some(libc::ENOSPC), "filling ends with a full disk, not with {full}");
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Before the directory is removed, which the mount would prevent; a mount that stays ends
        // with the thread.
        let _ = umount2(self.directory.path(), MntFlags::MNT_DETACH);
    }
}
