//! Addresses of the node's network that no sandbox uses any more are given back: a runtime that
//! died, or was cleaned up by hand, never sends the DEL.
//!
//! Nothing is freed that may be alive: an address goes only after it was seen unused twice, with
//! [`GRACE`] between, and what cannot be found out counts as alive.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use weft_cni::protocol::record::Record;
use weft_cni::runtime::{Attached, DEFAULT_CACHE_DIR, Runtime};
use weft_ipam::host_local::{Attachment, Store};
use weft_kernel::{Link, Netlink};
use weft_model::mark;

use super::cri::{Cri, Sandboxes};
use super::folder::{GRACE, is_absent};

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
    /// What a runtime that speaks CRI attached and lists no more, though the namespace is there: the
    /// runtime was killed before it noted the sandbox. Nothing runs in it.
    abandoned: HashMap<Owner, Attached>,
}

/// The allocations of the agent's network.
pub(super) struct Allocations {
    data_dir: PathBuf,
    runtime: Runtime,
    unused: HashMap<Owner, Instant>,
}

impl Allocations {
    pub(super) fn new(data_dir: PathBuf) -> Allocations {
        let runtime = Runtime::new(Vec::new(), DEFAULT_CACHE_DIR.as_ref());
        Allocations { data_dir, runtime, unused: HashMap::new() }
    }

    /// Frees what is known to be unused; how many addresses.
    pub(super) async fn reconcile(
        &mut self,
        cri: &mut Cri,
        records: &[Record],
        now: Instant,
    ) -> Result<usize> {
        let network = mark::CNI_NETWORK;
        let Some(store) = Store::open_existing(&self.data_dir, network)? else { return Ok(0) };
        let owners = store.owners()?;
        if owners.is_empty() {
            self.unused.clear();
            return Ok(0);
        }
        let evidence = self.evidence(cri.sandboxes().await?, records)?;
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
        let mut freed = 0;
        for (owner, attached) in evidence.abandoned.iter().filter(|(owner, _)| freeable.contains(owner)) {
            let deleted = self.runtime.del_attached(attached);
            deleted.with_context(|| format!("delete the abandoned sandbox {}", owner.0))?;
            tracing::info!(
                "deleted the sandbox {}: its runtime lists it no more, and nothing runs in it",
                owner.0
            );
            freed += 1;
        }
        let keep = |id: &str, ifname: &str| !freeable.contains(&(id.to_owned(), ifname.to_owned()));
        let unclaimed = store.retain(&keep)?;
        for (_, ip) in &unclaimed {
            tracing::info!("freed {ip}: its sandbox is gone, and no DEL came for it");
        }
        Ok(freed + unclaimed.len())
    }

    fn evidence(&self, sandboxes: Option<Sandboxes>, records: &[Record]) -> Result<Evidence> {
        let mut evidence = Evidence::default();
        let links = Netlink::open().and_then(|mut netlink| netlink.links()).context("list links")?;
        let bridge = links.iter().find(|link| link.name == mark::BRIDGE).map(|link| link.index);
        let is_strange =
            |link: &Link| link.master.is_some() && link.master == bridge && !link.name.starts_with("wf");
        evidence.strange_ports = links.iter().any(is_strange);
        evidence.links = links.into_iter().map(|link| link.name).collect();
        let cached = self.runtime.attachments().unwrap_or_default();
        for attached in cached.into_iter().filter(|a| a.network_name == mark::CNI_NETWORK) {
            let Some(netns) = attached.netns() else { continue };
            let owner = (attached.container_id.clone(), attached.if_name.clone());
            let is_there = !is_absent(netns);
            let made = self.runtime.made(&attached).and_then(|made| made.elapsed().ok());
            if is_there && is_forgotten(&attached, made, sandboxes.as_ref()) && !is_inhabited(netns) {
                evidence.abandoned.insert(owner.clone(), attached);
            }
            evidence.namespaces.insert(owner, is_there);
        }
        for record in records {
            let owner = (record.container_id.clone(), record.ifname.clone());
            let there = evidence.namespaces.entry(owner).or_default();
            *there |= !is_absent(&record.netns);
        }
        evidence.sandboxes = sandboxes.map(|sandboxes| sandboxes.ids);
        Ok(evidence)
    }
}

/// Whether a runtime that speaks CRI attached it (that long ago), was started anew since, and has it
/// no more. Before that it may be about to list it.
fn is_forgotten(attached: &Attached, made: Option<Duration>, sandboxes: Option<&Sandboxes>) -> bool {
    let id = attached.container_id.as_str();
    attached.arg("K8S_POD_INFRA_CONTAINER_ID") == Some(id)
        && sandboxes.is_some_and(|sandboxes| {
            let since = sandboxes.age.zip(made).is_some_and(|(age, made)| made > age);
            since && !sandboxes.ids.contains(id)
        })
}

/// Whether a process is in the namespace; what cannot be found out counts as one.
fn is_inhabited(netns: &Path) -> bool {
    let inode = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino()));
    let (Ok(wanted), Ok(processes)) = (inode(netns), std::fs::read_dir("/proc")) else { return true };
    let mut of_processes = processes.flatten().map(|entry| entry.path().join("ns/net"));
    of_processes.any(|path| match inode(&path) {
        Ok(found) => found == wanted,
        // It ended meanwhile, or is no process.
        Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    })
}

/// The owners that are known to be no more.
fn dead(owners: Vec<Owner>, evidence: &Evidence) -> HashSet<Owner> {
    owners.into_iter().filter(|owner| is_dead(owner, evidence)).collect()
}

fn is_dead(owner: &Owner, evidence: &Evidence) -> bool {
    let (container_id, ifname) = owner;
    if evidence.abandoned.contains_key(owner) {
        return true;
    }
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
            abandoned: HashMap::new(),
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
        let mut allocations = Allocations::new(dir.path().into());
        let mut cri = Cri::new(Vec::new());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let start = Instant::now();
        let mut look = |seconds: u64| {
            let now = start + Duration::from_secs(seconds);
            runtime.block_on(allocations.reconcile(&mut cri, std::slice::from_ref(&record), now)).unwrap()
        };
        assert_eq!([look(0), look(30)], [0, 0], "too soon");
        assert_eq!(look(60), 1);
        assert_eq!(look(120), 0);
        assert_eq!(store.owners().unwrap(), [("there".to_owned(), "eth0".to_owned())]);
        // A runtime that is there and does not answer may have sandboxes: nothing is freed.
        let socket = dir.path().join("cri.sock");
        let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let mut cri = Cri::new(vec![socket]);
        take("late");
        let answered = runtime.block_on(async {
            let asked = allocations.reconcile(&mut cri, &[], start);
            tokio::time::timeout(Duration::from_millis(200), asked).await.is_ok()
        });
        assert!(!answered, "it waits for the runtime's answer");
        assert_eq!(store.owners().unwrap().len(), 2);
    }

    #[test]
    fn only_a_sandbox_of_a_runtime_that_answers_is_forgotten() {
        let attached = |id: &str, infra: &str| -> Attached {
            let args = [("K8S_POD_INFRA_CONTAINER_ID", infra)];
            serde_json::from_value(serde_json::json!({"containerId": id, "config": "", "cniArgs": args}))
                .unwrap()
        };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let listed = Sandboxes { ids: HashSet::from(["listed".to_owned()]), age: seconds(60) };
        assert!(is_forgotten(&attached("lost", "lost"), seconds(61), Some(&listed)));
        assert!(!is_forgotten(&attached("lost", "lost"), seconds(59), Some(&listed)), "it is being made");
        assert!(!is_forgotten(&attached("lost", "lost"), None, Some(&listed)));
        assert!(!is_forgotten(&attached("listed", "listed"), seconds(61), Some(&listed)));
        assert!(!is_forgotten(&attached("lost", ""), seconds(61), Some(&listed)), "another runtime's");
        assert!(!is_forgotten(&attached("lost", "lost"), seconds(61), None), "no runtime speaks CRI");
        let unseen = Sandboxes { age: None, ..listed };
        assert!(!is_forgotten(&attached("lost", "lost"), seconds(61), Some(&unseen)), "it cannot be seen");
        assert!(is_inhabited(Path::new("/proc/self/ns/net")));
        assert!(is_inhabited(Path::new("/no/such/namespace")), "nothing is known of it");
    }
}
