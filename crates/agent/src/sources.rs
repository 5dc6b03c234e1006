//! Where the agent hears that something changed: the kernel and the runtime's folder.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};
use weft_kernel::nft::{NftEvent, NftMonitor};
use weft_kernel::{Event, Monitor};

use crate::Agent;

/// Others may change nftables all the time, as the thread of Services does in a busy cluster.
const REST: Duration = Duration::from_millis(50);

/// The three descriptors and what is read from them.
pub(crate) struct Sources {
    kernel: (Monitor, AsyncFd<OwnedFd>),
    /// None where the kernel has no nf_tables.
    nft: Option<(NftMonitor, AsyncFd<OwnedFd>)>,
    /// Before this nobody is woken for nftables again.
    rest: Instant,
    /// None where the system has no inotify instance left: then the folder is polled.
    folder: Option<(Folder, AsyncFd<OwnedFd>)>,
}

impl Sources {
    /// Listens in the calling thread's network namespace and on `conf_dir`, which is made if it
    /// is missing.
    pub(crate) fn open(conf_dir: &Path) -> Result<Sources> {
        let kernel = Monitor::open().context("listen to the kernel")?;
        let nft = match NftMonitor::open() {
            Ok(nft) => {
                let wait = waitable(&nft)?;
                Some((nft, wait))
            }
            Err(error) => {
                tracing::warn!("nftables cannot be listened to: {error}");
                None
            }
        };
        let folder = match Folder::open(conf_dir) {
            Ok(folder) => {
                let wait = waitable(&folder.inotify)?;
                Some((folder, wait))
            }
            Err(error) => {
                tracing::warn!("{error:#}: looking there twice a second instead");
                None
            }
        };
        let wait = waitable(&kernel)?;
        Ok(Sources { kernel: (kernel, wait), nft, rest: Instant::now(), folder })
    }

    /// Waits until something can be taken in. Cancel safe.
    pub(crate) async fn ready(&self) -> Result<()> {
        let folder = async {
            match &self.folder {
                Some((_, wait)) => wait.readable().await,
                None => std::future::pending().await,
            }
        };
        let nft = async {
            match &self.nft {
                Some((_, wait)) => {
                    sleep_until(self.rest).await;
                    wait.readable().await
                }
                None => std::future::pending().await,
            }
        };
        let guard = tokio::select! {
            guard = self.kernel.1.readable() => guard,
            guard = nft => guard,
            guard = folder => guard,
        };
        // Cleared before reading: what comes while we read wakes us again.
        guard.context("wait for the kernel")?.clear_ready();
        Ok(())
    }

    /// Gives the agent all that waits.
    pub(crate) fn drain(&mut self, agent: &mut Agent) {
        loop {
            match self.kernel.0.try_next() {
                Ok(Some(event)) => agent.handle_kernel_event(&event),
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!("read the kernel's notifications: {error}");
                    agent.handle_kernel_event(&Event::Overrun);
                    break;
                }
            }
        }
        while let Some((nft, _)) = &mut self.nft {
            match nft.try_next() {
                Ok(Some(events)) => {
                    events.iter().for_each(|event| agent.handle_nft_event(event));
                    self.rest = Instant::now() + REST;
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!("read nftables' notifications: {error}");
                    agent.handle_nft_event(&NftEvent::Overrun);
                    break;
                }
            }
        }
        if self.folder.as_mut().is_none_or(|(folder, _)| folder.changed()) {
            agent.handle_conf_dir_event();
        }
    }

    /// How soon to drain without being woken; none where everything notifies.
    pub(crate) fn poll_every(&self) -> Option<Duration> {
        self.folder.is_none().then_some(Duration::from_millis(500))
    }
}

#[expect(deprecated, reason = "its successor is unsafe to call; an OwnedFd keeps to its terms")]
fn waitable(source: &impl AsFd) -> Result<AsyncFd<OwnedFd>> {
    let fd = source.as_fd().try_clone_to_owned().context("duplicate a descriptor")?;
    AsyncFd::new(fd).context("wait on a descriptor")
}

/// A watched folder to wait on.
pub(crate) struct Watch {
    folder: Folder,
    wait: AsyncFd<OwnedFd>,
}

impl Watch {
    /// Watches `path`, which is made if it is missing.
    pub(crate) fn open(path: &Path) -> Result<Watch> {
        let folder = Folder::open(path)?;
        let wait = waitable(&folder.inotify)?;
        Ok(Watch { folder, wait })
    }

    /// Waits until something happened there. Cancel safe.
    pub(crate) async fn changed(&mut self) {
        loop {
            match self.wait.readable().await {
                Ok(mut guard) => guard.clear_ready(),
                Err(_) => return std::future::pending().await,
            }
            if self.folder.changed() {
                return;
            }
        }
    }
}

/// A folder that is watched, and made and watched again when it was removed.
struct Folder {
    path: PathBuf,
    inotify: Inotify,
}

impl Folder {
    fn open(path: &Path) -> Result<Folder> {
        let inotify =
            Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).context("open inotify")?;
        let folder = Folder { path: path.into(), inotify };
        folder.watch()?;
        Ok(folder)
    }

    fn watch(&self) -> Result<()> {
        let (path, shown) = (&self.path, self.path.display());
        std::fs::create_dir_all(path).with_context(|| format!("make the folder {shown}"))?;
        let flags = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF;
        self.inotify.add_watch(path, flags).with_context(|| format!("watch the folder {shown}"))?;
        Ok(())
    }

    /// Whether anything happened since the last call.
    fn changed(&mut self) -> bool {
        let mut changed = false;
        while let Ok(events) = self.inotify.read_events() {
            changed |= !events.is_empty();
            let gone =
                AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_IGNORED;
            if events.iter().any(|event| event.mask.intersects(gone))
                && let Err(error) = self.watch()
            {
                tracing::warn!("{error:#}");
            }
        }
        changed
    }
}
