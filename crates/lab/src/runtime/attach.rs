//! A pod's sandbox: its namespace, and its interfaces by way of the node's CNI configuration.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::task::spawn_blocking;
use weft_kernel::Netns;

use super::call::{Target, call};
use super::capabilities::runtime_config;
use super::object::PodObject;
use super::{Host, Shared};
use crate::conflist::Conflist;
use crate::neighbours;
use crate::places::PodRecord;
use crate::state::write_atomically;

/// The network of every sandbox's own loopback, as containerd has it built in.
const LOOPBACK_VERSION: &str = "1.1.0";

/// What a sandbox was made with, as needed to take it away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Attachment {
    /// CNI_CONTAINERID: 64 hexadecimal digits.
    pub(crate) container_id: String,
    /// The configuration used, which the node may have replaced since.
    pub(crate) conflist: Arc<Conflist>,
    /// The last plugin's result, once there is one.
    pub(crate) result: Value,
}

/// A sandbox, from before the first thing is made for it until the last is taken away.
pub(super) struct Sandbox<'a> {
    shared: &'a Shared,
    host: &'a Host,
    pod: &'a PodObject,
    pin: PathBuf,
    args: String,
    attachment: Attachment,
}

impl<'a> Sandbox<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        host: &'a Host,
        pod: &'a PodObject,
        conflist: Arc<Conflist>,
    ) -> anyhow::Result<Sandbox<'a>> {
        let meta = &pod.metadata;
        let container_id = random_id()?;
        let args = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={container_id};K8S_POD_UID={}",
            meta.namespace, meta.name, meta.uid
        );
        let pin = shared.state.netns(&format!("pod-{}", meta.uid));
        let attachment = Attachment { container_id, conflist, result: Value::Null };
        Ok(Sandbox { shared, host, pod, pin, args, attachment })
    }

    /// Makes the namespace. Not to be cancelled: the thread that makes it goes on.
    pub(super) async fn make_netns(&self) -> anyhow::Result<Netns> {
        let pin = self.pin.clone();
        Ok(spawn_blocking(move || Netns::create(&pin)).await??)
    }

    /// Makes the interfaces; the pod's addresses.
    pub(super) async fn attach(&mut self) -> anyhow::Result<Vec<IpAddr>> {
        self.call("ADD", "lo", LOOPBACK_VERSION, "cni-loopback", &loopback(), &Value::Null).await?;
        let conflist = self.attachment.conflist.clone();
        for plugin in &conflist.plugins {
            let before = self.attachment.result.clone();
            let result =
                self.call("ADD", "eth0", &conflist.cni_version, &conflist.name, plugin, &before).await?;
            self.attachment.result = result;
        }
        let ips = addresses(&self.attachment.result)?;
        neighbours::introduce(&self.host.netns, &Netns::open(&self.pin)?, &self.attachment.result)?;
        self.record(&ips)?;
        Ok(ips)
    }

    /// Takes away what was made, however far it came; doing it again is no error.
    pub(super) async fn tear_down(&self) -> anyhow::Result<()> {
        let conflist = self.attachment.conflist.clone();
        let result = &self.attachment.result;
        for plugin in conflist.plugins.iter().rev() {
            self.call("DEL", "eth0", &conflist.cni_version, &conflist.name, plugin, result).await?;
        }
        self.call("DEL", "lo", LOOPBACK_VERSION, "cni-loopback", &loopback(), &Value::Null).await?;
        let pin = self.pin.clone();
        spawn_blocking(move || Netns::unpin(&pin)).await??;
        match std::fs::remove_file(PodRecord::path(&self.shared.state, &self.pod.metadata.uid)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn call(
        &self,
        verb: &str,
        ifname: &str,
        version: &str,
        network: &str,
        plugin: &Map<String, Value>,
        before: &Value,
    ) -> anyhow::Result<Value> {
        let mut config = plugin.clone();
        config.insert("name".into(), network.into());
        config.insert("cniVersion".into(), version.into());
        if !before.is_null() {
            config.insert("prevResult".into(), before.clone());
        }
        // A pod that is to go goes, whatever its annotations say.
        match runtime_config(plugin, self.pod) {
            Ok(told) => config.extend(told.map(|told| ("runtimeConfig".to_owned(), told))),
            Err(error) if verb == "ADD" => return Err(error),
            Err(_) => {}
        }
        let bin = self.shared.state.bin_dir();
        let target = Target {
            container_id: &self.attachment.container_id,
            netns: &self.pin,
            ifname,
            args: &self.args,
            path: &bin,
        };
        call(&self.host.netns, verb, &target, &config).await
    }

    fn record(&self, ips: &[IpAddr]) -> anyhow::Result<()> {
        let record = PodRecord::new(self.pod, &self.host.name, ips, Some(self.attachment.clone()));
        record.write(&self.shared.state)
    }
}

impl PodRecord {
    pub(super) fn new(
        pod: &PodObject,
        node: &str,
        ips: &[IpAddr],
        attachment: Option<Attachment>,
    ) -> PodRecord {
        PodRecord {
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            node: node.to_owned(),
            ips: ips.to_vec(),
            host_network: pod.spec.host_network,
            attachment,
        }
    }

    pub(super) fn write(&self, state: &crate::state::LabState) -> anyhow::Result<()> {
        let text = serde_json::to_vec(self)?;
        Ok(write_atomically(&PodRecord::path(state, &self.uid), &text)?)
    }
}

fn loopback() -> Map<String, Value> {
    let mut config = Map::new();
    config.insert("type".into(), json!("loopback"));
    config
}

/// The addresses of a CNI result, in its order.
fn addresses(result: &Value) -> anyhow::Result<Vec<IpAddr>> {
    let ips = result.get("ips").and_then(Value::as_array).filter(|ips| !ips.is_empty());
    let ips = ips.context("the CNI result has no addresses: is there an IPAM plugin in the conflist?")?;
    let read = |ip: &Value| -> anyhow::Result<IpAddr> {
        let text =
            ip.get("address").and_then(Value::as_str).context("an address of the CNI result is no text")?;
        Ok(text.parse::<IpNet>().with_context(|| format!("address {text:?} of the CNI result"))?.addr())
    };
    ips.iter().map(read).collect()
}

fn random_id() -> anyhow::Result<String> {
    use std::fmt::Write;
    use std::io::Read;
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes))?;
    Ok(bytes.iter().fold(String::with_capacity(64), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_order_and_their_lack_is_an_error() {
        let result = json!({"ips": [{"address": "10.244.0.5/24"}, {"address": "fd00::5/64"}]});
        let expected: [IpAddr; 2] = ["10.244.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        assert_eq!(addresses(&result).unwrap(), expected);
        for bad in [json!({}), json!({"ips": []}), json!({"ips": [{"address": "x"}]}), Value::Null] {
            assert!(addresses(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn container_ids_are_as_containerd_has_them() {
        let (a, b) = (random_id().unwrap(), random_id().unwrap());
        assert!(a.len() == 64 && a.bytes().all(|c| c.is_ascii_hexdigit()) && a != b);
    }
}
