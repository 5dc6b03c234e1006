//! Nodes and pods made of namespaces, with real agents fed by hand: no API anywhere.
#![allow(
    dead_code,
    clippy::expect_used,
    clippy::panic,
    reason = "each test binary uses a part of the harness, which fails the test"
)]

pub mod probes;
pub mod traffic;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};
use weft_agent::{Agent, AgentConfig, AnnounceOn, ProxyConfig, ProxyMode, Status, drive};
use weft_kernel::testing::{TestNs, eventually};
use weft_kernel::{LinkKind, Netlink, Netns, NewLink, Op};
use weft_model::network::Backend;
use weft_model::{Changes, Cluster, Node};
use weft_store::{Freshness, Update};

/// Longer than a busy machine needs, and shorter than the agent's audit: what is repaired
/// within it was repaired from a notification.
pub const SOON: Duration = Duration::from_secs(10);

/// Which addresses nodes and pods have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    V4,
    V6,
    Both,
}

impl Families {
    /// `v4` and `v6`, as far as they are had.
    fn of<T>(self, v4: T, v6: T) -> Vec<T> {
        match self {
            Families::V4 => vec![v4],
            Families::V6 => vec![v6],
            Families::Both => vec![v4, v6],
        }
    }
}

/// The underlay (the namespace of the test's thread) with nodes on it.
pub struct World {
    ns: TestNs,
    pub backend: Backend,
    pub families: Families,
    pub nodes: Vec<TestNode>,
}

pub struct TestNode {
    pub name: String,
    pub ns: Netns,
    pub pod: Netns,
    pub files: TempDir,
    families: Families,
}

pub fn sh_in(ns: &Netns, script: &str) -> Output {
    ns.run(|| Command::new("sh").args(["-ec", script]).output().unwrap()).unwrap()
}

/// What `script` prints; it must succeed.
pub fn sh(ns: &Netns, script: &str) -> String {
    let output = sh_in(ns, script);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {errors}{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).unwrap()
}

impl World {
    /// `count` nodes on one segment 10.168.0.0/16, whose gateway 10.168.0.1 also has the outside
    /// address 192.0.2.1. No agent runs yet.
    pub fn new(backend: Backend, count: usize) -> World {
        World::of(backend, count, Families::V4)
    }

    /// The same with addresses of other families: fd10:168::/64 and 2001:db8::1 stand for those above.
    pub fn of(backend: Backend, count: usize, families: Families) -> World {
        let mut ns = TestNs::new();
        let here = ns.ns().clone();
        sh(
            &here,
            "ip link set lo up; ip addr add 192.0.2.1/32 dev lo; ip addr add 2001:db8::1/128 dev lo
            ip link add seg0 type bridge; ip addr add 10.168.0.1/16 dev seg0
            ip addr add fd10:168::1/64 dev seg0 nodad; ip link set seg0 up",
        );
        let nodes = (1..=count).map(|i| TestNode::new(&mut ns, i, families)).collect();
        World { ns, backend, families, nodes }
    }

    /// Whether a ping from the pod on the node with this index is answered.
    pub fn reaches(&self, from: usize, to: &str) -> bool {
        sh_in(&self.nodes[from].pod, &format!("ping -n -c1 -W1 {to}")).status.success()
    }

    /// The addresses of the pod on the node with this index.
    pub fn pod_ips(&self, index: usize) -> Vec<IpAddr> {
        let ips = self.families.of(format!("10.244.{index}.2"), format!("fd00:244:0:{index}::2"));
        ips.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    pub fn underlay(&self) -> Netns {
        self.ns.ns().clone()
    }

    pub fn cluster(&self) -> Cluster {
        let nodes = self.nodes.iter().enumerate().map(|(i, node)| {
            let name: Arc<str> = node.name.as_str().into();
            let addresses = self.families.of(format!("10.168.0.{}", i + 2), format!("fd10:168::{}", i + 2));
            let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
            let pod_cidrs = self.families.of(format!("10.244.{i}.0/24"), format!("fd00:244:0:{i}::/64"));
            let pod_cidrs = pod_cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
            (name.clone(), Arc::new(Node { name, uid: "u".into(), addresses, pod_cidrs, ..Node::default() }))
        });
        Cluster { nodes: nodes.collect(), ..Cluster::default() }
    }

    /// An agent for the node with this index, in a thread of its own.
    pub fn start(&self, index: usize) -> Running {
        let node = &self.nodes[index];
        Running::start(node.ns.clone(), node.config(self.backend))
    }

    /// Agents for all nodes, settled, and a pod on each.
    pub fn up(&self) -> Vec<Running> {
        let running: Vec<Running> = (0..self.nodes.len()).map(|i| self.start(i)).collect();
        for agent in &running {
            agent.tell(self.cluster());
        }
        running.iter().for_each(Running::settled);
        for (i, node) in self.nodes.iter().enumerate() {
            node.add_pod_of(i, self.families);
        }
        running
    }
}

impl TestNode {
    fn new(ns: &mut TestNs, i: usize, families: Families) -> TestNode {
        let here = ns.ns().clone();
        let name = format!("node{i}");
        let (node, pod) = (ns.extra(&name), ns.extra(&format!("pod{i}")));
        veth(&here, &format!("u{i}"), &node);
        sh(&here, &format!("ip link set u{i} master seg0 up"));
        // What comes and goes with the link is another's business, as on a machine that is set up by hand.
        sh(
            &node,
            "ip link set lo up; sysctl -qw net.ipv6.conf.eth0.keep_addr_on_down=1; ip link set eth0 up",
        );
        for line in families.of(
            format!("ip addr add 10.168.0.{}/16 dev eth0; ip route add default via 10.168.0.1", i + 1),
            format!(
                "ip addr add fd10:168::{}/64 dev eth0 nodad; ip route add default via fd10:168::1",
                i + 1
            ),
        ) {
            sh(&node, &line);
        }
        TestNode { name, families, ns: node, pod, files: tempfile::tempdir().unwrap() }
    }

    pub fn config(&self, backend: Backend) -> AgentConfig {
        AgentConfig {
            node_name: self.name.clone(),
            kubeconfig: PathBuf::new(),
            backend,
            ipam: weft_model::network::Ipam::NodeCidr,
            cluster_cidrs: self
                .families
                .of("10.244.0.0/16", "fd00:244::/48")
                .iter()
                .map(|cidr| cidr.parse().unwrap())
                .collect(),
            cni_conf_dir: self.files.path().join("net.d"),
            cri_sockets: Vec::new(),
            podman_socket: PathBuf::new(),
            cni_data_dir: self.files.path().join("networks"),
            subnet_file: self.files.path().join("subnet.env"),
            state_dir: self.files.path().join("agent"),
            proxy: ProxyConfig { mode: ProxyMode::None, ..ProxyConfig::default() },
            announce: AnnounceOn::None,
        }
    }

    pub fn conflist(&self) -> PathBuf {
        self.files.path().join("net.d/10-weft.conflist")
    }

    /// What `weft-cni` would make for a pod of the node with this index.
    pub fn add_pod_of(&self, index: usize, families: Families) {
        let addresses = families.of(
            (format!("10.244.{index}.2/24"), format!("10.244.{index}.1")),
            (format!("fd00:244:0:{index}::2/64"), format!("fd00:244:0:{index}::1")),
        );
        veth(&self.ns, "wf0123456789a", &self.pod);
        sh(
            &self.ns,
            "ip link set wf0123456789a alias weft:default/pod master weft0 up
            bridge link set dev wf0123456789a hairpin on",
        );
        sh(&self.pod, "ip link set lo up; ip link set eth0 up");
        for (address, gateway) in addresses {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            let line = format!("ip addr add {address} dev eth0 {nodad}; ip route add default via {gateway}");
            sh(&self.pod, &line);
        }
    }

    /// All that Weft programs here, and what is beside it, without what differs between two
    /// devices of one name.
    pub fn state(&self) -> String {
        let mut state = sh(
            &self.ns,
            "ip route show table all | grep -v 'table local\\|fe80\\|^ff00\\|^multicast' | sed 's/nhid [0-9]* //'
            ip nexthop | cut -d' ' -f3-; ip neigh show nud permanent; bridge fdb show | grep dst || true; ip -4 -br addr
            ip -o link | cut -d' ' -f2,4,5; ip -o link show master weft0 | cut -d' ' -f2
            nft list ruleset; cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/*/forwarding",
        );
        state += &std::fs::read_to_string(self.conflist()).unwrap_or_default();
        // What was made again comes last in a list of the kernel's.
        let mut lines: Vec<&str> = state.lines().collect();
        lines.sort_unstable();
        lines.join("\n")
    }
}

fn veth(here: &Netns, name: &str, there: &Netns) {
    let kind = LinkKind::Veth {
        peer_name: "eth0".into(),
        peer_netns: Some(there.clone()),
        peer_mac: None,
        peer_mtu: None,
        peer_up: true,
    };
    Netlink::open_in(here).unwrap().apply(&Op::LinkAdd(NewLink::new(name, kind))).unwrap();
}

/// A running agent. Dropping it ends the loop where it stands, as a kill would: nothing of the
/// agent runs after that.
pub struct Running {
    updates: mpsc::UnboundedSender<Update>,
    stop: Option<oneshot::Sender<()>>,
    pub status: Arc<Mutex<Status>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(ns: Netns, cfg: AgentConfig) -> Running {
        let (updates, mut from) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let status = Arc::new(Mutex::new(Status::default()));
        let seen = status.clone();
        let thread = std::thread::spawn(move || {
            ns.enter().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut agent = Agent::new(cfg).unwrap();
                let next = async || match from.recv().await {
                    Some(update) => update,
                    None => std::future::pending().await,
                };
                let stop = async move { drop(stopped.await) };
                drive(&mut agent, next, stop, |new, _| *seen.lock().unwrap() = new.clone()).await.unwrap();
            });
        });
        Running { updates, stop: Some(stop), status, thread: Some(thread) }
    }

    pub fn tell(&self, cluster: Cluster) {
        self.tell_stale(cluster, Freshness::Fresh);
    }

    pub fn updates_with(&self, cluster: Cluster, changes: Changes) {
        self.updates.send(Update { cluster, changes, freshness: Freshness::Fresh }).unwrap();
    }

    /// A view in which the named nodes changed.
    pub fn tell_of(&self, cluster: &Cluster, changed: &[&str]) {
        let nodes = changed.iter().map(|name| (*name).into()).collect();
        self.updates_with(cluster.clone(), Changes { nodes, ..Changes::default() });
    }

    pub fn tell_stale(&self, cluster: Cluster, freshness: Freshness) {
        // Names that are gone may be among what changed.
        let mut changes = Changes { nodes: cluster.nodes.keys().cloned().collect(), ..Changes::default() };
        changes.nodes.extend((1..10).map(|i| format!("node{i}").into()));
        self.updates.send(Update { cluster, changes, freshness }).unwrap();
    }

    pub fn status(&self) -> Status {
        self.status.lock().unwrap().clone()
    }

    /// Waits until the node is ready and every peer programmed.
    pub fn settled(&self) {
        let ready = || {
            let status = self.status();
            status.ready && status.errors.is_empty() && status.peers.iter().all(|peer| peer.programmed)
        };
        eventually(SOON, "the agent is ready", ready);
    }

    pub fn kill(mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A ping of 100 packets a second that is counted at its end.
pub struct Ping(Child);

impl Ping {
    pub fn start(from: &Netns, to: &str) -> Ping {
        let mut command = Command::new("ping");
        command.args(["-n", "-q", "-i", "0.01", "-W", "2", to]).stdout(Stdio::piped());
        Ping(from.run(|| command.spawn().unwrap()).unwrap())
    }

    /// Sent and received.
    pub fn end(self) -> (u32, u32) {
        // SIGINT makes ping print its summary.
        Command::new("kill").args(["-INT", &self.0.id().to_string()]).status().unwrap();
        let output = self.0.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let summary = text.lines().find(|line| line.contains("packets transmitted")).unwrap_or_default();
        let numbers: Vec<u32> = summary.split(' ').filter_map(|word| word.parse().ok()).collect();
        (numbers[0], numbers[1])
    }
}
