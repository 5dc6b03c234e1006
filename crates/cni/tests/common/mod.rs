//! A node and its container runtime, as far as a plugin sees them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    unreachable_pub,
    reason = "a harness fails the test that uses it, and no test uses all of it"
)]

pub mod chain;
pub mod strace;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use weft_kernel::testing::{MachineDump, TestNs, eventually};
use weft_kernel::{Link, Netlink, Netns, sysctl};

/// Where Debian has the reference plugins.
pub const REFERENCE: &str = "/usr/lib/cni";

/// A fresh namespace as the node, and a folder for its allocations.
pub struct Node {
    pub ns: TestNs,
    pub data: tempfile::TempDir,
}

/// What a plugin answered.
#[derive(Debug)]
pub struct Answer {
    pub ok: bool,
    pub json: Value,
}

impl Answer {
    pub fn code(&self) -> u64 {
        self.json["code"].as_u64().unwrap_or(0)
    }

    pub fn message(&self) -> &str {
        self.json["msg"].as_str().unwrap_or_default()
    }

    #[track_caller]
    pub fn success(self) -> Value {
        assert!(self.ok, "{}", self.json);
        self.json
    }
}

/// One call, as a runtime makes it.
#[derive(Clone, Debug)]
pub struct Call {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub env: BTreeMap<&'static str, String>,
    pub input: Vec<u8>,
}

impl Node {
    pub fn new() -> Node {
        let ns = TestNs::new();
        // Detection of duplicates changes a link seconds after it was made.
        for scope in ["all", "default"] {
            sysctl::set(&format!("net.ipv6.conf.{scope}.accept_dad"), "0").unwrap();
        }
        Node { ns, data: tempfile::tempdir().unwrap() }
    }

    /// The node's state once the kernel has done what it does later (carriers).
    pub fn settled(&self) -> MachineDump {
        let mut dump = MachineDump::take();
        eventually(Duration::from_secs(10), "the node settles", || {
            let before = std::mem::replace(&mut dump, MachineDump::take());
            before == dump
        });
        dump
    }

    /// A bridge network over `subnets`.
    pub fn config(&self, subnets: &[&str]) -> Value {
        config(self.data.path(), subnets)
    }

    pub fn pod(&self) -> Netns {
        Netns::create_unpinned().unwrap()
    }

    pub fn add(&self, id: &str, pod: &Netns, config: &Value) -> Answer {
        Call::new("ADD", id, Some(&path(pod)), config).run()
    }

    pub fn del(&self, id: &str, pod: Option<&Netns>, config: &Value) -> Answer {
        Call::new("DEL", id, pod.map(path).as_deref(), config).run()
    }

    pub fn network(&self) -> PathBuf {
        self.data.path().join("net")
    }

    pub fn allocations(&self) -> Vec<(String, String)> {
        allocations(&self.network())
    }

    /// Links of the node that face a pod.
    pub fn pod_links(&self) -> Vec<Link> {
        let links = Netlink::open().unwrap().links().unwrap();
        links.into_iter().filter(|link| link.kind.as_deref() == Some("veth")).collect()
    }
}

pub fn config(data: &Path, subnets: &[&str]) -> Value {
    let ranges: Vec<Value> = subnets.iter().map(|subnet| json!([{"subnet": subnet}])).collect();
    json!({
        "cniVersion": "1.0.0", "name": "net", "type": "bridge", "bridge": "br0",
        "isDefaultGateway": true, "hairpinMode": true,
        "ipam": {"type": "host-local", "dataDir": data, "ranges": ranges},
    })
}

/// A path by which another process opens the namespace.
pub fn path(pod: &Netns) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), pod.as_fd().as_raw_fd()).into()
}

/// The address files of a network with their owners.
pub fn allocations(network: &Path) -> Vec<(String, String)> {
    let Ok(entries) = fs::read_dir(network) else { return Vec::new() };
    let mut found: Vec<(String, String)> = entries
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_str().unwrap().parse::<IpAddr>().is_ok())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap()))
        .collect();
    found.sort();
    found
}

/// The executable; the virtual machine lane has it in another place (`WEFT_CNI`).
pub fn executable() -> PathBuf {
    std::env::var_os("WEFT_CNI").map_or_else(|| env!("CARGO_BIN_EXE_weft-cni").into(), PathBuf::from)
}

/// Whether a ping from `from` is answered.
pub fn reaches(from: &Netns, to: &str) -> bool {
    let ping = || Command::new("ping").args(["-c1", "-W2", to]).output().unwrap().status.success();
    from.run(ping).unwrap()
}

/// Runs a script in `ns` and gives what it says.
pub fn sh(ns: &Netns, script: &str) -> String {
    let output = ns.run(|| Command::new("sh").args(["-ec", script]).output().unwrap()).unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A node with the interface `uplink0` on a network where `out0` of the namespace given back is.
pub fn node_with_uplink() -> (Node, Netns) {
    let mut node = Node::new();
    let (here, outside) = (node.ns.ns().clone(), node.ns.extra("outside"));
    node.ns.join((&here, "uplink0", "10.9.0.250/24"), (&outside, "out0", "10.9.0.251/24"));
    (node, outside)
}

impl Call {
    pub fn new(command: &str, id: &str, netns: Option<&Path>, config: &Value) -> Call {
        let mut env = BTreeMap::from([
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", id.to_owned()),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_PATH", REFERENCE.to_owned()),
            ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0".to_owned()),
        ]);
        if let Some(netns) = netns {
            env.insert("CNI_NETNS", netns.display().to_string());
        }
        let input = config.to_string().into_bytes();
        Call { program: executable(), arguments: Vec::new(), env, input }
    }

    /// The same call to the reference plugin of the configuration's type.
    pub fn reference(mut self) -> Call {
        let config: Value = serde_json::from_slice(&self.input).unwrap();
        self.program = Path::new(REFERENCE).join(config["type"].as_str().unwrap());
        self
    }

    pub fn env(mut self, key: &'static str, value: Option<&str>) -> Call {
        match value {
            Some(value) => self.env.insert(key, value.to_owned()),
            None => self.env.remove(key),
        };
        self
    }

    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Call {
        self.input = input.into();
        self
    }

    pub fn start(&self) -> Child {
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(&self.env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A plugin that refuses its environment does not read.
        child.stdin.take().unwrap().write_all(&self.input).ok();
        child
    }

    pub fn run(&self) -> Answer {
        let Output { status, stdout, stderr } = self.start().wait_with_output().unwrap();
        assert_ne!(status.code(), Some(101), "panicked: {}", String::from_utf8_lossy(&stderr));
        let json = match stdout.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&stdout).unwrap_or_else(|error| {
                panic!(
                    "standard output is no single JSON object ({error}): {}",
                    String::from_utf8_lossy(&stdout)
                )
            }),
        };
        Answer { ok: status.success(), json }
    }
}
