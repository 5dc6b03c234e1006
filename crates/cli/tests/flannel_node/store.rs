//! Flannel's etcd, and `weft apiserver` over the same.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{built, eventually};

/// etcd takes none without a port.
const SOCKET: &str = "localhost:1";
const SOON: Duration = Duration::from_secs(60);

/// Both; to be made before the lab, so that they outlive it.
pub struct Store {
    dir: TempDir,
    url: String,
    processes: Vec<Child>,
}

impl Store {
    /// What flannel's keys start with.
    pub const PREFIX: &str = "/coreos.com/network";

    /// Starts both, with flannel's configuration.
    pub fn start(config: &str) -> Store {
        let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (url, peer) = (format!("http://127.0.0.1:{}", port()), format!("http://127.0.0.1:{}", port()));
        let mut store = Store { dir: TempDir::new().unwrap(), url, processes: Vec::new() };
        let mut etcd = Command::new("etcd");
        // The socket, a file of its folder, reaches into the lab's nodes, whose networks are their own.
        etcd.current_dir(store.dir.path()).args(["--data-dir", "data.etcd"]);
        etcd.args(["--listen-client-urls", &format!("{},unix://{SOCKET}", store.url)]);
        etcd.args(["--advertise-client-urls", &store.url, "--log-level", "error"]);
        etcd.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        etcd.args(["--initial-cluster", &format!("default={peer}")]);
        store.spawn(&mut etcd, "etcd");
        let key = format!("{}/config", Store::PREFIX);
        eventually(SOON, "etcd answers", || store.try_ctl(&["put", &key, config]).is_some());
        let mut server = Command::new(built("weft"));
        server.args(["apiserver", "--listen", &format!("127.0.0.1:{}", port()), "--data-dir"]);
        server.arg(store.dir.path().join("data")).args(["--etcd-servers", &store.url]);
        server.args(["--flannel-etcd-prefix", Store::PREFIX]);
        store.spawn(&mut server, "apiserver");
        eventually(SOON, "the server answers", || store.kubectl(&["get", "--raw", "/readyz"]).is_some());
        store
    }

    fn spawn(&mut self, command: &mut Command, name: &str) {
        let log = std::fs::File::create(self.dir.path().join(name).with_extension("log")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.processes.push(child.unwrap_or_else(|error| panic!("{name}: {error}")));
    }

    /// etcd's URL inside of the lab.
    pub fn socket(&self) -> String {
        format!("unix://{}", self.dir.path().join(SOCKET).display())
    }

    /// The administrator's.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("data/admin.kubeconfig")
    }

    /// What kubectl prints; nothing where it fails.
    pub fn kubectl(&self, args: &[&str]) -> Option<String> {
        let mut command = Command::new("/usr/bin/kubectl");
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .arg("--cache-dir")
            .arg(self.dir.path().join("cache"));
        said(command.args(args))
    }

    fn try_ctl(&self, args: &[&str]) -> Option<String> {
        said(Command::new("etcdctl").env("ETCDCTL_API", "3").args(["--endpoints", &self.url]).args(args))
    }

    /// What etcdctl prints.
    pub fn ctl(&self, args: &[&str]) -> String {
        self.try_ctl(args).unwrap_or_else(|| panic!("etcdctl {args:?}"))
    }

    /// The subnets that are leased, each with how its host is reached.
    pub fn subnets(&self) -> Vec<(String, Value)> {
        let folder = format!("{}/subnets/", Store::PREFIX);
        let keys = self.ctl(&["get", "--prefix", &folder, "--keys-only"]);
        let keys = keys.lines().filter(|key| !key.is_empty());
        let value = |key: &str| serde_json::from_str(&self.ctl(&["get", key, "--print-value-only"]));
        keys.map(|key| (key.to_owned(), value(key).unwrap_or_default())).collect()
    }

    /// Ends a key's lease, as its time does.
    pub fn end_lease(&self, key: &str) {
        let found: Value = serde_json::from_str(&self.ctl(&["get", key, "-w", "json"])).unwrap();
        let lease = found["kvs"][0]["lease"].as_i64().unwrap();
        self.ctl(&["lease", "revoke", &format!("{lease:x}")]);
    }
}

fn said(command: &mut Command) -> Option<String> {
    let output = command.output().expect("kubectl and etcdctl are installed");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Drop for Store {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("apiserver.log")).unwrap_or_default();
            println!("the API server:\n{log}");
        }
        for process in self.processes.iter_mut().rev() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
