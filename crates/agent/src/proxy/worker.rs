use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use weft_kernel::conntrack::Room;
use weft_kernel::nft::{Nft, NftEvent, NftMonitor};
use weft_kernel::{Event, Monitor, sysctl};
use weft_model::{Changes, Cluster};
use weft_service::{Changed, FrontendKey, Planner, Refusal, ServiceConfig, conntrack, kube_proxy};

use super::hold::Hold;
use super::mode::{Backend, remove_others};
use super::{ProxyMode, ProxyStatus};
use crate::AgentConfig;
use crate::views::Views;

/// How often everything is looked at, in case a notification was missed.
const AUDIT: Duration = Duration::from_secs(30);
/// After a failure nothing is tried again sooner than the first, nor left longer than the last.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// Where a packet that a bridge carries meets no rule: its answer then passes the translation by.
const BRIDGED: [&str; 2] = ["net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"];

struct Worker<'a> {
    cfg: &'a AgentConfig,
    planner: Planner,
    backend: Option<Backend>,
    hold: Option<Hold>,
    /// Whether nothing is left of an agent of another mode.
    alone: bool,
    /// What changed since the kernel was as planned.
    changed: Changed,
    /// Frontends whose old flows are to be forgotten now that it is.
    moved: BTreeSet<FrontendKey>,
    status: ProxyStatus,
    retry: Option<Instant>,
    pause: Duration,
    /// Whether there was a view of the cluster.
    served: bool,
    /// What is wrong with the kernel's table of connections.
    full: Option<String>,
    /// Whether the kernel may be other than planned: something else changed it, or a while has passed.
    doubted: bool,
    audit: Instant,
}

/// Serves Services, for good.
pub(super) async fn work(cfg: &AgentConfig, views: &Views, teller: &watch::Sender<ProxyStatus>) {
    let mut worker = Worker::new(cfg);
    // Opened before the first reading, so that no change falls between.
    let mut monitor = listen("nftables", NftMonitor::open);
    let mut ignored = None;
    let minds_links = cfg.proxy.mode == ProxyMode::Ipvs;
    let mut links = minds_links.then(|| listen("links", Monitor::open)).flatten();
    loop {
        tokio::select! {
            () = views.changed() => {}
            () = ready(monitor.as_ref()) => worker.hasten(),
            () = ready(links.as_ref()) => {}
            () = sleep_until(worker.wakes()) => {}
        }
        drain(&mut monitor, &mut worker);
        drain_links(&mut links, &mut worker);
        if Instant::now() >= worker.audit {
            worker.audit();
        }
        if let Some((cluster, changes)) = views.take() {
            worker.replan(&cluster, &changes);
        }
        worker.apply();
        // Its own changes need not wake it.
        let port = worker.backend.as_ref().and_then(Backend::port).filter(|port| ignored != Some(*port));
        if let (Some(port), Some((monitor, _))) = (port, &mut monitor)
            && monitor.ignore(port).is_ok()
        {
            ignored = Some(port);
        }
        teller.send_if_modified(|told| {
            let differs = *told != worker.status;
            if differs {
                told.clone_from(&worker.status);
            }
            differs
        });
    }
}

impl<'a> Worker<'a> {
    fn new(cfg: &'a AgentConfig) -> Worker<'a> {
        let config = ServiceConfig {
            node: cfg.node_name.as_str().into(),
            cluster_cidrs: cfg.cluster_cidrs.clone(),
            node_port_addresses: cfg.proxy.node_port_addresses.clone(),
            external_ips: cfg.proxy.external_ips.clone(),
        };
        Worker {
            cfg,
            planner: Planner::new(config),
            backend: None,
            hold: None,
            alone: false,
            changed: Changed::default(),
            moved: BTreeSet::new(),
            status: ProxyStatus {
                untracked: room().map_or(0, |room| room.dropped),
                ..ProxyStatus::new(cfg.proxy.mode)
            },
            retry: None,
            pause: FIRST_RETRY,
            served: false,
            full: None,
            doubted: true,
            audit: Instant::now() + AUDIT,
        }
    }

    fn wakes(&self) -> Instant {
        self.retry.map_or(self.audit, |retry| retry.min(self.audit))
    }

    /// Something happened: a lasting failure must not delay its repair.
    fn hasten(&mut self) {
        let soon = Instant::now() + FIRST_RETRY;
        self.retry = self.retry.map(|retry| retry.min(soon));
    }

    fn audit(&mut self) {
        self.audit = Instant::now() + AUDIT;
        self.doubted = true;
        if let Some(backend) = &mut self.backend {
            backend.distrust();
        }
        self.look_for_room();
    }

    /// Tells when the kernel dropped what it could not track since the last look.
    fn look_for_room(&mut self) {
        let Some(room) = room() else { return };
        let before = std::mem::replace(&mut self.status.untracked, room.dropped);
        let lost = room.dropped.saturating_sub(before);
        self.full = (lost > 0).then(|| {
            format!(
                "{lost} packets of new connections were dropped in the last {} s, since the kernel could not track \
                 them ({} connections of {}): raise net.netfilter.nf_conntrack_max on the machine",
                AUDIT.as_secs(),
                room.tracked,
                room.limit
            )
        });
        if let Some(full) = &self.full {
            tracing::warn!("{full}");
        }
    }

    fn replan(&mut self, cluster: &Cluster, changes: &Changes) {
        let changed = self.planner.update(cluster, changes);
        let node = cluster.nodes.get(self.cfg.node_name.as_str());
        self.status.eligible = node.is_none_or(|node| !node.leaving);
        self.served = true;
        self.tell_refused();
        self.status.take(self.planner.plan());
        self.changed.merge(changed);
    }

    fn tell_refused(&self) {
        let known = &self.status.refused;
        for (service, list) in &self.planner.plan().refused {
            let before = known.get(&service.to_string());
            let new = |why: &&Refusal| before.is_none_or(|told| !told.contains(&why.to_string()));
            for why in list.iter().filter(new) {
                tracing::warn!("Service {service}: {why}");
            }
        }
    }

    /// Does what is due. Nothing before the first view of the cluster.
    fn apply(&mut self) {
        let due = self.doubted || !self.changed.is_empty() || !self.moved.is_empty();
        if !self.served || !due || self.retry.is_some_and(|retry| Instant::now() < retry) {
            return;
        }
        match self.try_apply() {
            Ok(()) => {
                self.retry = None;
                self.pause = FIRST_RETRY;
                self.status.programmed = true;
                self.status.behind_since = None;
                // In whole seconds: a busy cluster's syncs are not each told.
                self.status.last_sync = Timestamp::from_second(Timestamp::now().as_second()).ok();
                self.status.errors = self.full.iter().cloned().collect();
            }
            Err(error) => {
                let error = format!("{error:#}");
                if self.status.errors.first() != Some(&error) {
                    tracing::warn!("Services: {error}");
                }
                self.status.errors = std::iter::once(error).chain(self.full.clone()).collect();
                // Its socket may be what fails. The connections of the mode userspace are its own.
                if self.cfg.proxy.mode != ProxyMode::Userspace {
                    self.backend = None;
                }
                self.status.programmed = false;
                self.status.behind_since.get_or_insert_with(Timestamp::now);
                self.retry = Some(Instant::now() + self.pause);
                self.pause = (self.pause * 2).min(LAST_RETRY);
            }
        }
    }

    fn try_apply(&mut self) -> anyhow::Result<()> {
        let adopts = self.backend.is_none();
        if adopts && self.hold.is_none() {
            self.hold = Hold::open().inspect_err(|error| tracing::debug!("{error}")).ok();
        }
        let backend = match &mut self.backend {
            Some(backend) => backend,
            none => none.insert(open(self.cfg)?),
        };
        let written = backend.apply(self.planner.plan(), &self.changed)?;
        if !self.alone {
            self.alone = remove_others(self.cfg.proxy.mode)?;
        }
        if self.changed.is_empty() && !adopts && written > 0 {
            tracing::info!(objects = written, "repaired Services that something else changed");
            self.status.repaired += written as u64;
        }
        self.doubted = false;
        self.moved.append(&mut std::mem::take(&mut self.changed).frontends);
        if backend.leads_to_endpoints() {
            conntrack::reconcile(self.planner.plan(), &self.moved, self.cfg.proxy.reset_removed)?;
        }
        self.moved.clear();
        Ok(())
    }
}

fn room() -> Option<Room> {
    weft_kernel::conntrack::room().inspect_err(|error| tracing::debug!("{error}")).ok()?
}

fn open(cfg: &AgentConfig) -> anyhow::Result<Backend> {
    let told = cfg.state_dir.join(kube_proxy::TAKE_OVER).exists();
    if !told && let Some(place) = kube_proxy::find(&mut Nft::open()?)? {
        anyhow::bail!(
            "kube-proxy serves them here ({place}): take over by `weft service migrate-from kube-proxy`, \
             or leave them to it by --proxy none"
        );
    }
    for name in BRIDGED {
        match sysctl::get(name) {
            Ok(_) => _ = sysctl::ensure(name, "1")?,
            Err(_) => tracing::warn!(
                "there is no {name}: pods of one bridge do not reach one another through Services \
                 (modprobe br_netfilter)"
            ),
        }
    }
    Ok(Backend::open(&cfg.proxy)?)
}

type Monitored<M> = (M, AsyncFd<OwnedFd>);

fn listen<M: AsFd>(what: &str, open: fn() -> weft_kernel::Result<M>) -> Option<Monitored<M>> {
    let monitor = open().map_err(anyhow::Error::from).and_then(|monitor| {
        let fd = monitor.as_fd().try_clone_to_owned()?;
        #[expect(deprecated, reason = "its successor is unsafe to call; an OwnedFd keeps to its terms")]
        let wait = AsyncFd::new(fd)?;
        Ok((monitor, wait))
    });
    match monitor {
        Ok(monitor) => Some(monitor),
        Err(error) => {
            tracing::warn!("{what} cannot be listened to: {error}");
            None
        }
    }
}

async fn ready<M>(monitor: Option<&Monitored<M>>) {
    match monitor {
        Some((_, wait)) => _ = wait.readable().await.map(|mut guard| guard.clear_ready()),
        None => std::future::pending().await,
    }
}

fn drain_links(monitor: &mut Option<Monitored<Monitor>>, worker: &mut Worker<'_>) {
    let Some((monitor, _)) = monitor else { return };
    loop {
        let event = match monitor.try_next() {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!("read notifications of links: {error}");
                Event::Overrun
            }
        };
        if worker.backend.as_mut().is_some_and(|backend| backend.notice_link(&event)) {
            worker.doubted = true;
            worker.hasten();
        }
        if event == Event::Overrun {
            return;
        }
    }
}

fn drain(monitor: &mut Option<Monitored<NftMonitor>>, worker: &mut Worker<'_>) {
    let Some((monitor, _)) = monitor else { return };
    loop {
        let events = match monitor.try_next() {
            Ok(Some(events)) => events,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!("read nftables' notifications: {error}");
                vec![NftEvent::Overrun]
            }
        };
        if let Some(backend) = &mut worker.backend {
            // Each is given, also after the first that counts.
            let noticed = events.iter().filter(|event| backend.notice(event)).count();
            worker.doubted |= noticed > 0;
        }
        if events == [NftEvent::Overrun] {
            return;
        }
    }
}
