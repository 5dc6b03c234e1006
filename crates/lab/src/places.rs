//! Everything in a lab that has a network namespace, for commands that work inside it.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use weft_kernel::Netns;

use crate::config::LabConfig;
use crate::error::{Error, Result};
use crate::runtime::Attachment;
use crate::state::LabState;

/// What a place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PlaceKind {
    /// The router between the segments, and the outside world.
    Underlay,
    /// A node.
    Node,
    /// A pod with a namespace of its own.
    Pod,
    /// A pod that shares its node's namespace.
    HostPod,
}

/// Something with a network namespace.
#[derive(Clone, Debug)]
pub struct Place {
    /// `underlay`, `node/NAME` or `NAMESPACE/POD`.
    pub name: String,
    /// What it is.
    pub kind: PlaceKind,
    /// The node it is, or runs on.
    pub node: Option<String>,
    /// Its addresses: a node's in the order of the pods' families, a pod's as CNI returned them.
    pub ips: Vec<IpAddr>,
    /// The pod's UID.
    pub uid: Option<String>,
    /// Where its namespace is pinned.
    pub netns: PathBuf,
}

impl Place {
    /// Its namespace. Works only inside the lab.
    pub fn open(&self) -> Result<Netns> {
        Ok(Netns::open(&self.netns)?)
    }
}

/// What the lab remembers of a pod that has a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PodRecord {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) node: String,
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) host_network: bool,
    /// None for a pod of the host's network.
    pub(crate) attachment: Option<Attachment>,
}

impl PodRecord {
    /// Where the record of the pod with this UID is.
    pub(crate) fn path(state: &LabState, uid: &str) -> PathBuf {
        state.pod_dir().join(format!("{uid}.json"))
    }

    fn place(self, state: &LabState) -> Place {
        let netns = match self.host_network {
            true => state.node_netns(&self.node),
            false => state.netns(&format!("pod-{}", self.uid)),
        };
        let kind = if self.host_network { PlaceKind::HostPod } else { PlaceKind::Pod };
        let name = format!("{}/{}", self.namespace, self.name);
        Place { name, kind, node: Some(self.node), ips: self.ips, uid: Some(self.uid), netns }
    }
}

/// Every place of the lab: the underlay, the nodes in order, the pods by name.
pub fn places(state: &LabState, config: &LabConfig) -> Result<Vec<Place>> {
    let underlay = Place {
        name: "underlay".into(),
        kind: PlaceKind::Underlay,
        node: None,
        ips: config.outside_hosts(),
        uid: None,
        netns: state.netns("underlay"),
    };
    let node = |spec: crate::config::NodeSpec| Place {
        name: format!("node/{}", spec.name),
        kind: PlaceKind::Node,
        ips: spec.ips(),
        uid: None,
        netns: state.node_netns(&spec.name),
        node: Some(spec.name),
    };
    let nodes = config.node_specs().into_iter().map(node);
    let mut pods = pods(state)?;
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(std::iter::once(underlay).chain(nodes).chain(pods).collect())
}

fn pods(state: &LabState) -> Result<Vec<Place>> {
    let dir = state.pod_dir();
    let entries = fs::read_dir(&dir).map_err(|e| Error::file("list", &dir, e))?;
    let records = entries.flatten().filter_map(|entry| {
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        // A record that vanishes or is cut short belongs to a pod that comes or goes right now.
        let text = (!hidden).then(|| fs::read(path).ok()).flatten()?;
        serde_json::from_slice::<PodRecord>(&text).ok()
    });
    Ok(records.map(|record| record.place(state)).collect())
}
