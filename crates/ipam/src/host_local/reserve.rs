//! Taking addresses.

use std::cell::Cell;
use std::collections::HashSet;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::host_local::index::Marks;
use crate::host_local::record::Record;
use crate::host_local::{Attachment, Error, Result, Store, directory, index, reclaim};
use crate::range::{Assignment, Pool, RangeSet};

/// How many addresses are tried one by one before the directory is listed.
const TRIES: usize = 64;

/// The addresses of an ADD that has not finished. Dropped without [`Reservation::commit`], they
/// stay reserved until they are released or a later ADD finds this process gone and no link.
#[derive(Debug)]
pub struct Reservation<'a> {
    store: &'a Store,
    key: String,
    assignments: Vec<Assignment>,
    torn: Vec<IpAddr>,
    intent: OwnedFd,
}

impl Reservation<'_> {
    /// One address for each set of the pool.
    pub fn assignments(&self) -> &[Assignment] {
        &self.assignments
    }

    /// Those of the addresses of which there was a file that named no owner, for it was empty.
    pub fn torn(&self) -> &[IpAddr] {
        &self.torn
    }

    /// Whether the addresses are still this ADD's: a DEL that came meanwhile has freed them.
    pub fn is_held(&self) -> bool {
        rustix::fs::fstat(&self.intent).is_ok_and(|stat| stat.st_nlink > 0)
    }

    /// Marks the ADD as finished: from now on only a release or a reboot frees the addresses.
    pub fn commit(&self) -> Result<()> {
        self.store.dir.rename(&index::intent(&self.key), &index::id(&self.key))
    }
}

pub(crate) fn reserve<'a>(
    store: &'a Store,
    attachment: Attachment<'_>,
    pool: &Pool,
    requested: &[IpAddr],
    in_use: &dyn Fn(&str) -> bool,
) -> Result<Reservation<'a>> {
    let torn = Cell::default();
    let all = || {
        refuse_strays(pool, requested)?;
        let choose = |(number, set)| choose(&Free { store, torn: &torn }, number, set, requested);
        pool.sets().iter().enumerate().map(choose).collect::<Result<Vec<Assignment>>>()
    };
    let mut lease = reserve_by(store, attachment, Marks::Sets(pool.sets().len()), in_use, all)?;
    lease.torn = torn.take();
    Ok(lease)
}

/// Reserves what `choose` says, under the lock.
pub(crate) fn reserve_by<'a>(
    store: &'a Store,
    attachment: Attachment<'_>,
    marks: Marks,
    in_use: &dyn Fn(&str) -> bool,
    choose: impl FnOnce() -> Result<Vec<Assignment>>,
) -> Result<Reservation<'a>> {
    let _lock = store.locked()?;
    reclaim(store, in_use)?;
    if !index::is_current(&store.dir, marks) {
        index::rebuild(&store.dir)?;
    }
    refuse_duplicate(store, attachment)?;
    let assignments = choose()?;
    let key = attachment.key();
    match take(store, attachment, &key, &assignments, marks) {
        Ok(intent) => Ok(Reservation { store, key, assignments, torn: Vec::new(), intent }),
        Err(error) => {
            give_back(store, attachment, &key, &assignments);
            Err(error)
        }
    }
}

fn refuse_duplicate(store: &Store, attachment: Attachment<'_>) -> Result<()> {
    let key = attachment.key();
    let record = index::lookup(&store.dir, &key)?.unwrap_or_default();
    let stale = !record.addresses.is_empty();
    let held = store.owned_of(record.addresses, attachment)?;
    // An intent that was not reclaimed just now belongs to a live process or to a live link.
    if held.is_empty() && !store.dir.exists(&index::intent(&key))? {
        if stale {
            // The other program has released it since; what follows would not be found behind it.
            store.dir.remove(&index::id(&key))?;
        }
        return Ok(());
    }
    let held: Vec<String> = held.iter().map(IpAddr::to_string).collect();
    Err(Error::Duplicate {
        container_id: attachment.container_id.into(),
        ifname: attachment.ifname.into(),
        addresses: if held.is_empty() { "an unfinished ADD".into() } else { held.join(", ") },
    })
}

fn refuse_strays(pool: &Pool, requested: &[IpAddr]) -> Result<()> {
    for ip in requested {
        if !pool.sets().iter().any(|set| set.assignment(ip).is_some()) {
            let why = "is none that this network hands out: choose one of its ranges".into();
            return Err(Error::Unavailable { ip: *ip, why });
        }
    }
    for set in pool.sets() {
        let mut of_set = requested.iter().filter(|ip| set.assignment(ip).is_some());
        let first = of_set.next();
        if let (Some(first), Some(ip)) = (first, of_set.find(|ip| Some(*ip) != first)) {
            let why = format!("is in the same ranges as {first}, and each set of ranges gives one address");
            return Err(Error::Unavailable { ip: *ip, why });
        }
    }
    Ok(())
}

fn choose(free: &Free<'_>, number: usize, set: &RangeSet, requested: &[IpAddr]) -> Result<Assignment> {
    if let Some(wanted) = requested.iter().find_map(|ip| set.assignment(ip)) {
        let ip = wanted.address.addr();
        let why = || "is taken: choose another or delete the pod that has it".into();
        return if free.is(&ip)? { Ok(wanted) } else { Err(Error::Unavailable { ip, why: why() }) };
    }
    let last = free.store.dir.read(&index::last_reserved(number))?;
    let last = last.and_then(|bytes| String::from_utf8(bytes).ok()?.trim().parse().ok());
    for candidate in set.candidates(last).take(TRIES) {
        if free.is(&candidate.address.addr())? {
            return Ok(candidate);
        }
    }
    choose_from_listing(free, set, last)
}

fn choose_from_listing(free: &Free<'_>, set: &RangeSet, last: Option<IpAddr>) -> Result<Assignment> {
    let taken: HashSet<IpAddr> =
        free.store.dir.addresses()?.into_iter().filter(|ip| set.assignment(ip).is_some()).collect();
    let untaken = set.candidates(last).find(|candidate| !taken.contains(&candidate.address.addr()));
    if let Some(untaken) = untaken {
        return Ok(untaken);
    }
    for ip in &taken {
        if let (true, Some(empty)) = (free.is(ip)?, set.assignment(ip)) {
            return Ok(empty);
        }
    }
    Err(exhausted(set, taken.len()))
}

pub(crate) fn exhausted(set: &RangeSet, taken: usize) -> Error {
    Error::Exhausted { ranges: set.to_string(), taken, size: set.size() }
}

/// Finds out which addresses are free.
struct Free<'a> {
    store: &'a Store,
    torn: &'a Cell<Vec<IpAddr>>,
}

impl Free<'_> {
    /// An empty file is no reservation: the reference creates the file before it writes the owner,
    /// under the lock that we hold, so its writer died in between; or the power went before the
    /// content was on the disk.
    fn is(&self, ip: &IpAddr) -> Result<bool> {
        let name = ip.to_string();
        match self.store.dir.length(&name)? {
            None => Ok(true),
            Some(0) => {
                let mut torn = self.torn.take();
                torn.push(*ip);
                self.torn.set(torn);
                self.store.dir.remove(&name)
            }
            Some(_) => Ok(false),
        }
    }
}

/// The intent first, so that whatever follows can be given back; the addresses last.
fn take(
    store: &Store,
    attachment: Attachment<'_>,
    key: &str,
    assignments: &[Assignment],
    marks: Marks,
) -> Result<OwnedFd> {
    let addresses: Vec<IpAddr> = assignments.iter().map(|a| a.address.addr()).collect();
    let record = Record { addresses }.text();
    let intent = store.dir.write_locked(&index::intent(key), record.as_bytes())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let modified = index::mark(i64::try_from(now.as_secs()).unwrap_or(0));
    for (place, assignment) in assignments.iter().enumerate() {
        let set = match marks {
            Marks::Sets(_) => place,
            Marks::Families => usize::from(assignment.address.addr().is_ipv6()),
        };
        let text = assignment.address.addr().to_string();
        store.dir.overwrite(&index::last_reserved(set), text.as_bytes(), modified)?;
    }
    store.dir.write_new(directory::NEW, attachment.content().as_bytes())?;
    for assignment in assignments {
        store.dir.link(directory::NEW, &assignment.address.addr().to_string())?;
    }
    store.dir.remove(directory::NEW)?;
    Ok(intent)
}

fn give_back(store: &Store, attachment: Attachment<'_>, key: &str, assignments: &[Assignment]) {
    let addresses: Vec<IpAddr> = assignments.iter().map(|a| a.address.addr()).collect();
    store.remove_owned(&addresses, &attachment.content()).ok();
    store.dir.remove(&index::intent(key)).ok();
    store.dir.remove(directory::NEW).ok();
}
