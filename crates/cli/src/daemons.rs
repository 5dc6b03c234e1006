//! The commands that run until they are told to end.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;
use weft_agent::AgentConfig;
use weft_apiserver::{AuditConfig, EtcdConfig, Identity, Limits, ServerConfig};

use crate::apiserver_args::{ApiserverArgs, ApiserverCommand, KubeconfigArgs, ServeArgs};
use crate::args::AgentArgs;
use crate::controller_args::ControllerArgs;
use crate::{exit, objects};

/// Names the filter of what is logged, as `RUST_LOG` elsewhere.
const LOG: &str = "WEFT_LOG";

pub(crate) fn agent(options: AgentArgs) -> anyhow::Result<u8> {
    log();
    let config = AgentConfig {
        node_name: options.node_name,
        kubeconfig: options.kubeconfig.unwrap_or_default(),
        backend: options.backend,
        ipam: options.ipam,
        cluster_cidrs: options.cluster_cidr,
        cni_conf_dir: options.cni_conf_dir,
        cni_data_dir: options.cni_data_dir,
        cri_sockets: options.cri_socket,
        podman_socket: options.podman_socket,
        subnet_file: options.subnet_file,
        state_dir: options.state_dir,
        announce: options.proxy.announce.clone(),
        proxy: options.proxy.config()?,
    };
    runtime()?.block_on(weft_agent::run(config))?;
    Ok(exit::DONE)
}

pub(crate) fn apiserver(options: ApiserverArgs) -> anyhow::Result<u8> {
    match options.command {
        Some(ApiserverCommand::Kubeconfig(options)) => kubeconfig(options),
        Some(ApiserverCommand::Objects(command)) => objects::run(command),
        None => serve(options.serve),
    }
}

fn kubeconfig(options: KubeconfigArgs) -> anyhow::Result<u8> {
    let identity = Identity { user: options.user, groups: options.group, days: Some(options.days) };
    let text = weft_apiserver::kubeconfig(&options.data_dir, &identity, options.server.as_deref())?;
    match options.out {
        Some(path) => weft_apiserver::write_private(&path, text.as_bytes())?,
        None => print!("{text}"),
    }
    Ok(exit::DONE)
}

fn serve(options: ServeArgs) -> anyhow::Result<u8> {
    log();
    let data_dir = options.data_dir.context("--data-dir is missing")?;
    let audit = AuditConfig {
        path: options.audit_log_path.unwrap_or_else(|| data_dir.join("audit.log")),
        max_size: options.audit_log_maxsize << 20,
        max_backups: options.audit_log_maxbackup,
    };
    let limits = Limits {
        requests: options.max_requests_inflight,
        mutating_requests: options.max_mutating_requests_inflight,
        ..Limits::default()
    };
    let compaction_interval = Duration::from_secs(options.etcd_compaction_interval);
    let etcd = options.etcd.config().map(|etcd| EtcdConfig { compaction_interval, ..etcd });
    let config = ServerConfig {
        etcd,
        data_dir,
        listen: options.listen,
        tls_sans: options.tls_san,
        advertise_url: options.advertise_url,
        cluster_cidrs: options.cluster_cidr,
        service_cidrs: options.service_cluster_ip_range,
        node_cidr_mask_size: options.node_cidr_mask_size,
        controllers: options.controllers,
        token_auth_file: options.token_auth_file,
        tls_cert_file: options.tls_cert_file,
        tls_private_key_file: options.tls_private_key_file,
        client_ca_file: options.client_ca_file,
        audit: Some(audit),
        limits,
        flannel_etcd_prefix: options.flannel_etcd_prefix,
    };
    runtime()?.block_on(weft_apiserver::run(config))?;
    Ok(exit::DONE)
}

pub(crate) fn controller(options: ControllerArgs) -> anyhow::Result<u8> {
    log();
    runtime()?.block_on(weft_controller::run(options.config()))?;
    Ok(exit::DONE)
}

pub(crate) fn lab_daemon(state: &Path) -> anyhow::Result<u8> {
    log();
    weft_lab::daemon::main(state)?;
    Ok(exit::DONE)
}

/// A runtime on the calling thread alone, so that its sockets are in this thread's namespace.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the event loop")
}

pub(crate) fn log() {
    let filter = EnvFilter::try_from_env(LOG).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
