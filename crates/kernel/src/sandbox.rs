//! A machine inside the machine: user, mount, network and process namespaces.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getegid, geteuid, sethostname};

use crate::{Error, Result};

/// Moves the calling process into a mount, network and process-number namespace of its own, and
/// with `user` into a user namespace where it is root. Mounts made from then on are not seen
/// outside. The process must have one thread; its *children* are in the new process-number
/// namespace, the first of them as number 1.
pub fn unshare_lab(user: bool) -> Result<()> {
    let own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID;
    if user {
        let (uid, gid) = (geteuid(), getegid());
        unshare(CloneFlags::CLONE_NEWUSER).map_err(|e| refused_user_namespace(e, "create"))?;
        map_root(uid.as_raw(), gid.as_raw())?;
        // Some machines allow the user namespace and take its privileges away.
        unshare(own).map_err(|e| refused_user_namespace(e, "use"))?;
    } else {
        unshare(own).map_err(|e| Error::sys("create", "mount, network and process namespaces", e))?;
    }
    make_mounts_private()
}

/// Stops mounts from being carried to or from other mount namespaces.
pub fn make_mounts_private() -> Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(|e| Error::sys("make private", "the mounts", e))
}

/// Gives the calling process, which must have one thread, mounts of its own.
pub fn unshare_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| Error::sys("create", "a mount namespace", e))
}

/// Joins the namespaces [`unshare_lab`] made, those of the process behind `pidfd`. The process
/// must have one thread; its children are in the process-number namespace. Where `/proc` is that
/// namespace's, the calling process itself is not in it: work that needs `/proc/self`, such as
/// [`crate::Netns::current`], is for a child.
pub fn enter(pidfd: BorrowedFd<'_>, user: bool) -> Result<()> {
    let mut which = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID;
    which.set(CloneFlags::CLONE_NEWUSER, user);
    setns(pidfd, which).map_err(|e| Error::sys("enter", "the namespaces of a process", e))
}

/// Mounts the `/proc` of the calling process's own process-number namespace over `/proc`.
pub fn mount_proc() -> Result<()> {
    mount_kernel("proc", "/proc")
}

/// Mounts a `/sys` that shows the calling thread's network namespace over `/sys`.
pub fn mount_sysfs() -> Result<()> {
    mount_kernel("sysfs", "/sys")
}

fn mount_kernel(kind: &str, target: &str) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(kind), target, Some(kind), flags, None::<&str>).map_err(|e| Error::sys("mount", target, e))
}

/// Shows directory or file `source`, with what is mounted below it, at `target` also.
pub fn bind_mount(source: &Path, target: &Path) -> Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(|e| Error::sys("bind mount", format!("{} on {}", source.display(), target.display()), e))
}

/// Mounts an empty memory file system of at most `bytes` at `target`.
pub fn mount_tmpfs(target: &Path, bytes: u64) -> Result<()> {
    let options = format!("size={bytes},mode=0755");
    mount(
        Some("tmpfs"),
        target,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some(options.as_str()),
    )
    .map_err(|e| Error::sys("mount tmpfs on", target.display().to_string(), e))
}

/// Moves the calling process into a host-name namespace of its own and names it.
pub fn set_hostname(name: &str) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWUTS)
        .and_then(|()| sethostname(name))
        .map_err(|e| Error::sys("set host name", name, e))
}

fn map_root(uid: u32, gid: u32) -> Result<()> {
    let write = |path: &str, value: String| fs::write(path, value).map_err(|e| Error::sys("write", path, e));
    // A group map may be written without privilege only once setgroups is given up.
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", format!("0 {gid} 1"))
}

/// A sysctl that can forbid user namespaces.
struct Switch {
    name: &'static str,
    /// The value that allows them.
    allows: i64,
    /// Whether it forbids them when it is zero, or when it is not.
    forbids_at_zero: bool,
}

const SWITCHES: [Switch; 3] = [
    Switch { name: "kernel.unprivileged_userns_clone", allows: 1, forbids_at_zero: true },
    Switch { name: "user.max_user_namespaces", allows: 15_000, forbids_at_zero: true },
    Switch { name: "kernel.apparmor_restrict_unprivileged_userns", allows: 0, forbids_at_zero: false },
];

fn refused_user_namespace(errno: nix::Error, op: &'static str) -> Error {
    if !matches!(errno, nix::Error::EPERM | nix::Error::ENOSPC | nix::Error::EACCES | nix::Error::EUSERS) {
        return Error::sys(op, "user namespace", errno);
    }
    let sysctl = forbidding_switch(errno, |name| crate::sysctl::get(name).ok()?.parse().ok());
    Error::UserNamespacesForbidden { sysctl, errno: io::Error::from(errno) }
}

/// The setting to change: the switch that is on; where none is, the one the error hints at.
fn forbidding_switch(errno: nix::Error, read: impl Fn(&str) -> Option<i64>) -> String {
    let forbids = |s: &&Switch| read(s.name).is_some_and(|now| (now == 0) == s.forbids_at_zero);
    let on = SWITCHES.iter().find(forbids);
    let hinted = if errno == nix::Error::ENOSPC { &SWITCHES[1] } else { &SWITCHES[0] };
    let switch = on.unwrap_or(hinted);
    format!("{}={}", switch.name, switch.allows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_switch_that_forbids_is_named() {
        let set = |name: &'static str, value| move |asked: &str| (asked == name).then_some(value);
        let eperm = nix::Error::EPERM;
        assert_eq!(
            forbidding_switch(eperm, set("kernel.apparmor_restrict_unprivileged_userns", 1)),
            "kernel.apparmor_restrict_unprivileged_userns=0"
        );
        assert_eq!(
            forbidding_switch(eperm, set("kernel.unprivileged_userns_clone", 0)),
            "kernel.unprivileged_userns_clone=1"
        );
        assert_eq!(forbidding_switch(nix::Error::ENOSPC, |_| None), "user.max_user_namespaces=15000");
    }
}
