//! An etcd of a test's own.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use weft_apiserver::EtcdConfig;

/// A running etcd; killed when it is dropped, or with the test.
pub(crate) struct Etcd {
    dir: tempfile::TempDir,
    client: String,
    peer: String,
    child: Option<Child>,
}

impl Etcd {
    pub(crate) fn start() -> Self {
        let free = || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            format!("http://{}", listener.local_addr().unwrap())
        };
        let mut etcd = Self { dir: tempfile::tempdir().unwrap(), client: free(), peer: free(), child: None };
        etcd.resume();
        etcd
    }

    /// Starts it again with what it had.
    pub(crate) fn resume(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let mut child = self.spawn();
            if self.answers(&mut child, deadline) {
                self.child = Some(child);
                return;
            }
            // Somebody else took its port in between, or the last one still has it.
            let _ = child.kill();
            let _ = child.wait();
            assert!(Instant::now() < deadline, "etcd does not start");
        }
    }

    fn spawn(&self) -> Child {
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "etcd", "--data-dir"])
            .arg(self.dir.path().join("data"))
            .args(["--listen-client-urls", &self.client, "--advertise-client-urls", &self.client])
            .args(["--listen-peer-urls", &self.peer, "--initial-advertise-peer-urls", &self.peer])
            .args(["--initial-cluster", &format!("default={}", self.peer), "--log-level", "error"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd-server and util-linux are needed")
    }

    fn answers(&self, child: &mut Child, deadline: Instant) -> bool {
        while Instant::now() < deadline {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            if self.ctl(&["get", "x"]).is_some() {
                return true;
            }
        }
        false
    }

    /// Runs etcdctl; None when it fails.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> Option<String> {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.client])
            .args(arguments)
            .output()
            .expect("etcd-client is needed");
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn config(&self) -> EtcdConfig {
        EtcdConfig::new(vec![self.client.clone()])
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}
