//! `pools`: addresses out of the blocks that the node's agent has claimed.
//!
//! There is no HTTP here and no agent to be asked: the agent has written what the node may give beside
//! the allocations. What is not there yet is error 11, and the runtime tries again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use weft_ipam::host_local::Store;
use weft_ipam::pools::choose::Request;
use weft_model::pools::{ADDRESS_ANNOTATIONS, Wish};

use crate::ipam;
use crate::protocol::config::invalid;
use crate::protocol::error::{CniError, code};
use crate::protocol::plugin::Call;

/// What `ipam` holds, and what the pod asks for.
#[derive(Debug)]
pub(crate) struct Pools {
    pub(crate) data_dir: PathBuf,
    pub(crate) request: Request,
}

impl Pools {
    /// Checks the configuration of a call.
    pub(crate) fn of(call: &Call) -> Result<Pools, CniError> {
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
        Ok(Pools { data_dir: ipam::data_dir(call)?, request: Request { namespace, wish } })
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
