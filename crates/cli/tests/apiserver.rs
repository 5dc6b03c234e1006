//! `weft apiserver` as an operator starts it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking and is one crate"
)]

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A server of the executable, ended when it is dropped.
struct Server {
    process: Child,
    dir: TempDir,
    port: u16,
}

impl Server {
    /// Starts it by a shell, after `before`.
    fn start(before: &str) -> Self {
        let dir = TempDir::new().unwrap();
        // The port is free once more when the listener is dropped; nobody else is given it so soon.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let line = format!("{before}; exec \"$0\" apiserver --data-dir \"$1\" --listen 127.0.0.1:{port}");
        let process = Command::new("sh")
            .args(["-c", &line, env!("CARGO_BIN_EXE_weft")])
            .arg(dir.path().join("data"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Server { process, dir, port };
        let end = Instant::now() + Duration::from_secs(60);
        while !server.kubectl(&["get", "--raw", "/readyz"]) {
            assert!(Instant::now() < end, "the server does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("data/admin.kubeconfig")
    }

    fn kubectl(&self, args: &[&str]) -> bool {
        let mut command = Command::new("/usr/bin/kubectl");
        command.arg("--kubeconfig").arg(self.kubeconfig());
        command.arg("--cache-dir").arg(self.dir.path().join("cache"));
        command.args(["--request-timeout", "10s"]).args(args).output().unwrap().status.success()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn more_connections_are_held_than_the_usual_limit_of_open_files() {
    let server = Server::start("ulimit -Sn 64");
    let held: Vec<TcpStream> =
        (0..200).map(|_| TcpStream::connect(("127.0.0.1", server.port)).unwrap()).collect();
    assert!(server.kubectl(&["get", "namespaces"]), "it answers beside {} connections", held.len());
}
