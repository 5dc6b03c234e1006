//! Tells the segment where the addresses of Services of type LoadBalancer are: of those that this node has by
//! the election of `weft_announce`, in a thread of its own, since what a beat says is believed for less than a
//! second.

mod answers;
mod conflicts;
mod hearing;
mod link;
mod sockets;
mod status;
mod worker;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use crate::views::Views;
use crate::{AgentConfig, ProxyMode};
pub use status::AnnounceStatus;

/// On which link addresses of Services are announced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AnnounceOn {
    /// On the link that has the node's address, where this agent serves Services.
    #[default]
    Auto,
    /// On the link of this name, which has an address of the node too.
    Link(String),
    /// On none: another program does.
    None,
}

impl AnnounceOn {
    /// Whether anything is announced by an agent that serves Services in this way.
    pub(crate) fn is_on(&self, mode: ProxyMode) -> bool {
        match self {
            AnnounceOn::Auto => mode != ProxyMode::None,
            AnnounceOn::Link(_) => true,
            AnnounceOn::None => false,
        }
    }
}

impl FromStr for AnnounceOn {
    type Err = String;

    fn from_str(text: &str) -> Result<AnnounceOn, String> {
        match text {
            "auto" => Ok(AnnounceOn::Auto),
            "none" => Ok(AnnounceOn::None),
            // IFNAMSIZ, and what the kernel takes for a name.
            name if (1..16).contains(&name.len()) && !name.contains(['/', ':', ' ']) => {
                Ok(AnnounceOn::Link(name.into()))
            }
            other => Err(format!("{other:?} is no link: use auto, a link's name, or none")),
        }
    }
}

impl fmt::Display for AnnounceOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AnnounceOn::Auto => "auto",
            AnnounceOn::Link(name) => name,
            AnnounceOn::None => "none",
        })
    }
}

/// Takes part in the calling thread's network namespace once `forwards` says that this node's kernel does,
/// until `ends`; then others are told that it restarts.
pub(crate) async fn keep(
    cfg: AgentConfig,
    views: Arc<Views>,
    forwards: watch::Receiver<bool>,
    ends: watch::Receiver<bool>,
) {
    if !cfg.announce.is_on(cfg.proxy.mode) {
        return;
    }
    let (teller, told) = watch::channel(AnnounceStatus::default());
    let file = cfg.state_dir.join("announce.json");
    let (done, ended) = oneshot::channel::<()>();
    let work = move || {
        let _done = done;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => runtime.block_on(worker::work(&cfg, &views, forwards, ends, &teller)),
            Err(error) => tracing::error!("no address is announced: {error}"),
        }
    };
    if let Err(error) = std::thread::Builder::new().name("announce".into()).spawn(work) {
        tracing::error!("no address is announced, the thread cannot be started: {error}");
        return;
    }
    tokio::select! {
        () = status::keep(file, told) => {}
        // The thread ends when it has said its last words.
        _ = ended => {}
    }
}
