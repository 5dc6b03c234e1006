//! A hundred nodes race for blocks through a real API server: no block has two nodes, no claim is lost.
//! The times are printed: `bench/pools.sh`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking and is one crate"
)]

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use weft_agent::{AgentConfig, AnnounceOn, ProxyConfig, ProxyMode, Views, keep_pools};
use weft_judge::Process;
use weft_model::network::{Backend, Ipam};
use weft_store::{Api, Store, StoreConfig};

const NODES: usize = 100;
const PATIENCE: Duration = Duration::from_secs(120);
const BLOCKS: &str = "/apis/weft.dev/v1/ipblocks";

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// An API server, or two over one etcd.
struct Servers {
    dir: TempDir,
    /// Ended when they are dropped, by the kernel.
    _processes: Vec<Process>,
    kubeconfigs: Vec<PathBuf>,
}

impl Servers {
    async fn start(etcd: bool) -> Servers {
        let dir = TempDir::new().unwrap();
        let mut servers = Servers { _processes: Vec::new(), kubeconfigs: Vec::new(), dir };
        let mut options: Vec<String> = Vec::new();
        if etcd {
            let (clients, peers) = (free_port(), free_port());
            let url = format!("http://127.0.0.1:{clients}");
            let peer = format!("http://127.0.0.1:{peers}");
            let data = servers.dir.path().join("etcd").display().to_string();
            let arguments = [
                format!("--data-dir={data}"),
                format!("--listen-client-urls={url}"),
                format!("--advertise-client-urls={url}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster=default={peer}"),
            ];
            servers.run("etcd", &arguments);
            options.push(format!("--etcd-servers={url}"));
        }
        for name in if etcd { &["one", "two"][..] } else { &["one"] } {
            let data = servers.dir.path().join(name);
            let mut arguments = vec!["apiserver".to_owned(), format!("--data-dir={}", data.display())];
            arguments.push(format!("--listen=127.0.0.1:{}", free_port()));
            arguments.extend(options.clone());
            servers.run(env!("CARGO_BIN_EXE_weft"), &arguments);
            let kubeconfig = data.join("admin.kubeconfig");
            wait("the server answers", async || {
                let Ok(api) = Api::from_kubeconfig(&kubeconfig).await else { return false };
                api.get("/apis/weft.dev/v1/ippools").await.is_ok()
            })
            .await;
            servers.kubeconfigs.push(kubeconfig);
        }
        servers
    }

    fn run(&mut self, program: &str, arguments: &[String]) {
        let log = self.dir.path().join(format!("{}.log", self._processes.len()));
        self._processes.push(Process::start(Path::new(program), arguments, &log).unwrap());
    }

    fn access(&self) -> Access {
        Access { dir: self.dir.path().to_owned(), kubeconfigs: self.kubeconfigs.clone() }
    }
}

/// Where the servers are.
struct Access {
    dir: PathBuf,
    kubeconfigs: Vec<PathBuf>,
}

impl Access {
    async fn api(&self, i: usize) -> Api {
        Api::from_kubeconfig(&self.kubeconfigs[i % self.kubeconfigs.len()]).await.unwrap()
    }
}

async fn wait(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// The rooms of a hundred agents, on as many threads as there are processors.
struct Agents {
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

impl Agents {
    async fn start(servers: &Servers) -> Agents {
        let (stop, stopped) = watch::channel(false);
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let (ready, mut all) = mpsc::channel(count);
        let part = |thread: usize| {
            let (servers, stopped, ready) = (servers.access(), stopped.clone(), ready.clone());
            let nodes = (0..NODES).filter(move |i| i % count == thread);
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(run(servers, nodes, ready, stopped));
            })
        };
        let threads = (0..count).map(part).collect();
        for _ in 0..count {
            all.recv().await.unwrap();
        }
        Agents { stop, threads }
    }

    fn end(self) {
        self.stop.send(true).unwrap();
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// Runs agents, each with a store of its own.
async fn run(
    servers: Access,
    nodes: impl Iterator<Item = usize>,
    ready: mpsc::Sender<()>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut tasks = JoinSet::new();
    for i in nodes {
        let api = servers.api(i).await;
        let name = format!("node{i}");
        let node = json!({"metadata": {"name": name}, "kind": "Node", "apiVersion": "v1"});
        api.create("/api/v1/nodes", &node).await.unwrap();
        let files = servers.dir.join(&name);
        let cfg = AgentConfig {
            node_name: name,
            kubeconfig: PathBuf::new(),
            backend: Backend::AUTO,
            ipam: Ipam::Pools,
            cluster_cidrs: Vec::new(),
            cni_conf_dir: files.join("conf"),
            cni_data_dir: files.join("networks"),
            cri_sockets: Vec::new(),
            podman_socket: PathBuf::new(),
            subnet_file: PathBuf::new(),
            state_dir: files.join("state"),
            proxy: ProxyConfig { mode: ProxyMode::None, ..ProxyConfig::default() },
            announce: AnnounceOn::None,
        };
        let views = Arc::new(Views::default());
        let mut store = Store::start(api.clone(), StoreConfig::default());
        views.tell(&store.changed().await);
        let told = views.clone();
        tasks.spawn(async move {
            loop {
                told.tell(&store.changed().await);
            }
        });
        tasks.spawn(keep_pools(api, cfg, views));
    }
    ready.send(()).await.unwrap();
    stopped.changed().await.unwrap();
    tasks.shutdown().await;
}

async fn blocks(api: &Api) -> Vec<Value> {
    api.list(BLOCKS).await.unwrap()["items"].as_array().unwrap().clone()
}

fn owners(blocks: &[Value], prefix: &str) -> BTreeSet<String> {
    let of_pool = blocks.iter().filter(|block| block["spec"]["cidr"].as_str().unwrap().starts_with(prefix));
    of_pool.map(|block| block["spec"]["node"].as_str().unwrap().to_owned()).collect()
}

async fn race(kind: &str, servers: Servers) {
    let agents = Agents::start(&servers).await;
    let api = servers.access().api(0).await;
    // One pool with room, then one with hardly a block more than there are nodes.
    for (name, spec, prefix) in [
        ("wide", json!({"cidr": "10.1.0.0/16"}), "10.1."),
        ("tight", json!({"cidr": "10.2.0.0/22", "blockSize": 29}), "10.2."),
    ] {
        let pool =
            json!({"apiVersion": "weft.dev/v1", "kind": "IPPool", "metadata": {"name": name}, "spec": spec});
        let start = Instant::now();
        api.create("/apis/weft.dev/v1/ippools", &pool).await.unwrap();
        wait("every node has a block", async || {
            // The list is read once in a while, so that it is not what is measured.
            sleep(Duration::from_millis(20)).await;
            owners(&blocks(&api).await, prefix).len() == NODES
        })
        .await;
        let took = start.elapsed();
        let all = blocks(&api).await;
        let mine: Vec<&Value> =
            all.iter().filter(|block| block["spec"]["cidr"].as_str().unwrap().starts_with(prefix)).collect();
        assert_eq!(mine.len(), NODES, "a node has two blocks of {name}");
        let cidrs: BTreeSet<&str> =
            mine.iter().map(|block| block["spec"]["cidr"].as_str().unwrap()).collect();
        assert_eq!(cidrs.len(), NODES);
        println!(
            "{kind}: {NODES} nodes, pool {name}: every node has its block after {} ms",
            took.as_millis()
        );
        // For the next one every node has to look anew.
        api.merge_patch(&format!("/apis/weft.dev/v1/ippools/{name}"), &json!({"spec": {"disabled": true}}))
            .await
            .unwrap();
        wait("what is unused of a disabled pool is given back", async || {
            sleep(Duration::from_millis(20)).await;
            owners(&blocks(&api).await, prefix).is_empty()
        })
        .await;
    }
    agents.end();
}

#[tokio::test]
async fn a_hundred_nodes_race_for_blocks_of_one_server() {
    race("weft apiserver", Servers::start(false).await).await;
}

#[tokio::test]
async fn a_hundred_nodes_race_for_blocks_of_two_servers_over_etcd() {
    if !Path::new("/usr/bin/etcd").exists() {
        println!("skipped: etcd is not installed");
        return;
    }
    race("two weft apiservers over etcd", Servers::start(true).await).await;
}
