//! This node's Services: plans them and keeps the kernel as planned, in a thread of its own, since what
//! a mode does may take long (iptables waits for its lock) and pods' networks do not wait for that.

mod health;
mod mode;
mod rival;
mod status;
mod worker;

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::sync::watch;

use crate::AgentConfig;
use crate::views::Views;
pub use mode::{ProxyConfig, ProxyMode};
pub use status::ProxyStatus;

/// Starts to serve Services in the calling thread's network namespace, and to tell how that goes.
/// Must be called within a Tokio runtime, which answers health checks.
pub(crate) fn start(cfg: &AgentConfig, views: Arc<Views>) -> Result<()> {
    let (teller, told) = watch::channel(ProxyStatus::new(cfg.proxy.mode));
    tokio::spawn(status::keep(cfg.state_dir.join("services.json"), told.clone()));
    tokio::spawn(health::keep(cfg.proxy.healthz, told));
    let cfg = cfg.clone();
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => runtime.block_on(worker::work(&cfg, &views, &teller)),
            Err(error) => tracing::error!("Services are not served: {error}"),
        }
    };
    std::thread::Builder::new()
        .name("services".into())
        .spawn(work)
        .context("start the thread of Services")?;
    Ok(())
}
