//! A node's allocations on disk, in the directory format of the reference plugin `host-local`.
//!
//! `<data dir>/<network>/` holds a file for each address taken (named by it, holding
//! `<container ID>\r\n<interface>`), `last_reserved_ip.<set>`, and `lock`, which both programs
//! hold (flock) while they read or change the directory. In `.weft/` beside them is what the
//! reference does not know and does not mind:
//!
//! - `id/<key>`: the addresses of an attachment, so that ADD and DEL need not read every file
//!   as the reference does. It is only an index: what it says is checked against the address
//!   file, and where the reference has written since (the mark on `last_reserved_ip` is gone)
//!   the directory is walked and the index made anew.
//! - `intent/<key>`: the same for an ADD that has not finished, locked by its process until it
//!   ends. A later ADD gives back what an intent without a process had taken.
//! - `boot`: a link that "points" to the kernel's boot ID. When that is another one, every
//!   sandbox is gone, and so is every reservation made before.
//!
//! Files become visible whole (written aside, then linked or renamed). Nothing is synced to
//! disk: a power cut ends every sandbox, and the boot ID then voids all of this anyway.

mod boot;
mod directory;
mod index;
mod pools;
mod record;
mod reserve;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

pub use record::owner_of;
pub use reserve::Reservation;

use crate::host_local::boot::Boot;
use crate::host_local::directory::{Dir, Lock};
use crate::host_local::index::Marks;
use crate::host_local::record::Record;
use crate::range::Pool;

/// Where the reference keeps its networks when the configuration names no `dataDir`.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/cni/networks";

/// What an address is taken for: one interface of one sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment<'a> {
    /// The container ID of the CNI call, checked by the caller.
    pub container_id: &'a str,
    /// The interface's name in the sandbox, checked by the caller.
    pub ifname: &'a str,
}

impl Attachment<'_> {
    /// The name of its records, and of its host-side link.
    pub fn key(&self) -> String {
        weft_model::mark::host_link_name(self.container_id, self.ifname)
    }

    fn content(&self) -> String {
        format!("{}\r\n{}", self.container_id, self.ifname)
    }
}

/// Why the allocations could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The agent has not told yet what a pod may have, or has nothing for it.
    #[error("{0}")]
    NotYet(String),
    /// A file operation failed.
    #[error("cannot {op} {path}: {source}")]
    Io {
        /// What was attempted.
        op: &'static str,
        /// On which file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The attachment has addresses already.
    #[error(
        "{ifname} of container {container_id} has {addresses} already: delete it before it is added again"
    )]
    Duplicate {
        /// The container.
        container_id: String,
        /// Its interface.
        ifname: String,
        /// What it holds, joined by commas.
        addresses: String,
    },
    /// A range set has no free address.
    #[error(
        "no address is left in {ranges}: {taken} of {size} are taken; delete pods of this node or give it a larger range"
    )]
    Exhausted {
        /// The ranges of the set.
        ranges: String,
        /// How many addresses are taken.
        taken: usize,
        /// How many the set has.
        size: u128,
    },
    /// An address asked for by name cannot be had.
    #[error("the requested address {ip} {why}")]
    Unavailable {
        /// The address.
        ip: IpAddr,
        /// Why not.
        why: String,
    },
}

/// A result of this module.
pub type Result<T> = std::result::Result<T, Error>;

/// Who has `ip` by the accounts of other networks in the same folder: network, container, interface.
/// What cannot be read has nothing.
pub fn elsewhere(data_dir: &Path, network: &str, ip: IpAddr) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(data_dir).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name == network {
            continue;
        }
        let Ok(Some(dir)) = Dir::open(&entry.path()) else { continue };
        let content = dir.read(&ip.to_string()).ok().flatten().unwrap_or_default();
        if let Some((container_id, ifname)) = owner_of(&content) {
            found.push((name, container_id.to_owned(), ifname.to_owned()));
        }
    }
    found
}

/// The allocations of one network on this node.
#[derive(Debug)]
pub struct Store {
    dir: Dir,
    boot: Boot,
}

impl Store {
    /// Opens the directory of `network`, making it if it is absent.
    pub fn open(data_dir: &Path, network: &str) -> Result<Store> {
        let path = data_dir.join(network);
        let dir = match Dir::open(&path)? {
            Some(dir) => dir,
            None => Dir::create(&path)?,
        };
        Ok(Store { dir, boot: Boot::current()? })
    }

    /// Opens the directory of `network` if there is one.
    pub fn open_existing(data_dir: &Path, network: &str) -> Result<Option<Store>> {
        let Some(dir) = Dir::open(&data_dir.join(network))? else { return Ok(None) };
        Ok(Some(Store { dir, boot: Boot::current()? }))
    }

    /// Reserves one address of each set of `pool`, or exactly those of `requested` in the sets
    /// they lie in. `in_use` says of an unfinished ADD's key, whose process is gone, whether its
    /// host-side link is still there; if not, its addresses are free again.
    ///
    /// On an error nothing has changed. The reservation is unfinished until
    /// [`Reservation::commit`].
    pub fn reserve(
        &self,
        attachment: Attachment<'_>,
        pool: &Pool,
        requested: &[IpAddr],
        in_use: &dyn Fn(&str) -> bool,
    ) -> Result<Reservation<'_>> {
        reserve::reserve(self, attachment, pool, requested, in_use)
    }

    /// Frees every address of the attachment and says which; none is no error. Only deletes
    /// files, so it works on a full disk. `pool` only makes it fast.
    pub fn release(&self, attachment: Attachment<'_>, pool: Option<&Pool>) -> Result<Vec<IpAddr>> {
        self.release_of(attachment, pool.map(|pool| Marks::Sets(pool.sets().len())))
    }

    /// The same where it is known how the last reserved addresses are kept.
    fn release_of(&self, attachment: Attachment<'_>, marks: Option<Marks>) -> Result<Vec<IpAddr>> {
        let lock = self.dir.lock_to_remove()?;
        if let Some(lock) = &lock {
            self.boot.void_earlier(&self.dir, lock).ok();
        }
        let indexed = index::lookup(&self.dir, &attachment.key())?.unwrap_or_default().addresses;
        // Beside the intent of a killed ADD of ours the other program may have given another address since.
        let trusted = !self.dir.exists(&index::intent(&attachment.key()))?
            && marks.is_some_and(|marks| index::is_current(&self.dir, marks));
        let mut freed = if trusted && !indexed.is_empty() {
            let (freed, unread) = self.remove_owned(&indexed, &attachment.content())?;
            // Its own: what is forgotten now would not be found again.
            unread.map_or(Ok(freed), Err)?
        } else {
            self.remove_any_owned(&attachment.content())?
        };
        if freed.is_empty() && !trusted {
            // Files of releases that did not write the interface's name.
            freed = self.remove_any_owned(attachment.container_id)?;
        }
        index::forget(&self.dir, &attachment.key())?;
        self.dir.remove(directory::NEW)?;
        Ok(freed)
    }

    /// The addresses the attachment holds.
    pub fn held(&self, attachment: Attachment<'_>) -> Result<Vec<IpAddr>> {
        let _lock = self.dir.lock()?;
        let indexed = index::lookup(&self.dir, &attachment.key())?.unwrap_or_default().addresses;
        let found = self.owned_of(indexed, attachment)?;
        if found.is_empty() { self.owned_of(self.dir.addresses()?, attachment) } else { Ok(found) }
    }

    /// The error that a reservation would end with now for want of addresses, if it would.
    pub fn exhausted(&self, pool: &Pool) -> Result<Option<Error>> {
        let _lock = self.dir.lock()?;
        let taken = self.dir.addresses()?;
        let full = pool.sets().iter().find_map(|set| {
            let count = taken.iter().filter(|ip| set.assignment(ip).is_some()).count();
            (count as u128 >= set.size()).then(|| reserve::exhausted(set, count))
        });
        Ok(full)
    }

    /// Who holds addresses: container ID and interface; files that name no owner and unfinished
    /// ADDs left out.
    pub fn owners(&self) -> Result<Vec<(String, String)>> {
        let _lock = self.dir.lock()?;
        let mut owners = Vec::new();
        for ip in self.dir.addresses()? {
            let content = self.dir.read(&ip.to_string())?.unwrap_or_default();
            let Some((container_id, ifname)) = owner_of(&content) else { continue };
            if !self.dir.exists(&index::intent(&Attachment { container_id, ifname }.key()))? {
                owners.push((container_id.to_owned(), ifname.to_owned()));
            }
        }
        Ok(owners)
    }

    /// Frees what belongs to no attachment that `keep` accepts (container ID, interface), and
    /// says which keys held which addresses. Files that name no owner and unfinished ADDs stay.
    pub fn retain(&self, keep: &dyn Fn(&str, &str) -> bool) -> Result<Vec<(String, IpAddr)>> {
        let _lock = self.dir.lock()?;
        let mut freed = Vec::new();
        for ip in self.dir.addresses()? {
            let content = self.dir.read(&ip.to_string())?.unwrap_or_default();
            let Some((container_id, ifname)) = owner_of(&content) else { continue };
            let key = Attachment { container_id, ifname }.key();
            if !keep(container_id, ifname) && !self.dir.exists(&index::intent(&key))? {
                self.dir.remove(&ip.to_string())?;
                index::forget(&self.dir, &key)?;
                freed.push((key, ip));
            }
        }
        Ok(freed)
    }

    fn owned_of(&self, addresses: Vec<IpAddr>, attachment: Attachment<'_>) -> Result<Vec<IpAddr>> {
        let content = attachment.content();
        let owned = |ip: IpAddr| Ok(self.owned(&ip, &content)?.then_some(ip));
        addresses.into_iter().map(owned).filter_map(Result::transpose).collect()
    }

    fn owned(&self, ip: &IpAddr, content: &str) -> Result<bool> {
        let read = self.dir.read(&ip.to_string())?;
        Ok(read.is_some_and(|bytes| bytes.trim_ascii() == content.as_bytes()))
    }

    /// Removes those of the addresses that have this content, and says of which that could not be
    /// found out.
    fn remove_owned(&self, addresses: &[IpAddr], content: &str) -> Result<(Vec<IpAddr>, Option<Error>)> {
        let (mut removed, mut unread) = (Vec::new(), None);
        for ip in addresses {
            match self.owned(ip, content) {
                Ok(true) => removed.extend(self.dir.remove(&ip.to_string())?.then_some(*ip)),
                Ok(false) => {}
                Err(error) => unread = Some(error),
            }
        }
        Ok((removed, unread))
    }

    /// The same for every address that is taken. A file that cannot be read is most likely another's,
    /// so its error counts only where nothing else was found.
    fn remove_any_owned(&self, content: &str) -> Result<Vec<IpAddr>> {
        match self.remove_owned(&self.dir.addresses()?, content)? {
            (removed, Some(error)) if removed.is_empty() => Err(error),
            (removed, _) => Ok(removed),
        }
    }

    fn locked(&self) -> Result<Lock> {
        let lock = self.dir.lock()?;
        self.boot.void_earlier(&self.dir, &lock)?;
        Ok(lock)
    }
}

/// Removes what an ADD left that died, unless its link is still there.
fn reclaim(store: &Store, in_use: &dyn Fn(&str) -> bool) -> Result<()> {
    for key in store.dir.names(index::INTENTS)? {
        let name = index::intent(&key);
        if !store.dir.is_abandoned(&name)? || in_use(&key) {
            continue;
        }
        let record = store.dir.read(&name)?.map(|bytes| Record::parse(&bytes)).unwrap_or_default();
        for ip in &record.addresses {
            let content = store.dir.read(&ip.to_string())?.unwrap_or_default();
            let owner = owner_of(&content).map(|(container_id, ifname)| Attachment { container_id, ifname });
            if owner.is_some_and(|owner| owner.key() == key) {
                store.dir.remove(&ip.to_string())?;
            }
        }
        store.dir.remove(&name)?;
    }
    Ok(())
}
