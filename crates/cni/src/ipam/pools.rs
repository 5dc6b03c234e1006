//! `pools`: addresses out of the blocks that the node's agent has claimed.
//!
//! There is no HTTP here and no agent to be asked: the agent has written what the node may give beside
//! the allocations. What is not there yet is error 11, and the runtime tries again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use weft_ipam::host_local::{DEFAULT_DATA_DIR, Store};
use weft_ipam::pools::choose::Request;
use weft_model::pools::{ADDRESS_ANNOTATIONS, Wish};

use crate::ipam;
use crate::ipam::{Evidence, Ipam};
use crate::protocol::args::Command;
use crate::protocol::config::invalid;
use crate::protocol::error::{CniError, code};
use crate::protocol::plugin::{Answer, Call};

/// What `ipam` holds, and what the pod asks for.
#[derive(Debug)]
pub(crate) struct Pools {
    pub(crate) data_dir: PathBuf,
    pub(crate) request: Request,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Keys {
    data_dir: Option<PathBuf>,
}

impl Pools {
    /// Checks the configuration of a call.
    pub(crate) fn of(call: &Call) -> Result<Pools, CniError> {
        let keys: Keys = call.ipam_keys()?;
        let runtime = call.conf.runtime_config.as_ref();
        let none = BTreeMap::new();
        let annotations = runtime.and_then(|config| config.pod_annotations.as_ref()).unwrap_or(&none);
        let wish = Wish::of(|key| annotations.get(key).map(String::as_str));
        let mut wish = wish.map_err(|why| invalid(&format!("the pod's annotation {why}")))?;
        let asked = ipam::host_local::requested(call)?;
        for ip in asked {
            match wish.ips.iter().find(|other| other.is_ipv4() == ip.is_ipv4()) {
                Some(other) if *other == ip => {}
                Some(other) => {
                    let key = ADDRESS_ANNOTATIONS[0];
                    return Err(invalid(&format!(
                        "ips: {ip} is asked for beside {other} of the annotation {key}"
                    )));
                }
                None => wish.ips.push(ip),
            }
        }
        let pod = call.args.extra.pod.as_deref().and_then(|pod| pod.split_once('/'));
        let namespace = pod.map(|(namespace, _)| namespace.to_owned()).unwrap_or_default();
        Ok(Pools { data_dir: data_dir(keys), request: Request { namespace, wish } })
    }

    /// Where a DEL looks, however wrong the rest of the configuration is.
    pub(crate) fn data_dir(call: &Call) -> PathBuf {
        data_dir(call.ipam_keys::<Keys>().unwrap_or_default())
    }

    /// STATUS: whether the agent has told what the node may give.
    pub(crate) fn status(&self, network: &str) -> Result<(), CniError> {
        let told = Store::open_existing(&self.data_dir, network)?.map(|store| store.pools()).transpose()?;
        match told.flatten() {
            Some(file) if !file.spans.is_empty() => Ok(()),
            _ => {
                let message =
                    "this node has no block of a pool yet: its agent claims one, if there is a pool for it";
                Err(CniError::new(code::NOT_AVAILABLE, message))
            }
        }
    }
}

fn data_dir(keys: Keys) -> PathBuf {
    keys.data_dir.filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(|| DEFAULT_DATA_DIR.into())
}

/// `pools` called by its own name.
pub(crate) fn plugin(call: &Call, answer: Answer<'_>) -> Result<(), CniError> {
    if call.conf.ipam_type() != ipam::POOLS {
        return Err(invalid("ipam.type is not pools"));
    }
    if call.command == Command::Del {
        return ipam::del(call);
    }
    let ipam = Ipam::of(call)?;
    match call.command {
        Command::Add => ipam::add(call, &ipam, Evidence::Nowhere, Ok, || {}, answer),
        Command::Check => ipam::check(call, &ipam),
        Command::Gc => ipam::gc(call, &ipam),
        _ => ipam::status(call, &ipam),
    }
}
