//! An etcd of a test's own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use weft_apiserver::EtcdConfig;

use super::pki::Pki;

/// A running etcd, or one member of several; killed when it is dropped, or with the test.
pub(crate) struct Etcd {
    dir: tempfile::TempDir,
    client: String,
    peer: String,
    /// Its name, and all members with their peers' URLs.
    name: String,
    members: String,
    pki: Option<Pki>,
    /// Bytes that it may hold; 0 is its own default.
    quota: u64,
    child: Option<Child>,
}

impl Etcd {
    pub(crate) fn start() -> Self {
        let mut etcd = Self::new("http", "default");
        etcd.resume();
        etcd
    }

    /// One that takes TLS only, and only clients with a certificate.
    pub(crate) fn start_with_tls() -> Self {
        let mut etcd = Self::new("https", "default");
        etcd.pki = Some(Pki::new(etcd.dir.path()));
        etcd.resume();
        etcd
    }

    /// One that holds only so much.
    pub(crate) fn start_with_quota(bytes: u64) -> Self {
        let mut etcd = Self::new("http", "default");
        etcd.quota = bytes;
        etcd.resume();
        etcd
    }

    /// Three members of one cluster.
    pub(crate) fn three() -> Vec<Self> {
        let mut all: Vec<Self> = ["a", "b", "c"].map(|name| Self::new("http", name)).into();
        let members: Vec<String> = all.iter().map(|etcd| etcd.members.clone()).collect();
        for etcd in &mut all {
            etcd.members = members.join(",");
            // The first answers when the second is there.
            etcd.child = Some(etcd.spawn());
        }
        all.iter_mut().for_each(Self::resume);
        all
    }

    fn new(scheme: &str, name: &str) -> Self {
        let free = |scheme: &str| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            format!("{scheme}://{}", listener.local_addr().unwrap())
        };
        let (client, peer) = (free(scheme), free("http"));
        let (name, members) = (name.to_owned(), format!("{name}={peer}"));
        Self {
            dir: tempfile::tempdir().unwrap(),
            client,
            peer,
            name,
            members,
            pki: None,
            quota: 0,
            child: None,
        }
    }

    /// Starts it, if it is not running, with what it had; returns when it answers.
    pub(crate) fn resume(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let mut child = self.child.take().unwrap_or_else(|| self.spawn());
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
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "etcd", "--name", &self.name, "--data-dir"])
            .arg(self.dir.path().join("data"))
            .args(["--listen-client-urls", &self.client, "--advertise-client-urls", &self.client])
            .args(["--listen-peer-urls", &self.peer, "--initial-advertise-peer-urls", &self.peer])
            .args(["--initial-cluster", &self.members, "--log-level", "error"])
            .args(["--quota-backend-bytes", &self.quota.to_string()]);
        if let Some(pki) = &self.pki {
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(&pki.ca);
            command.arg("--cert-file").arg(&pki.server.0).arg("--key-file").arg(&pki.server.1);
        }
        command
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
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.client]);
        if let Some(pki) = &self.pki {
            command.arg("--cacert").arg(&pki.ca).arg("--cert").arg(&pki.client.0);
            command.arg("--key").arg(&pki.client.1);
        }
        let output = command.args(arguments).output().expect("etcd-client is needed");
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Has it stand still, or go on: `STOP` or `CONT`.
    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
    }

    pub(crate) fn config(&self) -> EtcdConfig {
        let config = EtcdConfig::new(vec![self.client.clone()]);
        let Some(pki) = &self.pki else { return config };
        let file = |path: &PathBuf| Some(path.clone());
        let (ca_file, cert_file, key_file) = (file(&pki.ca), file(&pki.client.0), file(&pki.client.1));
        EtcdConfig { ca_file, cert_file, key_file, ..config }
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
