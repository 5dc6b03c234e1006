//! The CNI configuration of each node: the lexically first file of its folder, as containerd
//! takes it, read again whenever the folder changes.

use std::collections::HashMap;
use std::fs;
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::keeper::make_dir;
use crate::state::LabState;
use crate::underlay::Node;

/// A CNI network configuration list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Conflist {
    /// The version of the specification its plugins are spoken to in.
    pub(crate) cni_version: String,
    /// The network's name.
    pub(crate) name: String,
    /// The plugins, in the order of ADD.
    pub(crate) plugins: Vec<Map<String, Value>>,
}

/// A node's network, None while there is none.
pub(crate) type Network = Option<Arc<Conflist>>;

/// The networks of all nodes.
pub(crate) struct Networks {
    by_node: HashMap<String, watch::Receiver<Network>>,
}

struct Watched {
    node: String,
    dir: std::path::PathBuf,
    network: watch::Sender<Network>,
}

impl Networks {
    /// Makes each node's folder and watches it.
    pub(crate) fn watch(state: &LabState, nodes: &[Node]) -> anyhow::Result<Networks> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        let inotify = inotify.context("cannot watch folders (is fs.inotify.max_user_instances used up?)")?;
        let flags =
            WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM | WatchFlags::DELETE;
        let (mut watched, mut by_node) = (HashMap::new(), HashMap::new());
        for node in nodes {
            let dir = state.cni_conf_dir(&node.spec.name);
            make_dir(&dir)?;
            let wd = inotify::add_watch(&inotify, &dir, flags);
            let wd = wd.with_context(|| format!("cannot watch {}", dir.display()))?;
            let (sender, receiver) = watch::channel(None);
            by_node.insert(node.spec.name.clone(), receiver);
            let one = Watched { node: node.spec.name.clone(), dir, network: sender };
            one.read();
            watched.insert(wd, one);
        }
        #[expect(
            deprecated,
            reason = "an OwnedFd keeps its descriptor, which is all the unsafe form asks for"
        )]
        let inotify = AsyncFd::new(inotify)?;
        tokio::spawn(follow(inotify, watched));
        Ok(Networks { by_node })
    }

    /// The network of `node`; one that never comes for a node that does not exist.
    pub(crate) fn of(&self, node: &str) -> watch::Receiver<Network> {
        self.by_node.get(node).cloned().unwrap_or_else(|| watch::channel(None).1)
    }
}

impl Watched {
    fn read(&self) {
        let network = first_conflist(&self.dir).unwrap_or_else(|error| {
            tracing::warn!("{}: {error:#}", self.node);
            None
        });
        self.network.send_if_modified(|held| {
            let changed = *held != network;
            *held = network;
            changed
        });
    }
}

async fn follow(inotify: AsyncFd<OwnedFd>, watched: HashMap<i32, Watched>) {
    while let Ok(mut ready) = inotify.readable().await {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(inotify.get_ref(), &mut buffer);
        let mut changed = std::collections::BTreeSet::new();
        while let Ok(event) = reader.next() {
            changed.insert(event.wd());
        }
        ready.clear_ready();
        // -1 tells that events were lost: read all.
        let all = changed.contains(&-1);
        watched.iter().filter(|(wd, _)| all || changed.contains(wd)).for_each(|(_, one)| one.read());
    }
}

fn first_conflist(dir: &Path) -> anyhow::Result<Network> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let conflists = paths.filter(|path| path.extension().is_some_and(|ext| ext == "conflist"));
    let hidden = |path: &Path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
    let Some(path) = conflists.filter(|path| !hidden(path)).min() else { return Ok(None) };
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let list = serde_json::from_slice(&text);
    let list = list.with_context(|| format!("{} is no CNI configuration list", path.display()))?;
    Ok(Some(Arc::new(list)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lexically_first_conflist_counts_and_other_files_do_not() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(first_conflist(dir.path()).unwrap(), None);
        let list =
            |name: &str| format!(r#"{{"cniVersion":"1.1.0","name":"{name}","plugins":[{{"type":"a"}}]}}"#);
        for (file, name) in
            [("20-b.conflist", "b"), ("10-a.conflist", "a"), (".01.conflist", "h"), ("0.txt", "t")]
        {
            fs::write(dir.path().join(file), list(name)).unwrap();
        }
        assert_eq!(first_conflist(dir.path()).unwrap().unwrap().name, "a");
        fs::write(dir.path().join("00-bad.conflist"), "{").unwrap();
        let error = format!("{:#}", first_conflist(dir.path()).unwrap_err());
        assert!(error.contains("00-bad.conflist is no CNI configuration list"), "{error}");
    }
}
