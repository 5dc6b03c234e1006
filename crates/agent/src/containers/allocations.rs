//! Addresses of the node's network that no sandbox uses any more are given back: a runtime that
//! died, or was cleaned up by hand, never sends the DEL.
//!
//! Nothing is freed that may be alive: an address goes only after it was seen unused twice, with
//! [`GRACE`] between, and what cannot be found out counts as alive.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use weft_cni::protocol::record::Record;
use weft_cni::runtime::{Attached, DEFAULT_CACHE_DIR, Runtime};
use weft_ipam::host_local::{Attachment, Store};
use weft_kernel::{Link, Netlink};
use weft_model::mark;

use super::cri;
use super::folder::{GRACE, is_absent};
use crate::AgentConfig;

/// Who has an address: container and interface.
type Owner = (String, String);

/// What shows that sandboxes live.
#[derive(Debug, Default)]
struct Evidence {
    /// The names of the node's links.
    links: HashSet<String>,
    /// Whether another program's links face containers of the network: then whose cannot be told.
    strange_ports: bool,
    /// Sandboxes that the runtime lists by CRI; none where there is no such runtime.
    sandboxes: Option<HashSet<String>>,
    /// Owners whose namespace is there, or not, by records and libcni's cache.
    namespaces: HashMap<Owner, bool>,
}

/// The allocations of the agent's network.
pub(super) struct Allocations {
    data_dir: PathBuf,
    sockets: Vec<PathBuf>,
    unused: HashMap<Owner, Instant>,
}

impl Allocations {
    pub(super) fn new(cfg: &AgentConfig) -> Allocations {
        Allocations {
            data_dir: cfg.cni_data_dir.clone(),
            sockets: cfg.cri_sockets.clone(),
            unused: HashMap::new(),
        }
    }

    /// Frees what is known to be unused; how many addresses.
    pub(super) async fn reconcile(&mut self, records: &[Record], now: Instant) -> Result<usize> {
        let network = mark::CNI_NETWORK;
        let Some(store) = Store::open_existing(&self.data_dir, network)? else { return Ok(0) };
        let owners = store.owners()?;
        if owners.is_empty() {
            self.unused.clear();
            return Ok(0);
        }
        let evidence = self.evidence(records).await?;
        let dead = dead(owners, &evidence);
        self.unused.retain(|owner, _| dead.contains(owner));
        for owner in dead {
            self.unused.entry(owner).or_insert(now);
        }
        let over = |since: &Instant| now.duration_since(*since) >= GRACE;
        let freeable: HashSet<&Owner> =
            self.unused.iter().filter(|(_, since)| over(since)).map(|(o, _)| o).collect();
        if freeable.is_empty() {
            return Ok(0);
        }
        let keep = |id: &str, ifname: &str| !freeable.contains(&(id.to_owned(), ifname.to_owned()));
        let freed = store.retain(&keep)?;
        for (_, ip) in &freed {
            tracing::info!("freed {ip}: its sandbox is gone, and no DEL came for it");
        }
        Ok(freed.len())
    }

    async fn evidence(&self, records: &[Record]) -> Result<Evidence> {
        let mut evidence =
            Evidence { sandboxes: cri::sandboxes(&self.sockets).await?, ..Evidence::default() };
        let links = Netlink::open().and_then(|mut netlink| netlink.links()).context("list links")?;
        let bridge = links.iter().find(|link| link.name == mark::BRIDGE).map(|link| link.index);
        let is_strange =
            |link: &Link| link.master.is_some() && link.master == bridge && !link.name.starts_with("wf");
        evidence.strange_ports = links.iter().any(is_strange);
        evidence.links = links.into_iter().map(|link| link.name).collect();
        let cached = Runtime::new(Vec::new(), DEFAULT_CACHE_DIR.as_ref()).attachments().unwrap_or_default();
        for attached in cached.iter().filter(|a| a.network_name == mark::CNI_NETWORK && !a.netns.is_empty()) {
            let owner = (attached.container_id.clone(), attached.if_name.clone());
            evidence.namespaces.insert(owner, !Attached::is_gone(attached));
        }
        for record in records {
            let owner = (record.container_id.clone(), record.ifname.clone());
            let there = evidence.namespaces.entry(owner).or_default();
            *there |= !is_absent(&record.netns);
        }
        Ok(evidence)
    }
}

/// The owners that are known to be no more.
fn dead(owners: Vec<Owner>, evidence: &Evidence) -> HashSet<Owner> {
    owners.into_iter().filter(|owner| is_dead(owner, evidence)).collect()
}

fn is_dead(owner: &Owner, evidence: &Evidence) -> bool {
    let (container_id, ifname) = owner;
    let host_link = Attachment { container_id, ifname }.key();
    if evidence.links.contains(&host_link) {
        return false;
    }
    if evidence.sandboxes.as_ref().is_some_and(|sandboxes| sandboxes.contains(container_id)) {
        return false;
    }
    match evidence.namespaces.get(owner) {
        Some(there) => !there,
        // Its link would be there if we made it; if another program did, nothing is known.
        None => !evidence.strange_ports,
    }
}

#[cfg(test)]
mod tests {
    use weft_ipam::range::{Pool, RangeSpec};

    use super::*;

    fn owner(id: &str) -> Owner {
        (id.to_owned(), "eth0".to_owned())
    }

    #[test]
    fn only_what_is_known_to_be_gone_is_dead() {
        let key = Attachment { container_id: "linked", ifname: "eth0" }.key();
        let evidence = Evidence {
            links: HashSet::from([key, "weft0".to_owned()]),
            strange_ports: false,
            sandboxes: Some(HashSet::from(["listed".to_owned()])),
            namespaces: HashMap::from([
                (owner("there"), true),
                (owner("gone"), false),
                (owner("listed"), false),
            ]),
        };
        let owners = ["linked", "listed", "there", "gone", "unknown"].map(owner).to_vec();
        let found = dead(owners.clone(), &evidence);
        assert_eq!(found, HashSet::from([owner("gone"), owner("unknown")]));
        let strange = Evidence { strange_ports: true, ..evidence };
        assert_eq!(dead(owners, &strange), HashSet::from([owner("gone")]));
    }

    #[test]
    fn an_address_is_freed_when_it_was_seen_unused_twice_and_late() {
        let _ns = weft_kernel::testing::TestNs::new();
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), mark::CNI_NETWORK).unwrap();
        let spec = RangeSpec { subnet: "10.1.0.0/24".into(), ..RangeSpec::default() };
        let pool = Pool::new(&[vec![spec]]).unwrap();
        let take = |container_id: &str| {
            let attachment = Attachment { container_id, ifname: "eth0" };
            store.reserve(attachment, &pool, &[], &|_| true).unwrap().commit().unwrap();
        };
        take("gone");
        take("there");
        let there = tempfile::NamedTempFile::new().unwrap();
        let record = Record {
            container_id: "there".into(),
            ifname: "eth0".into(),
            netns: there.path().into(),
            ..Record::default()
        };
        let mut allocations =
            Allocations { data_dir: dir.path().into(), sockets: Vec::new(), unused: HashMap::new() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let start = Instant::now();
        let mut look = |seconds: u64| {
            let now = start + std::time::Duration::from_secs(seconds);
            runtime.block_on(allocations.reconcile(std::slice::from_ref(&record), now)).unwrap()
        };
        assert_eq!([look(0), look(30)], [0, 0], "too soon");
        assert_eq!(look(60), 1);
        assert_eq!(look(120), 0);
        assert_eq!(store.owners().unwrap(), [("there".to_owned(), "eth0".to_owned())]);
        // A runtime that is there and does not answer may have sandboxes: nothing is freed.
        let socket = dir.path().join("cri.sock");
        let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        allocations.sockets = vec![socket];
        take("late");
        let answered = runtime.block_on(async {
            let asked = allocations.reconcile(&[], start);
            tokio::time::timeout(std::time::Duration::from_millis(200), asked).await.is_ok()
        });
        assert!(!answered, "it waits for the runtime's answer");
        assert_eq!(store.owners().unwrap().len(), 2);
    }
}
