//! What was attached and how: the result cache in the form that libcni gives it, so that every
//! runtime on the node and we see each other's attachments.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Network, Target};
use crate::protocol::error::{CniError, code};

/// Where libcni keeps it.
pub const DEFAULT_CACHE_DIR: &str = "/var/lib/cni";
const KIND: &str = "cniCacheV1";
/// More than any attachment's record holds; what is longer is not one.
const LARGEST: u64 = 4 << 20;

/// One attachment as the cache tells it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Attached {
    kind: String,
    /// The container.
    pub container_id: String,
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    config: Vec<u8>,
    /// Its interface.
    pub if_name: String,
    /// The network.
    pub network_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    netns: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cni_args: Option<Vec<(String, String)>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) capability_args: Option<Map<String, Value>>,
    /// The result of the last plugin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
}

impl Attached {
    pub(super) fn new(network: &Network, target: &Target, result: &Value) -> Attached {
        let args = &target.args;
        let capabilities = &target.capabilities;
        Attached {
            kind: KIND.into(),
            container_id: target.container_id.clone(),
            config: network.config.to_string().into_bytes(),
            if_name: target.ifname.clone(),
            network_name: network.name.clone(),
            netns: target.netns.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
            cni_args: (!args.is_empty()).then(|| args.clone()),
            capability_args: (!capabilities.is_empty()).then(|| capabilities.clone()),
            result: (!result.is_null()).then(|| result.clone()),
        }
    }

    /// The configuration that the attachment was made with.
    pub fn network(&self) -> Option<Network> {
        Network::parse(&self.config).ok().filter(|network| !network.plugins.is_empty())
    }

    /// The path of its network namespace, where it is known: older releases of libcni note it in the
    /// result alone.
    pub fn netns(&self) -> Option<&Path> {
        let interfaces = self.result.as_ref().and_then(|result| result["interfaces"].as_array());
        let of_result = || {
            let mut own = interfaces.into_iter().flatten().filter(|found| found["name"] == *self.if_name);
            own.find_map(|found| found["sandbox"].as_str())
        };
        let noted = Some(&*self.netns).filter(|path| !path.is_empty());
        noted.or_else(of_result).filter(|path| path.starts_with('/')).map(Path::new)
    }

    /// A value of its CNI_ARGS.
    pub fn arg(&self, key: &str) -> Option<&str> {
        let mut args = self.cni_args.iter().flatten();
        args.find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Whether its namespace is known to be gone; what cannot be known is not.
    pub fn is_gone(&self) -> bool {
        let absent = |path: &Path| fs::metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
        self.netns().is_some_and(absent)
    }

    /// What a later call about it needs.
    pub(super) fn target(&self) -> Target {
        Target {
            container_id: self.container_id.clone(),
            netns: self.netns().map(PathBuf::from),
            ifname: self.if_name.clone(),
            args: self.cni_args.clone().unwrap_or_default(),
            capabilities: self.capability_args.clone().unwrap_or_default(),
        }
    }
}

/// The cache of a node.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    dir: PathBuf,
}

impl Cache {
    pub(super) fn new(cache_dir: &Path) -> Cache {
        Cache { dir: cache_dir.join("results") }
    }

    fn path(&self, network: &str, target: &Target) -> PathBuf {
        self.dir.join(format!("{network}-{}-{}", target.container_id, target.ifname))
    }

    /// What is known of an attachment; none for what is absent or no record.
    pub(super) fn load(&self, network: &str, target: &Target) -> Option<Attached> {
        load(&self.path(network, target))
    }

    /// When the record was written.
    pub(super) fn written(&self, network: &str, target: &Target) -> Option<SystemTime> {
        fs::metadata(self.path(network, target)).and_then(|found| found.modified()).ok()
    }

    /// All records, by file name.
    pub(super) fn all(&self) -> Result<Vec<Attached>, CniError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.failed("list", &self.dir, &error)),
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let whole = |a: &Attached| !a.if_name.is_empty() && !a.network_name.is_empty();
        Ok(paths.iter().filter_map(|path| load(path)).filter(whole).collect())
    }

    /// Keeps a record: written aside and renamed, so that nobody reads half of it.
    pub(super) fn store(&self, attached: &Attached) -> Result<(), CniError> {
        let path = self.path(&attached.network_name, &attached.target());
        let text = serde_json::to_vec(attached).map_err(|error| self.failed("write", &path, &error))?;
        let aside = self.dir.join(format!(".{}", std::process::id()));
        let write = || {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
            let mut file =
                fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
            file.write_all(&text)?;
            fs::rename(&aside, &path)
        };
        write().map_err(|error| {
            fs::remove_file(&aside).ok();
            self.failed("write", &path, &error)
        })
    }

    /// Forgets a record; none is no error.
    pub(super) fn remove(&self, network: &str, target: &Target) {
        fs::remove_file(self.path(network, target)).ok();
    }

    fn failed(&self, op: &str, path: &Path, error: &dyn std::fmt::Display) -> CniError {
        CniError::new(code::IO, format!("cannot {op} the result cache {}: {error}", path.display()))
    }
}

fn load(path: &Path) -> Option<Attached> {
    let found = fs::metadata(path).ok()?;
    if !found.is_file() || found.len() > LARGEST {
        return None;
    }
    let attached: Attached = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (attached.kind == KIND).then_some(attached)
}

fn to_base64<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}
