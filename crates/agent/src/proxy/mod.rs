//! This node's Services: plans them and keeps the kernel as planned, in a thread of its own, since what
//! a mode does may take long (iptables waits for its lock) and pods' networks do not wait for that.

mod health;
mod hold;
mod mode;
mod status;
mod worker;

use std::sync::Arc;

use tokio::sync::watch;

use crate::AgentConfig;
use crate::views::Views;
pub use mode::{ProxyConfig, ProxyMode};
pub use status::ProxyStatus;

/// Serves Services in the calling thread's network namespace, for good, and answers health checks.
/// `forwards` is told when the kernel is as planned for the first time.
pub(crate) async fn keep(cfg: AgentConfig, views: Arc<Views>, forwards: watch::Sender<bool>) {
    if cfg.proxy.mode == ProxyMode::None {
        // Another program sees to it.
        forwards.send_replace(true);
        return;
    }
    let (teller, told) = watch::channel(ProxyStatus::new(cfg.proxy.mode));
    let file = cfg.state_dir.join("services.json");
    let healthz = cfg.proxy.healthz;
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => runtime.block_on(worker::work(&cfg, &views, &teller)),
            Err(error) => tracing::error!("Services are not served: {error}"),
        }
    };
    // It ends with the process: what it programmed stays.
    if let Err(error) = std::thread::Builder::new().name("services".into()).spawn(work) {
        tracing::error!("Services are not served, their thread cannot be started: {error}");
    }
    let mut first = told.clone();
    let programmed = async {
        if first.wait_for(|status| status.last_sync.is_some()).await.is_ok() {
            forwards.send_replace(true);
        }
    };
    tokio::join!(programmed, status::keep(file, told.clone()), health::keep(healthz, told));
}
