//! The last snapshot on disk, for a start without the API.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use weft_model::bgp::{BgpConfiguration, BgpFilter, BgpPeer};
use weft_model::network::Network;
use weft_model::pools::{IpBlock, IpPool, Namespace};
use weft_model::service::{EndpointSlice, Service};
use weft_model::{Cluster, Node, Pod};

/// Raised when the file's meaning changes; a file of another version is ignored.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Snapshot {
    version: u32,
    /// Seconds since 1970 when the snapshot was in step with the API.
    at: u64,
    nodes: Vec<Arc<Node>>,
    pods: Vec<Arc<Pod>>,
    #[serde(default)]
    networks: BTreeMap<Arc<str>, Arc<Network>>,
    #[serde(default)]
    namespaces: Vec<Arc<Namespace>>,
    #[serde(default)]
    pools: Vec<Arc<IpPool>>,
    #[serde(default)]
    blocks: Vec<Arc<IpBlock>>,
    #[serde(default)]
    services: Vec<Arc<Service>>,
    #[serde(default)]
    slices: Vec<Arc<EndpointSlice>>,
    #[serde(default)]
    bgp_configurations: Vec<Arc<BgpConfiguration>>,
    #[serde(default)]
    bgp_peers: Vec<Arc<BgpPeer>>,
    #[serde(default)]
    bgp_filters: Vec<Arc<BgpFilter>>,
}

#[derive(Deserialize)]
struct Header {
    version: u32,
}

/// Reads the snapshot and when it was taken. A file that is absent, torn, of another version
/// or not ours gives none; all but the first with a warning.
pub(crate) fn read(path: &Path) -> Option<(Cluster, SystemTime)> {
    match parse(path) {
        Ok(found) => Some(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!("ignored the snapshot {}: {error}", path.display());
            None
        }
    }
}

fn parse(path: &Path) -> io::Result<(Cluster, SystemTime)> {
    let Header { version } = serde_json::from_reader(BufReader::new(File::open(path)?))?;
    if version != VERSION {
        return Err(io::Error::other(format!("its version is {version}, not {VERSION}")));
    }
    let found: Snapshot = serde_json::from_reader(BufReader::new(File::open(path)?))?;
    let at = UNIX_EPOCH.checked_add(Duration::from_secs(found.at)).unwrap_or(UNIX_EPOCH);
    let named = |name: &Arc<str>| name.clone();
    let cluster = Cluster {
        nodes: found.nodes.into_iter().map(|node| (named(&node.name), node)).collect(),
        pods: found.pods.into_iter().map(|pod| (pod.key(), pod)).collect(),
        networks: found.networks.into_iter().collect(),
        namespaces: found.namespaces.into_iter().map(|one| (named(&one.name), one)).collect(),
        pools: found.pools.into_iter().map(|pool| (named(&pool.name), pool)).collect(),
        blocks: found.blocks.into_iter().map(|block| (named(&block.name), block)).collect(),
        services: found.services.into_iter().map(|service| (service.key(), service)).collect(),
        slices: found.slices.into_iter().map(|slice| (slice.key(), slice)).collect(),
        bgp_configurations: found.bgp_configurations.into_iter().map(|one| (named(&one.name), one)).collect(),
        bgp_peers: found.bgp_peers.into_iter().map(|peer| (named(&peer.name), peer)).collect(),
        bgp_filters: found.bgp_filters.into_iter().map(|filter| (named(&filter.name), filter)).collect(),
        ..Cluster::default()
    };
    Ok((cluster, at))
}

/// Writes the snapshot: the file is the old one or the new one at every instant, also after
/// a power cut.
pub(crate) fn write(path: &Path, cluster: &Cluster, at: SystemTime) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let aside = folder.join(name);
    let written = write_new(&aside, cluster, at).and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        let _ = fs::remove_file(&aside);
    }
    written?;
    File::open(folder)?.sync_all()
}

fn write_new(path: &Path, cluster: &Cluster, at: SystemTime) -> io::Result<()> {
    let snapshot = Snapshot {
        version: VERSION,
        at: at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        nodes: cluster.nodes.values().cloned().collect(),
        pods: cluster.pods.values().cloned().collect(),
        networks: cluster.networks.iter().map(|(name, network)| (name.clone(), network.clone())).collect(),
        namespaces: cluster.namespaces.values().cloned().collect(),
        pools: cluster.pools.values().cloned().collect(),
        blocks: cluster.blocks.values().cloned().collect(),
        services: cluster.services.values().cloned().collect(),
        slices: cluster.slices.values().cloned().collect(),
        bgp_configurations: cluster.bgp_configurations.values().cloned().collect(),
        bgp_peers: cluster.bgp_peers.values().cloned().collect(),
        bgp_filters: cluster.bgp_filters.values().cloned().collect(),
    };
    let mut out = BufWriter::new(File::create(path)?);
    serde_json::to_writer(&mut out, &snapshot)?;
    out.flush()?;
    out.get_ref().sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Cluster {
        let node =
            Node { name: "node1".into(), addresses: vec!["10.168.0.2".parse().unwrap()], ..Node::default() };
        let pod = Pod {
            namespace: "default".into(),
            name: "a".into(),
            labels: [("app".into(), "web".into())].into(),
            ..Pod::default()
        };
        Cluster {
            nodes: [(node.name.clone(), Arc::new(node))].into_iter().collect(),
            pods: [(pod.key(), Arc::new(pod))].into_iter().collect(),
            ..Cluster::default()
        }
    }

    #[test]
    fn a_snapshot_round_trips_and_garbage_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/cluster.json");
        assert!(read(&path).is_none());
        let at = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        write(&path, &cluster(), at).unwrap();
        assert_eq!(read(&path), Some((cluster(), at)));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing left beside it");

        let whole = fs::read(&path).unwrap();
        for cut in [0, 1, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..cut]).unwrap();
            assert!(read(&path).is_none(), "{cut} bytes");
        }
        fs::write(&path, r#"{"version":99,"something":"else"}"#).unwrap();
        assert!(read(&path).is_none());
    }

    #[test]
    fn what_an_older_or_a_newer_version_wrote_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cluster.json");
        let node = r#""name":"node1","uid":"u","addresses":["10.168.0.2"],"pod_cidrs":["10.244.0.0/24"]"#;
        // Before networks, pools and what a Node says of its host; and with more than is known here.
        let older = format!(r#"{{"version":1,"at":9,"nodes":[{{{node}}}],"pods":[]}}"#);
        let newer = format!(
            r#"{{"version":1,"at":9,"nodes":[{{{node},"labels":{{}},"created":"","later":[1]}}],"pods":[],
            "networks":{{}},"namespaces":[],"pools":[],"blocks":[],"services":[{{"name":"s"}}]}}"#
        );
        for text in [older, newer] {
            fs::write(&path, &text).unwrap();
            let (cluster, at) = read(&path).unwrap();
            assert_eq!(at, UNIX_EPOCH + Duration::from_secs(9));
            let node = &cluster.nodes["node1"];
            assert_eq!(node.pod_cidrs, ["10.244.0.0/24".parse().unwrap()], "{text}");
        }
    }

    #[test]
    fn a_failed_write_leaves_the_old_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cluster.json");
        write(&path, &cluster(), UNIX_EPOCH).unwrap();
        // A folder where the new file would go makes the write fail, as a full disk would.
        fs::create_dir(folder.path().join("cluster.json.new")).unwrap();
        assert!(write(&path, &Cluster::default(), UNIX_EPOCH).is_err());
        assert_eq!(read(&path).unwrap().0, cluster());
    }
}
