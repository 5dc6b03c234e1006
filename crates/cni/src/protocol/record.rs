//! Records of attachments that no API object may declare: containers of podman, nerdctl or ctr.
//! The agent reads them and registers the containers as Pods.
//!
//! A record is one file, named like the attachment's key, in the folder that the network's
//! configuration names under `weft.records`. ADD writes it before it answers, DEL removes it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::protocol::args::Args;
use crate::protocol::error::{CniError, code};
use crate::protocol::result::CniResult;

/// The namespace of a container for which nobody names one.
const DEFAULT_NAMESPACE: &str = "default";

/// The key `weft` of a configuration: how containers are registered.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Registration {
    /// The folder of records; absolute.
    pub records: PathBuf,
    /// The namespace of their Pods.
    pub namespace: Option<String>,
    /// Labels of their Pods.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// What is known of one attached container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// CNI_CONTAINERID.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// CNI_IFNAME.
    pub ifname: String,
    /// CNI_NETNS.
    pub netns: PathBuf,
    /// The network's name.
    pub network: String,
    /// The namespace of its Pod.
    pub namespace: String,
    /// What the runtime calls it; none when it does not say.
    pub name: Option<String>,
    /// Labels of its Pod.
    pub labels: BTreeMap<String, String>,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Whether it is a sandbox of a runtime that speaks CRI.
    #[serde(default)]
    pub by_cri: bool,
}

impl Registration {
    /// Writes the record of an ADD: aside and renamed, so that no reader sees half of it.
    pub(crate) fn add(&self, network: &str, args: &Args, result: &CniResult) -> Result<(), CniError> {
        // A pod with a UID is one of the API.
        if argument(args, "K8S_POD_UID").is_some() {
            return Ok(());
        }
        let path = self.path(args);
        let text = serde_json::to_vec(&self.record(network, args, result)).unwrap_or_default();
        let aside = path.with_extension("new");
        let write = || {
            fs::create_dir_all(&self.records)?;
            fs::write(&aside, &text)?;
            fs::rename(&aside, &path)
        };
        write().map_err(|error| {
            fs::remove_file(&aside).ok();
            failed("write", &path, &error)
        })
    }

    /// Removes the record of a DEL; none is no error.
    pub(crate) fn remove(&self, args: &Args) -> Result<(), CniError> {
        let path = self.path(args);
        // An ADD that was killed may have left it.
        fs::remove_file(path.with_extension("new")).ok();
        match fs::remove_file(&path) {
            Err(error) if !absent(&error) => Err(failed("remove", &path, &error)),
            _ => Ok(()),
        }
    }

    fn path(&self, args: &Args) -> PathBuf {
        self.records.join(args.attachment().key()).with_extension("json")
    }

    fn record(&self, network: &str, args: &Args, result: &CniResult) -> Record {
        let labels = argument(args, "WEFT_LABELS").unwrap_or_default();
        let labels = labels.split(',').filter_map(|pair| pair.split_once(':'));
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let namespace = argument(args, "K8S_POD_NAMESPACE").map(str::to_owned);
        Record {
            container_id: args.container_id.clone(),
            ifname: args.ifname.clone(),
            netns: args.netns.clone().unwrap_or_default(),
            network: network.to_owned(),
            namespace: namespace.or(self.namespace.clone()).unwrap_or(DEFAULT_NAMESPACE.into()),
            name: argument(args, "K8S_POD_NAME").map(str::to_owned),
            labels: self.labels.clone().into_iter().chain(labels).collect(),
            ips: result.ips.iter().map(|ip| ip.address.addr()).collect(),
            by_cri: argument(args, "K8S_POD_INFRA_CONTAINER_ID").is_some(),
        }
    }
}

/// A value of CNI_ARGS.
fn argument<'a>(args: &'a Args, key: &str) -> Option<&'a str> {
    let mut pairs = args.text.split(';').filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, value)| *name == key && !value.is_empty()).map(|(_, value)| value)
}

fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn failed(op: &str, path: &Path, error: &io::Error) -> CniError {
    CniError::new(code::IO, format!("weft.records: cannot {op} {}: {error}", path.display()))
}
