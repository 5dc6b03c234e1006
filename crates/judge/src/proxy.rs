//! kube-proxy over objects that a test makes up.

use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::objects::Objects;
use crate::process::Process;

/// How kube-proxy programs the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyMode {
    /// Chains of iptables.
    Iptables,
    /// A table of nftables for each family.
    Nftables,
    /// Virtual servers.
    Ipvs,
}

impl ProxyMode {
    /// As `--proxy-mode` wants it.
    pub fn name(self) -> &'static str {
        match self {
            ProxyMode::Iptables => "iptables",
            ProxyMode::Nftables => "nftables",
            ProxyMode::Ipvs => "ipvs",
        }
    }
}

/// A running kube-proxy of one node; ends when it is dropped.
#[derive(Debug)]
pub struct KubeProxy {
    process: Process,
    objects: Objects,
    _dir: TempDir,
}

impl KubeProxy {
    /// Starts it in the calling thread's network namespace for the node of the name in `node`. Objects that it
    /// is to have from the start are given as its resource's path and itself; `arguments` are more flags. To be
    /// called on a thread that lives as long as it shall run.
    pub fn start(
        binaries: &Path,
        mode: ProxyMode,
        node: Value,
        objects: Vec<(&'static str, Value)>,
        arguments: &[String],
    ) -> anyhow::Result<Self> {
        let dir = TempDir::new()?;
        let name = node["metadata"]["name"].as_str().context("a node without a name")?.to_owned();
        let served = Objects::serve()?;
        served.put("/api/v1/nodes", node);
        for (path, object) in objects {
            served.put(path, object);
        }
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "judge",
            "clusters": [{"name": "judge", "cluster": {"server": format!("http://{}", served.address())}}],
            "users": [{"name": "judge", "user": {}}],
            "contexts": [{"name": "judge", "context": {"cluster": "judge", "user": "judge"}}],
        });
        let kubeconfig = dir.path().join("kubeconfig");
        std::fs::write(&kubeconfig, config.to_string()).context("cannot write the kubeconfig")?;
        let mut all = vec![
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--hostname-override={name}"),
            format!("--proxy-mode={}", mode.name()),
            "--kube-api-content-type=application/json".into(),
        ];
        // Parameters of the whole machine, which a namespace cannot set.
        let machine = ["max-per-core", "min", "tcp-timeout-established", "tcp-timeout-close-wait"];
        all.extend(machine.map(|name| format!("--conntrack-{name}=0")));
        all.extend_from_slice(arguments);
        let process = Process::start(&binaries.join("kube-proxy"), &all, &dir.path().join("kube-proxy.log"))?;
        Ok(Self { process, objects: served, _dir: dir })
    }

    /// The objects it sees, to be changed.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Fails with the end of its log if it has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.process.check()
    }
}
