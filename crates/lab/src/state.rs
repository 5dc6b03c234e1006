//! A lab's folder: where things are, who runs it, and the lock that keeps commands apart.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use weft_kernel::process::Process;

use crate::config::{LabConfig, check_name};
use crate::error::{Error, Result};
use crate::liveness::ProcessId;

/// Names the folder above all labs' folders, instead of the default.
pub const DIR_VARIABLE: &str = "WEFT_LAB_DIR";

/// What `lab.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabInfo {
    /// The first process of the lab's own PID namespace, as the machine numbers it: when it
    /// ends, all of the lab ends. None until it is started.
    pub process: Option<ProcessId>,
    /// The process that connects to an API server outside, where the lab uses one.
    #[serde(default)]
    pub relay: Option<ProcessId>,
    /// The lab as asked for.
    pub config: LabConfig,
    /// TCP port of the API server on 127.0.0.1 of the machine.
    pub api_port: u16,
    /// When `lab up` started, RFC 3339.
    pub created: String,
}

/// The folder of one lab, which may not exist.
#[derive(Clone, Debug)]
pub struct LabState {
    dir: PathBuf,
    name: String,
}

/// The exclusive hold on a lab's folder; let go when dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// The folder above all labs' folders of this user.
pub fn parent_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os(DIR_VARIABLE).filter(|dir| !dir.is_empty()) {
        return dir.into();
    }
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return "/run/weft/lab".into();
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    match runtime {
        Some(dir) => Path::new(&dir).join("weft/lab"),
        None => format!("/tmp/weft-{}/lab", uid.as_raw()).into(),
    }
}

impl LabState {
    /// The lab of this name; its folder need not exist.
    pub fn open(name: &str) -> Result<LabState> {
        check_name(name)?;
        Ok(LabState { dir: parent_dir().join(name), name: name.into() })
    }

    /// The lab whose folder is `dir`.
    pub fn at(dir: &Path) -> Result<LabState> {
        let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        check_name(name)?;
        Ok(LabState { dir: dir.into(), name: name.into() })
    }

    /// Every lab of this user that has a folder, by name.
    pub fn all() -> Result<Vec<LabState>> {
        let parent = parent_dir();
        let entries = match fs::read_dir(&parent) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::file("list the labs in", &parent, error)),
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| check_name(name).is_ok()).collect();
        names.sort();
        names.iter().map(|name| LabState::open(name)).collect()
    }

    /// The lab's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The lab's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// For clients on the machine: the server is 127.0.0.1.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// For clients inside the lab: the server is the underlay's router.
    pub fn kubeconfig_inside(&self) -> PathBuf {
        self.dir.join("kubeconfig-inside")
    }

    /// For a node's agent, inside the lab: it is that node to the API server.
    pub fn kubeconfig_of_node(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("kubeconfig")
    }

    /// `daemon.log`, `apiserver.log`, `agent-NODE.log`.
    pub fn log_dir(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// The API server's data.
    pub fn api_dir(&self) -> PathBuf {
        self.dir.join("api")
    }

    /// The CNI plugins (CNI_PATH).
    pub fn bin_dir(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// What one node keeps on its disk.
    pub fn node_dir(&self, node: &str) -> PathBuf {
        self.dir.join("node").join(node)
    }

    /// The node's CNI configuration folder, as `/etc/cni/net.d`.
    pub fn cni_conf_dir(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("cni/net.d")
    }

    /// The node's allocation folder, as `/var/lib/cni/networks`.
    pub fn cni_data_dir(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("cni/networks")
    }

    /// The agent's own folder.
    pub fn agent_dir(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("agent")
    }

    /// What the agent says of itself.
    pub fn agent_status(&self, node: &str) -> PathBuf {
        self.agent_dir(node).join("status.json")
    }

    /// The records of pods that have a network, one file a pod.
    pub fn pod_dir(&self) -> PathBuf {
        self.dir.join("pod")
    }

    /// Where a namespace is pinned: `underlay`, `node-NAME` or `pod-UID`. Only inside the lab
    /// is there a namespace; from the machine it is an empty file.
    pub fn netns(&self, what: &str) -> PathBuf {
        self.dir.join("netns").join(what)
    }

    /// The pinned namespace of a node.
    pub fn node_netns(&self, node: &str) -> PathBuf {
        self.netns(&format!("node-{node}"))
    }

    /// Makes the lab's folder and those above it, for nobody but this user.
    pub fn create_dir(&self) -> Result<()> {
        let parent = parent_dir();
        if std::env::var_os(DIR_VARIABLE).is_none() {
            // Weft's own folder may lie where others can write (/tmp): it must be ours before it is trusted.
            make_private(parent.parent().unwrap_or(&parent))?;
        }
        make_private(&parent)?;
        make_private(&self.dir)
    }

    /// Waits until no other command holds this lab, at most `patience`.
    pub fn lock(&self, patience: Duration) -> Result<Lock> {
        let path = self.dir.join("lock");
        let deadline = Instant::now() + patience;
        loop {
            let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
            let file = file.map_err(|error| Error::file("open", &path, error))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // The folder may have been removed, and made again, by who held the lock before.
                Ok(()) if same_file(&file, &path) => return Ok(Lock { _file: file }),
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::Busy { lab: self.name.clone() }),
                Err(error) => return Err(Error::file("lock", &path, error.into())),
            }
        }
    }

    /// What `lab.json` says; None when there is no such lab.
    pub fn info(&self) -> Result<Option<LabInfo>> {
        let path = self.dir.join("lab.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file("read", &path, error)),
        };
        let info = serde_json::from_slice(&text);
        info.map(Some).map_err(|error| Error::BadInfo { lab: self.name.clone(), path, error })
    }

    /// Writes `lab.json`, whole or not at all.
    pub fn write_info(&self, info: &LabInfo) -> Result<()> {
        let text = serde_json::to_vec_pretty(info).unwrap_or_default();
        write_atomically(&self.dir.join("lab.json"), &text)
    }

    /// Whether the lab's first process runs.
    pub fn is_alive(&self) -> bool {
        let process = self.info().ok().flatten().and_then(|info| info.process);
        process.is_some_and(|process| process.open().is_some())
    }

    /// What `lab.json` says of a lab that runs; otherwise why it does not and what to do.
    pub fn require_alive(&self) -> Result<(LabInfo, Process)> {
        let info = self.info()?.ok_or_else(|| Error::NoSuchLab { lab: self.name.clone() })?;
        match info.process.as_ref().and_then(ProcessId::open) {
            Some(process) => Ok((info, process)),
            None => Err(Error::Dead { lab: self.name.clone() }),
        }
    }
}

/// Replaces the file at `path` by `text`, so that a reader sees the old or the new.
pub fn write_atomically(path: &Path, text: &[u8]) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.new"));
    let write = || {
        let mut file =
            File::options().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(text)?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&temporary);
        Error::file("write", path, error)
    })
}

fn same_file(file: &File, path: &Path) -> bool {
    let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
    let held = file.metadata().map(identity).ok();
    held.is_some() && held == fs::metadata(path).map(identity).ok()
}

fn make_private(dir: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| Error::file("make the folder", dir, error))?;
    let meta = fs::symlink_metadata(dir).map_err(|error| Error::file("look at", dir, error))?;
    let ours = meta.uid() == rustix::process::geteuid().as_raw();
    if meta.is_dir() && ours && meta.mode() & 0o022 == 0 {
        Ok(())
    } else {
        Err(Error::Unsafe { dir: dir.into() })
    }
}
