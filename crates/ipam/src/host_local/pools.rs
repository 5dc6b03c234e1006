//! Allocations out of pools: the file that says what the node may give is beside them, and is read and
//! written under the same lock.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use super::{Attachment, Error, Result, Store, index, reserve};
use crate::host_local::index::Marks;
use crate::host_local::record::owner_of;
use crate::host_local::reserve::Reservation;
use crate::pools::choose::{self, Request};
use crate::pools::file::File;

/// The file's place.
pub(super) const FILE: &str = ".weft/pools.json";
/// It is never longer.
const LIMIT: u64 = 16 << 20;

impl Store {
    /// Reserves addresses of the pools, as [`Store::reserve`] does of ranges.
    pub fn reserve_of_pools(
        &self,
        attachment: Attachment<'_>,
        request: &Request,
        in_use: &dyn Fn(&str) -> bool,
    ) -> Result<Reservation<'_>> {
        reserve::reserve_by(self, attachment, Marks::Families, in_use, || {
            let Some(file) = self.pools()? else {
                return Err(Error::NotYet("the agent has not told yet what this node may give".into()));
            };
            let taken: HashSet<IpAddr> = self.dir.addresses()?.into_iter().collect();
            let last = |set| -> Result<Option<IpAddr>> {
                let bytes = self.dir.read(&index::last_reserved(set))?;
                Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()?.trim().parse().ok()))
            };
            choose::choose(&file, request, &taken, [last(0)?, last(1)?])
                .map_err(|refusal| Error::NotYet(refusal.to_string()))
        })
    }

    /// Frees what [`Store::reserve_of_pools`] reserved; none is no error.
    pub fn release_of_pools(&self, attachment: Attachment<'_>) -> Result<Vec<IpAddr>> {
        self.release_of(attachment, Some(Marks::Families))
    }

    /// The addresses that are taken.
    pub fn allocated(&self) -> Result<BTreeSet<IpAddr>> {
        let _lock = self.dir.lock()?;
        Ok(self.dir.addresses()?.into_iter().collect())
    }

    /// Frees an address whose owner is not `in_use`, which is told its key; whether it is free now.
    pub fn free(&self, ip: IpAddr, in_use: &dyn Fn(&str) -> bool) -> Result<bool> {
        let _lock = self.locked()?;
        let name = ip.to_string();
        let Some(content) = self.dir.read(&name)? else { return Ok(true) };
        if let Some((container_id, ifname)) = owner_of(&content) {
            let key = Attachment { container_id, ifname }.key();
            if in_use(&key) || self.dir.exists(&index::intent(&key))? {
                return Ok(false);
            }
            index::forget(&self.dir, &key)?;
        }
        self.dir.remove(&name)?;
        Ok(true)
    }

    /// What the node may give, as its agent last said; an error says why it cannot be read.
    pub fn pools(&self) -> Result<Option<File>> {
        let Some(text) = self.dir.read_long(FILE, LIMIT)? else { return Ok(None) };
        let unreadable = |why| Error::NotYet(format!("{FILE} of the allocations cannot be read: {why}"));
        File::parse(&text).map(Some).map_err(unreadable)
    }

    /// Has `change` say from the allocations what the node may give from now on; nobody reserves or
    /// releases meanwhile.
    pub fn update_pools<T>(&self, change: impl FnOnce(&BTreeSet<IpAddr>) -> (File, T)) -> Result<T> {
        let _lock = self.locked()?;
        let taken = self.dir.addresses()?.into_iter().collect();
        let (file, answer) = change(&taken);
        let text = file.text();
        if self.dir.read_long(FILE, LIMIT)?.as_deref() != Some(&text) {
            self.dir.write_renamed(FILE, &text)?;
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pools::file::{Names, Pool, Span, VERSION};

    fn file(last: &str) -> File {
        let span = Span {
            pool: "p".into(),
            block: "10.1.0.0/26".parse().unwrap(),
            first: "10.1.0.1".parse().unwrap(),
            last: last.parse().unwrap(),
        };
        File {
            version: VERSION,
            pools: vec![Pool { name: "p".into(), cidr: "10.1.0.0/16".parse().unwrap() }],
            spans: vec![span],
            choices: vec![Names { automatic: vec!["p".into()], allowed: vec!["p".into()] }],
            namespaces: [("default".into(), 0)].into(),
            ..File::default()
        }
    }

    #[test]
    fn pods_get_what_the_agent_allows_and_give_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), "net").unwrap();
        let eth0 = |container_id| Attachment { container_id, ifname: "eth0" };
        let add = |id: &'static str| {
            let lease = store.reserve_of_pools(eth0(id), &Request::default(), &|_| false)?;
            lease.commit()?;
            Ok::<_, Error>(
                lease.assignments().iter().map(|a| a.address.addr().to_string()).collect::<Vec<_>>(),
            )
        };
        assert!(matches!(add("a"), Err(Error::NotYet(_))), "there is no file yet");
        let write = |last: &str| store.update_pools(|taken| (file(last), taken.len())).unwrap();
        assert_eq!(write("10.1.0.2"), 0);
        assert_eq!(add("a").unwrap(), ["10.1.0.1"]);
        assert!(matches!(add("a"), Err(Error::Duplicate { .. })));
        assert_eq!(add("b").unwrap(), ["10.1.0.2"]);
        assert!(matches!(add("c"), Err(Error::NotYet(why)) if why.contains("no address of p is left")));
        assert_eq!(write("10.1.0.3"), 2);
        assert_eq!(add("c").unwrap(), ["10.1.0.3"]);
        assert_eq!(store.release_of_pools(eth0("a")).unwrap().len(), 1);
        assert!(store.release_of_pools(eth0("a")).unwrap().is_empty());
        assert_eq!(add("d").unwrap(), ["10.1.0.1"]);
        let ip = "10.1.0.1".parse().unwrap();
        assert!(!store.free(ip, &|key| key == eth0("d").key()).unwrap(), "its link is there");
        assert!(store.free(ip, &|_| false).unwrap() && store.free(ip, &|_| true).unwrap());
        assert_eq!(add("f").unwrap(), ["10.1.0.1"]);
        std::fs::write(dir.path().join("net").join(FILE), "{").unwrap();
        assert!(matches!(add("e"), Err(Error::NotYet(why)) if why.contains("cannot be read")));
    }
}
