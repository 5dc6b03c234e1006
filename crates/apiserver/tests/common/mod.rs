//! A server for tests: in this process, on a free port of 127.0.0.1, its data in a directory that goes away.
#![allow(dead_code, unreachable_pub, reason = "a module of several test files, each using a part")]

pub mod raw;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;
use tokio::sync::oneshot;
use weft_apiserver::{Limits, Registry, Server, ServerConfig};

/// A running server; ends when it is dropped.
pub struct Running {
    pub dir: TempDir,
    pub address: SocketAddr,
    pub token: String,
    pub registry: Registry,
    end: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// The configuration of a test's server, without controllers.
pub fn config(dir: PathBuf) -> ServerConfig {
    ServerConfig {
        data_dir: dir,
        etcd: None,
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        tls_sans: Vec::new(),
        advertise_url: None,
        cluster_cidrs: Vec::new(),
        service_cidrs: Vec::new(),
        node_cidr_mask_size: None,
        controllers: false,
        token_auth_file: None,
        tls_cert_file: None,
        tls_private_key_file: None,
        client_ca_file: None,
        audit: None,
        limits: Limits::default(),
        flannel_etcd_prefix: None,
    }
}

impl Running {
    pub fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// Services and nodes have addresses of both families.
    pub fn start_dual_stack() -> Self {
        let cidrs = ["10.244.0.0/16", "fd00:10:244::/56"].map(|cidr| cidr.parse().unwrap());
        Self::start_with(|config| config.cluster_cidrs = cidrs.to_vec())
    }

    /// A server of another configuration; its data is in `data` of the directory.
    pub fn start_with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path().join("data"));
        change(&mut config);
        let (ready, started) = std::sync::mpsc::channel();
        let (end, ended) = oneshot::channel();
        // A stack as the main thread has, on which the server runs.
        let builder = std::thread::Builder::new().stack_size(8 << 20);
        let thread = builder.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let server = Server::prepare(config, Vec::new()).await.unwrap();
                ready.send((server.addresses()[0], server.registry())).unwrap();
                server.serve(async { drop(ended.await) }).await.unwrap();
            });
        });
        let thread = thread.unwrap();
        let (address, registry) = started.recv().unwrap();
        let token = std::fs::read_to_string(dir.path().join("data/admin.token")).unwrap();
        Self { dir, address, token, registry, end: Some(end), thread: Some(thread) }
    }

    /// How the judge's client reaches it.
    pub fn target(&self) -> weft_judge::Target {
        let ca_pem = std::fs::read_to_string(self.dir.path().join("data/ca.crt")).unwrap();
        weft_judge::Target { address: self.address, ca_pem, token: self.token.clone() }
    }

    /// A kubectl command with this server's kubeconfig and a cache of its own.
    pub fn kubectl(&self, args: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/kubectl");
        command
            .env("KUBECONFIG", self.dir.path().join("data/admin.kubeconfig"))
            .env("HOME", self.dir.path())
            .arg("--cache-dir")
            .arg(self.dir.path().join("cache"))
            .args(args);
        command
    }

    /// Runs kubectl with an input and returns what it printed; panics when it fails.
    pub fn run(&self, args: &[&str], input: &str) -> String {
        let output = self.output(args, input);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "kubectl {args:?} failed: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    /// Runs kubectl with an input.
    pub fn output(&self, args: &[&str], input: &str) -> Output {
        use std::io::Write;
        let mut child = self
            .kubectl(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl is at /usr/bin/kubectl (Debian: kubernetes-client)");
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.end.take());
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}
