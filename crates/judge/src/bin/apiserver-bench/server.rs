//! The servers that are measured.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use weft_judge::{Client, Kubernetes, Parts, Process, Request, Target};

const PATIENCE: Duration = Duration::from_secs(60);

/// Which server.
pub(crate) enum Kind {
    /// Weft's, by its executable.
    Weft(PathBuf),
    /// kube-apiserver and etcd, by the folder of the executables.
    Kubernetes(PathBuf),
}

/// A running server.
pub(crate) struct Server {
    target: Target,
    processes: Vec<u32>,
    _running: Running,
}

enum Running {
    Weft(
        #[expect(dead_code, reason = "held, not read")] Process,
        #[expect(dead_code, reason = "held")] TempDir,
    ),
    Kubernetes(#[expect(dead_code, reason = "held, not read")] Box<Kubernetes>),
}

impl Kind {
    /// The real one, where it was built.
    pub(crate) fn kubernetes() -> Option<Self> {
        Kubernetes::binaries().map(Self::Kubernetes)
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Weft(_) => "weft apiserver",
            Self::Kubernetes(_) => "kube-apiserver + etcd",
        }
    }

    /// Starts it with no data, without controllers, and waits until it answers.
    pub(crate) async fn start(&self) -> anyhow::Result<Server> {
        match self {
            Self::Weft(weft) => start_weft(weft).await,
            Self::Kubernetes(binaries) => {
                let running = Kubernetes::start(binaries, Parts::default()).await?;
                let processes = running.processes().map(|(_, id)| id).collect();
                let target = running.target().clone();
                Ok(Server { target, processes, _running: Running::Kubernetes(Box::new(running)) })
            }
        }
    }
}

async fn start_weft(weft: &std::path::Path) -> anyhow::Result<Server> {
    let dir = TempDir::new()?;
    let data = dir.path().join("data");
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let arguments = [
        "apiserver".to_owned(),
        format!("--data-dir={}", data.display()),
        format!("--listen={address}"),
        "--controllers=false".to_owned(),
    ];
    let mut process = Process::start(weft, &arguments, &dir.path().join("log"))?;
    let deadline = Instant::now() + PATIENCE;
    let target = loop {
        process.check()?;
        if let Ok(target) = weft_target(&data, address)
            && answers(&target).await
        {
            break target;
        }
        anyhow::ensure!(Instant::now() < deadline, "weft apiserver does not answer");
        sleep(Duration::from_millis(1)).await;
    };
    Ok(Server { target, processes: vec![process.id()], _running: Running::Weft(process, dir) })
}

fn weft_target(data: &std::path::Path, address: SocketAddr) -> anyhow::Result<Target> {
    let ca_pem = std::fs::read_to_string(data.join("ca.crt"))?;
    let token = std::fs::read_to_string(data.join("admin.token"))?;
    Ok(Target { address, ca_pem, token })
}

async fn answers(target: &Target) -> bool {
    let Ok(mut client) = Client::connect(target).await else { return false };
    client.send(&Request::new("GET", "/readyz")).await.is_ok_and(|answer| answer.code == 200)
}

impl Server {
    /// A new connection.
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        Client::connect(&self.target).await
    }

    /// Resident memory of its processes, MiB.
    pub(crate) fn memory(&self) -> anyhow::Result<f64> {
        self.processes.iter().map(|id| resident(*id)).sum()
    }
}

fn resident(id: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}
