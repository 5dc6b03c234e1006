//! `weft apiserver` as an operator starts it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking and is one crate"
)]

mod common;

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{Labs, eventually, example};
use serde_json::Value;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(60);

/// A process, ended when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server of the executable.
struct Server {
    _process: Process,
    dir: TempDir,
    port: u16,
}

/// A port that was free just now; nobody else is given it so soon.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    /// Starts it by a shell, after `before`.
    fn start(before: &str, options: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let port = free_port();
        let line = format!("{before}; exec \"$0\" apiserver --listen 127.0.0.1:{port} \"$@\"");
        let process = Command::new("sh")
            .args(["-c", &line, env!("CARGO_BIN_EXE_weft"), "--data-dir"])
            .arg(dir.path().join("data"))
            .args(options)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Server { _process: Process(process), dir, port };
        let ready = || server.kubectl(&["get", "--raw", "/readyz"]).is_ok();
        eventually(SOON, "the server answers", ready);
        server
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("data/admin.kubeconfig")
    }

    /// What kubectl prints; the error is what it complains of.
    fn kubectl(&self, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new("/usr/bin/kubectl");
        command.arg("--kubeconfig").arg(self.kubeconfig());
        command.arg("--cache-dir").arg(self.dir.path().join("cache"));
        let output = command.args(["--request-timeout", "10s"]).args(args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }
}

#[test]
fn more_connections_are_held_than_the_usual_limit_of_open_files() {
    let server = Server::start("ulimit -Sn 64", &[]);
    let held: Vec<TcpStream> =
        (0..200).map(|_| TcpStream::connect(("127.0.0.1", server.port)).unwrap()).collect();
    server
        .kubectl(&["get", "namespaces"])
        .unwrap_or_else(|e| panic!("beside {} connections: {e}", held.len()));
}

/// An etcd on these ports, over the data in a folder.
fn etcd(dir: &TempDir, client: u16, peer: u16) -> Process {
    let at = |port: u16| format!("http://127.0.0.1:{port}");
    let process = Command::new("etcd")
        .arg("--data-dir")
        .arg(dir.path())
        .args(["--listen-client-urls", &at(client), "--advertise-client-urls", &at(client)])
        .args(["--listen-peer-urls", &at(peer), "--initial-advertise-peer-urls", &at(peer)])
        .args(["--initial-cluster", &format!("default={}", at(peer))])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd is installed (Debian: etcd-server)");
    Process(process)
}

#[test]
fn without_etcd_pods_reach_one_another_agents_say_so_and_all_goes_on_after() {
    let data = TempDir::new().unwrap();
    let (client, peer) = (free_port(), free_port());
    let store = etcd(&data, client, peer);
    let servers = format!("http://127.0.0.1:{client}");
    let server = Server::start(":", &["--etcd-servers", &servers, "--cluster-cidr", "10.244.0.0/16"]);
    let labs = Labs::new();
    let kubeconfig = server.kubeconfig();
    let given = ["--kubeconfig", kubeconfig.to_str().unwrap()];
    labs.expect(0, &[&["lab", "up", "--name", "e", "-f", &example("shop")], &given[..]].concat());
    let agent = || -> Value {
        let file = labs.state("e").join("node/node1/agent/status.json");
        serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap_or_default()
    };
    let pods = labs.pods("e");
    let on = |node: &str| pods.iter().find(|pod| pod["node"] == node).unwrap();
    let (from, to) = (on("node1"), on("node2"));
    let from = format!("{}/{}", from["namespace"].as_str().unwrap(), from["name"].as_str().unwrap());
    let to = to["ips"][0].as_str().unwrap();
    let reaches = || labs.expect(0, &["lab", "exec", "--name", "e", &from, "--", "ping", "-c1", "-W2", to]);
    reaches();

    drop(store);
    let refused = server.kubectl(&["create", "namespace", "lost"]).unwrap_err();
    assert!(refused.contains("ServiceUnavailable") && refused.contains("does not answer"), "{refused}");
    let told =
        || agent()["errors"].to_string().contains("does not answer") && !agent()["staleSince"].is_null();
    eventually(SOON, "the agent says that the API is away", told);
    assert_eq!(agent()["ready"], true);
    reaches();

    let _store = etcd(&data, client, peer);
    let scaled = || server.kubectl(&["-n", "shop", "scale", "deployment", "cart", "--replicas=5"]).is_ok();
    eventually(SOON, "the server writes again", scaled);
    let rolled = ["-n", "shop", "rollout", "status", "deployment", "cart", "--timeout=60s"];
    server.kubectl(&rolled).unwrap();
    eventually(SOON, "the agent is content", || agent()["staleSince"].is_null());
    let found = labs.json(&["lab", "check", "--name", "e", "-o", "json"]);
    assert_eq!(found["pairs"], found["matching"], "{found}");
}
