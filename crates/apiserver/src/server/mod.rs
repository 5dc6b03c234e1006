//! The server's life: open the data, listen, answer, end in order.

mod authority;
mod credentials;
mod identity;
mod listen;
mod paced;
mod presence;
mod ranges;
mod tls;
mod unread;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::auth::{Audit, AuditConfig, Auth, AuthError};
use crate::controllers::{self, ControllersConfig, FlannelEtcd};
use crate::http::{App, InFlight, Limits};
use crate::own;
use crate::registry::{Registry, RegistryConfig};
use crate::storage::{EtcdConfig, StorageError};
pub use credentials::write_private;
pub use identity::{Identity, kubeconfig};
use presence::Presence;
use tls::Tls;

/// Time that open requests have to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// What `weft apiserver` is told.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where the objects, the certificates and the kubeconfig are; made if it is not there.
    pub data_dir: PathBuf,
    /// Addresses to listen on; port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// The etcd that holds the objects; a file of the data directory does if there is none.
    pub etcd: Option<EtcdConfig>,
    /// Names and addresses for the certificate, beside the listen addresses, 127.0.0.1, ::1 and localhost.
    pub tls_sans: Vec<String>,
    /// The URL in the kubeconfig; the first listen address if there is none.
    pub advertise_url: Option<String>,
    /// Where nodes get their pod CIDRs from.
    pub cluster_cidrs: Vec<IpNet>,
    /// Where cluster IPs come from, at most one range a family; of the families that pods have if there is none.
    pub service_cidrs: Vec<IpNet>,
    /// Prefix length of a node's pod CIDR; None is 24 for IPv4 and 64 for IPv6.
    pub node_cidr_mask_size: Option<u8>,
    /// Whether to run the controllers too.
    pub controllers: bool,
    /// Bearer tokens of further users: lines of `token,user,uid[,"group1,group2"]`.
    pub token_auth_file: Option<PathBuf>,
    /// The certificate chain to show instead of one that the data directory's authority signs; with its key.
    pub tls_cert_file: Option<PathBuf>,
    /// The key of `tls_cert_file`.
    pub tls_private_key_file: Option<PathBuf>,
    /// Certificates of authorities whose clients are trusted too.
    pub client_ca_file: Option<PathBuf>,
    /// Where writes are told of; None is `audit.log` in the data directory.
    pub audit: Option<AuditConfig>,
    /// Bounds on what clients may ask for.
    pub limits: Limits,
    /// What flannel's keys in the same etcd start with, if its subnets are to be kept beside it.
    pub flannel_etcd_prefix: Option<String>,
}

/// The server could not run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A file or a directory cannot be used.
    #[error("could not {op} {path}: {source}")]
    File {
        /// What was attempted.
        op: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The objects cannot be opened.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The ranges of cluster IPs cannot be.
    #[error("{0}")]
    ServiceRange(String),
    /// An address cannot be listened on.
    #[error("could not listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// Nothing to listen on.
    #[error("no address to listen on: give --listen ADDRESS:PORT or start it by a systemd socket")]
    NoAddress,
    /// The certificates cannot be made or read.
    #[error("the certificates in {path} cannot be made or read: {cause}; remove them to get new ones")]
    Certificate {
        /// The data directory.
        path: PathBuf,
        /// Why not.
        cause: String,
    },
    /// The users or their rights cannot be known.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The definitions of our own kinds cannot be made.
    #[error("could not define the kinds of weft.dev: {0}")]
    Definitions(String),
    /// The controllers cannot be started.
    #[error("could not start the controllers: {0}")]
    Controllers(io::Error),
    /// A signal handler or a runtime facility is missing.
    #[error("could not wait for signals: {0}")]
    Signals(io::Error),
}

/// A server that listens, so that a caller knows its address before it answers.
pub struct Server {
    registry: Registry,
    config: ServerConfig,
    listeners: Vec<TcpListener>,
    tls: Arc<Tls>,
    auth: Arc<Auth>,
    audit: Audit,
    root_ca: String,
}

impl Server {
    /// Opens the data directory, writes `ca.crt` and `admin.kubeconfig` into it, and listens on
    /// the configured addresses and on `sockets`.
    pub async fn prepare(config: ServerConfig, sockets: Vec<TcpListener>) -> Result<Self, ServerError> {
        let service_cidrs = ranges::choose(&config.service_cidrs, &config.cluster_cidrs);
        let service_cidrs = service_cidrs.map_err(ServerError::ServiceRange)?;
        make_private_dir(&config.data_dir)?;
        let mut listeners = Vec::new();
        for address in &config.listen {
            let failed = |source| ServerError::Listen { address: address.to_string(), source };
            listeners.push(TcpListener::bind(address).map_err(failed)?);
        }
        listeners.extend(sockets);
        let addresses: Vec<SocketAddr> = listeners.iter().filter_map(|l| l.local_addr().ok()).collect();
        let first = *addresses.first().ok_or(ServerError::NoAddress)?;
        let registry = match &config.etcd {
            Some(etcd) => Registry::open_etcd(etcd, RegistryConfig { service_cidrs }).await?,
            None => Registry::open(&config.data_dir, RegistryConfig { service_cidrs }).await?,
        };
        own::ensure(&registry).await.map_err(|error| ServerError::Definitions(error.message))?;
        let tls = Tls::open(&config, &registry.context.service_cidrs, &addresses)?;
        let token = credentials::token(&config.data_dir)?;
        let url = config.advertise_url.clone().unwrap_or_else(|| credentials::url(first));
        credentials::write_kubeconfig(&config.data_dir, &url, &tls.trust_pem(), &token)?;
        let auth =
            Auth::open(registry.clone(), &config.data_dir, token, config.token_auth_file.as_deref()).await?;
        for address in &addresses {
            tracing::info!(%address, data_dir = %config.data_dir.display(), "listening");
        }
        let root_ca = tls.trust_pem();
        let audit = open_audit(&config)?;
        Ok(Self { registry, config, listeners, tls: Arc::new(tls), auth: Arc::new(auth), audit, root_ca })
    }

    /// The addresses it listens on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|l| l.local_addr().ok()).collect()
    }

    /// The objects, for what runs in the same process.
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    fn controllers_config(&self) -> ControllersConfig {
        let config = &self.config;
        let listen = self.addresses();
        let advertised = advertised(config.advertise_url.as_deref(), &listen);
        let service_cidrs = self.registry.context.service_cidrs.clone();
        ControllersConfig {
            root_ca: Some(self.root_ca.clone()),
            api_service_ip: ranges::api_service_ip(&service_cidrs, &advertised),
            advertised,
            service_cidrs,
            exclusive: config.etcd.is_none(),
            flannel: config.etcd.clone().zip(config.flannel_etcd_prefix.clone()).map(flannel),
            ..ControllersConfig::new(config.cluster_cidrs.clone(), config.node_cidr_mask_size)
        }
    }

    /// Answers until `end` is done, then lets open requests end.
    pub async fn serve(self, end: impl Future<Output = ()>) -> Result<(), ServerError> {
        let (ending, watched) = watch::channel(false);
        let config = self.controllers_config();
        // With a store of its own, a server knows that there is no other.
        let alone = self.config.etcd.is_none() || config.advertised.is_empty();
        let presence = (!alone).then(|| Presence::new(self.registry.clone(), &config.advertised));
        let controllers = self.config.controllers.then(|| controllers::spawn(self.registry.clone(), config));
        let controllers = controllers.transpose().map_err(ServerError::Controllers)?;
        let mut followers = tokio::task::JoinSet::new();
        self.auth.follow(&mut followers);
        if let Some(presence) = presence.clone() {
            followers.spawn(presence.run());
        }
        followers.spawn(refresh(self.tls.clone(), self.auth.clone()));
        followers.spawn(ranges::report(self.registry.clone()));
        let app = Arc::new(App {
            objects: self.registry,
            auth: self.auth,
            audit: self.audit,
            in_flight: InFlight::new(self.config.limits.clone()),
            ending: watched,
        });
        let mut tasks = tokio::task::JoinSet::new();
        for listener in self.listeners {
            let address = listener.local_addr().map(|a| a.to_string()).unwrap_or_default();
            let failed = |source| ServerError::Listen { address: address.clone(), source };
            listener.set_nonblocking(true).map_err(failed)?;
            let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
            tasks.spawn(listen::accept(listener, self.tls.clone(), app.clone()));
        }
        end.await;
        tracing::info!("ending");
        if let Some(controllers) = controllers {
            let stopped = tokio::time::timeout(GRACE, controllers.stop()).await;
            stopped.unwrap_or_else(|_| tracing::warn!("the controllers' Lease is not released"));
        }
        followers.shutdown().await;
        if let Some(presence) = presence {
            let told = tokio::time::timeout(GRACE, presence.end()).await;
            told.unwrap_or_else(|_| tracing::warn!("the others are not told that this server ends"));
        }
        ending.send_replace(true);
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, all).await.is_err() {
            tracing::warn!("some requests were cut off");
        }
        Ok(())
    }
}

fn flannel((etcd, prefix): (EtcdConfig, String)) -> FlannelEtcd {
    FlannelEtcd { etcd, prefix }
}

/// Where pods reach the server: the address in the URL that it advertises, or those it listens on. Not one
/// that leads nowhere but to the same machine.
fn advertised(url: Option<&str>, listen: &[SocketAddr]) -> Vec<SocketAddr> {
    let authority = url.and_then(|url| url.strip_prefix("https://"));
    let named: Option<SocketAddr> = authority.and_then(|rest| {
        let authority = rest.split('/').next().unwrap_or_default();
        let ip = authority.trim_start_matches('[').trim_end_matches(']').parse();
        authority.parse().ok().or_else(|| Some(SocketAddr::new(ip.ok()?, 443)))
    });
    let all = named.map_or_else(|| listen.to_vec(), |named| vec![named]);
    all.into_iter().filter(|a| !a.ip().is_loopback() && !a.ip().is_unspecified()).collect()
}

fn open_audit(config: &ServerConfig) -> Result<Audit, ServerError> {
    let path = || config.data_dir.join("audit.log");
    let usual = || AuditConfig { path: path(), max_size: 100 << 20, max_backups: 3 };
    let audit = config.audit.clone().unwrap_or_else(usual);
    let path = audit.path.clone();
    Audit::open(audit).map_err(|source| ServerError::File { op: "open the audit log", path, source })
}

/// Looks now and then at the files that decide who is trusted.
async fn refresh(tls: Arc<Tls>, auth: Arc<Auth>) {
    loop {
        tokio::time::sleep(tls::LOOK).await;
        tls.refresh();
        auth.refresh();
    }
}

/// Runs the server until SIGTERM or SIGINT.
pub async fn run(config: ServerConfig) -> Result<(), ServerError> {
    let mut term = signal(SignalKind::terminate()).map_err(ServerError::Signals)?;
    let mut int = signal(SignalKind::interrupt()).map_err(ServerError::Signals)?;
    listen::raise_descriptor_limit();
    let server = Server::prepare(config, passed_sockets()).await?;
    server
        .serve(async move {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        })
        .await
}

/// The sockets that systemd, or the lab, opened for this process.
fn passed_sockets() -> Vec<TcpListener> {
    let sockets = weft_kernel::descriptors::passed().into_iter().map(TcpListener::from);
    sockets.filter(|s| s.local_addr().is_ok()).collect()
}

/// Makes the data directory, open to its owner only: it holds Secrets and keys.
fn make_private_dir(dir: &Path) -> Result<(), ServerError> {
    use std::os::unix::fs::DirBuilderExt;
    let failed = |source| ServerError::File { op: "make the data directory", path: dir.to_owned(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)
}
