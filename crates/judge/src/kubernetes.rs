//! kube-apiserver over etcd, with its controllers and scheduler where wanted.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::certificates;
use crate::client::{Client, Request, Target};
use crate::process::Process;

/// Where `scripts/kubernetes.sh` has put the executables.
const BINARIES: &str = "WEFT_KUBERNETES";
/// A cold start on a busy machine of two processors takes half a minute.
const PATIENCE: Duration = Duration::from_secs(180);
const TOKEN: &str = "judge-administrator";
/// Names and addresses under which the server is reached.
const NAMES: [&str; 2] = ["127.0.0.1", "localhost"];

/// What runs beside kube-apiserver and etcd.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Parts {
    /// kube-controller-manager, with every controller that this names; none if empty.
    pub controllers: &'static [&'static str],
    /// kube-scheduler.
    pub scheduler: bool,
    /// Whether pods need a ServiceAccount, which the controllers make.
    pub service_accounts: bool,
}

impl Parts {
    /// All that a cluster has but its nodes.
    pub const WHOLE: Self = Self { controllers: &["*"], scheduler: true, service_accounts: true };
}

/// How often it is tried to start it.
const STARTS: usize = 3;

/// A running Kubernetes; ends when it is dropped.
#[derive(Debug)]
pub struct Kubernetes {
    processes: Vec<(&'static str, Process)>,
    dir: TempDir,
    target: Target,
}

impl Kubernetes {
    /// The folder with the executables, if the environment names one.
    pub fn binaries() -> Option<PathBuf> {
        std::env::var_os(BINARIES).map(PathBuf::from)
    }

    /// Starts it and waits until it is ready. To be called on a thread that lives as long as it shall run.
    pub async fn start(binaries: &Path, parts: Parts) -> anyhow::Result<Self> {
        // A port that was free may be taken before it is listened at.
        for _ in 1..STARTS {
            if let Ok(running) = Self::start_once(binaries, parts).await {
                return Ok(running);
            }
        }
        Self::start_once(binaries, parts).await
    }

    async fn start_once(binaries: &Path, parts: Parts) -> anyhow::Result<Self> {
        let dir = TempDir::new()?;
        let ca_pem = certificates::write(dir.path(), &NAMES)?;
        let [clients, peers, port] = free_ports()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let target = Target { address, ca_pem, token: TOKEN.to_owned() };
        let mut running = Self { processes: Vec::new(), dir, target };
        running.write_credentials()?;
        let etcd = running.etcd_arguments(clients, peers);
        running.spawn("etcd", &PathBuf::from("etcd"), &etcd)?;
        let apiserver = running.apiserver_arguments(clients, port, parts);
        running.spawn("kube-apiserver", &binaries.join("kube-apiserver"), &apiserver)?;
        running.wait_ready().await?;
        if !parts.controllers.is_empty() {
            let arguments = running.controller_arguments(parts);
            running.spawn(
                "kube-controller-manager",
                &binaries.join("kube-controller-manager"),
                &arguments,
            )?;
        }
        if parts.scheduler {
            let arguments = [format!("--kubeconfig={}", running.kubeconfig().display()), secure(0)];
            let arguments = [&arguments[..], &[unelected()]].concat();
            running.spawn("kube-scheduler", &binaries.join("kube-scheduler"), &arguments)?;
        }
        Ok(running)
    }

    /// How to reach it as its administrator.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("admin.kubeconfig")
    }

    /// The process IDs, by the names of the programs.
    pub fn processes(&self) -> impl Iterator<Item = (&'static str, u32)> {
        self.processes.iter().map(|(name, process)| (*name, process.id()))
    }

    fn spawn(&mut self, name: &'static str, program: &Path, arguments: &[String]) -> anyhow::Result<()> {
        let log = self.dir.path().join(format!("{name}.log"));
        self.processes.push((name, Process::start(program, arguments, &log)?));
        Ok(())
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn write_credentials(&self) -> anyhow::Result<()> {
        std::fs::write(self.path("tokens.csv"), format!("{TOKEN},admin,admin,system:masters\n"))?;
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "judge",
            "clusters": [{"name": "judge", "cluster": {
                "server": format!("https://{}", self.target.address), "certificate-authority": self.path("ca.crt")}}],
            "users": [{"name": "admin", "user": {"token": TOKEN}}],
            "contexts": [{"name": "judge", "context": {"cluster": "judge", "user": "admin"}}],
        });
        std::fs::write(self.kubeconfig(), config.to_string()).context("cannot write the kubeconfig")
    }

    fn etcd_arguments(&self, clients: u16, peers: u16) -> Vec<String> {
        vec![
            format!("--data-dir={}", self.path("etcd")),
            format!("--listen-client-urls=http://127.0.0.1:{clients}"),
            format!("--advertise-client-urls=http://127.0.0.1:{clients}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peers}"),
            format!("--initial-advertise-peer-urls=http://127.0.0.1:{peers}"),
            format!("--initial-cluster=default=http://127.0.0.1:{peers}"),
            "--quota-backend-bytes=8589934592".into(),
        ]
    }

    fn apiserver_arguments(&self, etcd: u16, port: u16, parts: Parts) -> Vec<String> {
        let mut arguments = vec![
            format!("--etcd-servers=http://127.0.0.1:{etcd}"),
            "--bind-address=127.0.0.1".into(),
            secure(port),
            format!("--tls-cert-file={}", self.path("server.crt")),
            format!("--tls-private-key-file={}", self.path("server.key")),
            format!("--token-auth-file={}", self.path("tokens.csv")),
            "--authorization-mode=RBAC".into(),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
            format!("--service-account-key-file={}", self.path("accounts.pub")),
            format!("--service-account-signing-key-file={}", self.path("accounts.key")),
            "--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112".into(),
            "--endpoint-reconciler-type=none".into(),
            "--allow-privileged=true".into(),
        ];
        if !parts.service_accounts {
            arguments.push("--disable-admission-plugins=ServiceAccount".into());
        }
        arguments
    }

    fn controller_arguments(&self, parts: Parts) -> Vec<String> {
        vec![
            format!("--kubeconfig={}", self.kubeconfig().display()),
            format!("--controllers={}", parts.controllers.join(",")),
            format!("--service-account-private-key-file={}", self.path("accounts.key")),
            format!("--root-ca-file={}", self.path("ca.crt")),
            "--use-service-account-credentials=false".into(),
            "--allocate-node-cidrs=true".into(),
            "--cluster-cidr=10.244.0.0/16".into(),
            secure(0),
            unelected(),
        ]
    }

    async fn wait_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for (_, process) in &mut self.processes {
                process.check()?;
            }
            if ready(&self.target).await {
                return Ok(());
            }
            anyhow::ensure!(Instant::now() < deadline, "kube-apiserver is not ready after {PATIENCE:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn ready(target: &Target) -> bool {
    let Ok(mut client) = Client::connect(target).await else { return false };
    client.send(&Request::new("GET", "/readyz")).await.is_ok_and(|answer| answer.code == 200)
}

fn secure(port: u16) -> String {
    format!("--secure-port={port}")
}

/// One process of a kind needs no election, and starts at once without it.
fn unelected() -> String {
    "--leader-elect=false".into()
}

/// Ports of 127.0.0.1 that nothing listens on now.
fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on 127.0.0.1")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}
