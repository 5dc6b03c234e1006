//! The runtime's side of the exchange: reads network configurations, calls each network's
//! plugins in their order and remembers what was attached, as libcni does it.
//!
//! Our own plugins run in this process, in the calling thread's network namespace; any other is
//! executed from CNI_PATH.

mod cache;
mod call;
mod network;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Map, Value, json};

pub use cache::{Attached, DEFAULT_CACHE_DIR};
pub use network::Network;
pub(crate) use network::version;

use crate::protocol::config::{ValidAttachment, invalid};
use crate::protocol::error::{CniError, code};
use crate::protocol::result::CniResult;
use crate::protocol::version::Version;
use cache::Cache;

/// What is attached: one interface of one container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Target {
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_NETNS; none when it is gone.
    pub netns: Option<PathBuf>,
    /// CNI_IFNAME.
    pub ifname: String,
    /// CNI_ARGS, in pairs.
    pub args: Vec<(String, String)>,
    /// What each capability is given, for the plugins that declare it.
    pub capabilities: Map<String, Value>,
}

/// Where plugins are found, and what was attached is remembered.
#[derive(Clone, Debug)]
pub struct Runtime {
    path: Vec<PathBuf>,
    cache: Cache,
}

impl Runtime {
    /// A runtime that finds other programs' plugins in `path`.
    pub fn new(path: Vec<PathBuf>, cache_dir: &Path) -> Runtime {
        Runtime { path, cache: Cache::new(cache_dir) }
    }

    /// ADD: the result of the last plugin. When anything fails, what was made is undone.
    pub fn add(&self, network: &Network, target: &Target) -> Result<Value, CniError> {
        self.refuse_attached(network, target)?;
        let mut result = Value::Null;
        for (at, plugin) in network.plugins.iter().enumerate() {
            let config = stdin(network, plugin, target, &result);
            match call::call(&self.path, "ADD", target, &config) {
                Ok(answer) => result = completed(network, answer),
                Err(error) => {
                    self.undo(network, &network.plugins[..=at], target, &result);
                    return Err(named(plugin, "ADD", error));
                }
            }
        }
        if let Err(error) = self.cache.store(&Attached::new(network, target, &result)) {
            self.undo(network, &network.plugins, target, &result);
            return Err(error);
        }
        Ok(result)
    }

    /// DEL: in reverse order, with the configuration that the ADD had, if that is known.
    pub fn del(&self, network: &Network, target: &Target) -> Result<(), CniError> {
        let (network, target, result) = self.as_added(network, target);
        let result = if before(&network, Version::V040) { Value::Null } else { result };
        for plugin in network.plugins.iter().rev() {
            let config = stdin(&network, plugin, &target, &result);
            call::call(&self.path, "DEL", &target, &config).map_err(|error| named(plugin, "DEL", error))?;
        }
        self.cache.remove(&network.name, &target);
        Ok(())
    }

    /// DEL of what the cache tells, as it was made there.
    pub fn del_attached(&self, attached: &Attached) -> Result<(), CniError> {
        let unknown = || invalid("the cache does not say how it was attached");
        self.del(&attached.network().ok_or_else(unknown)?, &attached.target())
    }

    /// CHECK: whether everything is as the ADD made it. False when the configuration says that
    /// it is not to be asked.
    pub fn check(&self, network: &Network, target: &Target) -> Result<bool, CniError> {
        let (network, target, result) = self.as_added(network, target);
        if before(&network, Version::V040) {
            let message = format!("CHECK needs cniVersion 0.4.0 or later, not {}", network.cni_version);
            return Err(CniError::new(code::INCOMPATIBLE_VERSION, message));
        }
        if network.disable_check {
            return Ok(false);
        }
        for plugin in &network.plugins {
            let config = stdin(&network, plugin, &target, &result);
            call::call(&self.path, "CHECK", &target, &config)
                .map_err(|error| named(plugin, "CHECK", error))?;
        }
        Ok(true)
    }

    /// GC: deletes the network's attachments that are not in `valid`, then has each plugin free
    /// what belongs to none of them. Says which were deleted, and every failure.
    pub fn gc(
        &self,
        network: &Network,
        valid: &[ValidAttachment],
    ) -> Result<(Vec<Attached>, Vec<CniError>), CniError> {
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        if network.disable_gc {
            return Ok((deleted, errors));
        }
        let is_valid =
            |a: &Attached| valid.iter().any(|v| v.container_id == a.container_id && v.ifname == a.if_name);
        for attached in
            self.attachments()?.into_iter().filter(|a| a.network_name == network.name && !is_valid(a))
        {
            match self.del(network, &attached.target()) {
                Ok(()) => deleted.push(attached),
                Err(error) => errors.push(error),
            }
        }
        if !before(network, Version::V110) {
            let list: Vec<Value> =
                valid.iter().map(|v| json!({"containerID": v.container_id, "ifname": v.ifname})).collect();
            for plugin in &network.plugins {
                let mut config = stdin(network, plugin, &Target::default(), &Value::Null);
                config["cni.dev/valid-attachments"] = list.clone().into();
                // The name that the specification had by mistake, which plugins may read.
                config["cni.dev/attachments"] = list.clone().into();
                let done = call::call(&self.path, "GC", &Target::default(), &config);
                errors.extend(done.err().map(|error| named(plugin, "GC", error)));
            }
        }
        Ok((deleted, errors))
    }

    /// STATUS: whether an ADD could be served. False when the version has no such question.
    pub fn status(&self, network: &Network) -> Result<bool, CniError> {
        if before(network, Version::V110) {
            return Ok(false);
        }
        for plugin in &network.plugins {
            let config = stdin(network, plugin, &Target::default(), &Value::Null);
            call::call(&self.path, "STATUS", &Target::default(), &config)
                .map_err(|error| named(plugin, "STATUS", error))?;
        }
        Ok(true)
    }

    /// What the cache says is attached on this node.
    pub fn attachments(&self) -> Result<Vec<Attached>, CniError> {
        self.cache.all()
    }

    /// When an attachment was made.
    pub fn made(&self, attached: &Attached) -> Option<SystemTime> {
        self.cache.written(&attached.network_name, &attached.target())
    }

    /// The network as an attachment of it was made; none where the cache does not say.
    pub fn attached(&self, network: &str, target: &Target) -> Option<Network> {
        self.cache.load(network, target)?.network()
    }

    /// An ADD of what is there would be refused by its plugins, and then undone: that would
    /// take away what is there.
    fn refuse_attached(&self, network: &Network, target: &Target) -> Result<(), CniError> {
        let attached = self.cache.load(&network.name, target).filter(|_| call::has_interface(target));
        match attached {
            None => Ok(()),
            Some(attached) => Err(invalid(&format!(
                "{} of container {} is attached to {} already: delete it first",
                attached.if_name, attached.container_id, network.name
            ))),
        }
    }

    fn undo(&self, network: &Network, plugins: &[Map<String, Value>], target: &Target, result: &Value) {
        for plugin in plugins.iter().rev() {
            let config = stdin(network, plugin, target, result);
            call::call(&self.path, "DEL", target, &config).ok();
        }
    }

    /// The attachment as it was made; what the caller says where the cache says nothing.
    fn as_added(&self, network: &Network, target: &Target) -> (Network, Target, Value) {
        let Some(attached) = self.cache.load(&network.name, target) else {
            return (network.clone(), target.clone(), Value::Null);
        };
        let network = attached.network().unwrap_or_else(|| network.clone());
        let mut as_added = attached.target();
        as_added.netns = target.netns.clone().or(as_added.netns);
        if !target.args.is_empty() {
            as_added.args.clone_from(&target.args);
        }
        if !target.capabilities.is_empty() {
            as_added.capabilities.clone_from(&target.capabilities);
        }
        let result = attached.result.map(|result| in_version(&network, result)).unwrap_or_default();
        (network, as_added, result)
    }
}

/// What a plugin reads.
fn stdin(network: &Network, plugin: &Map<String, Value>, target: &Target, result: &Value) -> Value {
    let mut config = plugin.clone();
    config.insert("name".into(), network.name.as_str().into());
    config.insert("cniVersion".into(), network.cni_version.as_str().into());
    if !result.is_null() {
        config.insert("prevResult".into(), result.clone());
    }
    let declared = plugin.get("capabilities").and_then(Value::as_object);
    let declared = declared.into_iter().flatten().filter(|(_, on)| on.as_bool() == Some(true));
    let given: Map<String, Value> =
        declared.filter_map(|(key, _)| Some((key.clone(), target.capabilities.get(key)?.clone()))).collect();
    if !given.is_empty() {
        config.insert("runtimeConfig".into(), given.into());
    }
    config.into()
}

/// The addresses of a result in any version of the specification, without prefix lengths.
pub fn addresses(result: &Value) -> Vec<String> {
    let result = CniResult::from_value(result, Version::V110).unwrap_or_default();
    result.ips.iter().map(|ip| ip.address.addr().to_string()).collect()
}

/// A result names its version; one that does not is of the configuration's.
fn completed(network: &Network, mut result: Value) -> Value {
    if let Some(object) = result.as_object_mut() {
        object.entry("cniVersion").or_insert_with(|| network.cni_version.as_str().into());
    }
    result
}

/// A cached result in the version of the configuration; one that cannot be read, as it is.
fn in_version(network: &Network, result: Value) -> Value {
    let Some(version) = Version::parse(&network.cni_version) else { return result };
    if result.get("cniVersion").and_then(Value::as_str) == Some(version.text()) {
        return result;
    }
    CniResult::from_value(&result, version).map(|result| result.to_value(version)).unwrap_or(result)
}

fn before(network: &Network, version: Version) -> bool {
    Version::parse(&network.cni_version).is_some_and(|own| own < version)
}

fn named(plugin: &Map<String, Value>, command: &str, error: CniError) -> CniError {
    let kind = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
    CniError::new(error.code, format!("plugin {kind} ({command}): {}", error.message))
}
