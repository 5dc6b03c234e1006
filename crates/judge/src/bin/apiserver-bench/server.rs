//! The servers that are measured.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
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
    running: Running,
}

enum Running {
    Weft { process: Process, dir: TempDir },
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
            Self::Weft(weft) => start_weft(weft, TempDir::new()?, &["--controllers=false"]).await,
            Self::Kubernetes(binaries) => {
                let running = Kubernetes::start(binaries, Parts::default()).await?;
                let processes = running.processes().map(|(_, id)| id).collect();
                let target = running.target().clone();
                Ok(Server { target, processes, running: Running::Kubernetes(Box::new(running)) })
            }
        }
    }
}

async fn start_weft(weft: &Path, dir: TempDir, options: &[&str]) -> anyhow::Result<Server> {
    let data = dir.path().join("data");
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let mut arguments =
        vec!["apiserver".to_owned(), format!("--data-dir={}", data.display()), format!("--listen={address}")];
    arguments.extend(options.iter().map(|option| (*option).to_owned()));
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
    Ok(Server { target, processes: vec![process.id()], running: Running::Weft { process, dir } })
}

fn weft_target(data: &Path, address: SocketAddr) -> anyhow::Result<Target> {
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

    /// Ends it, and starts it with its data and these options.
    pub(crate) async fn restart(self, kind: &Kind, options: &[&str]) -> anyhow::Result<Server> {
        match (kind, self.running) {
            (Kind::Weft(weft), Running::Weft { process, dir }) => {
                process.end()?;
                start_weft(weft, dir, options).await
            }
            _ => anyhow::bail!("only weft apiserver is started again"),
        }
    }

    /// Resident memory of its processes, MiB.
    pub(crate) fn memory(&self) -> anyhow::Result<f64> {
        self.processes.iter().map(|id| resident(*id, "VmRSS:")).sum()
    }

    /// The most that it ever was.
    pub(crate) fn most_memory(&self) -> anyhow::Result<f64> {
        self.processes.iter().map(|id| resident(*id, "VmHWM:")).sum()
    }
}

fn resident(id: u32, field: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let line = line.with_context(|| format!("no {field} in the status of process {id}"))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}
