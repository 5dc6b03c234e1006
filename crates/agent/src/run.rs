use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use weft_model::network::Backend;
use weft_store::{Api, Store, StoreConfig, Update};

use crate::conditions::Report;
use crate::sources::Sources;
use crate::{
    Agent, AgentConfig, ProxyMode, Status, Views, announce, bgp, conditions, containers, files, flannel,
    heart, neighbours, pools, proxy,
};

/// How often everything is looked at, in case a notification was missed.
const AUDIT: Duration = Duration::from_secs(30);
/// After a failure nothing is tried again sooner than the first, nor left longer than the last.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// How long other nodes may be told that this one restarts.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Between two reports of a status that changes all the time.
const REPORT: Duration = Duration::from_millis(100);

/// Runs the agent until SIGTERM or SIGINT. Must be called within a current-thread Tokio runtime
/// whose thread is in the node's network namespace. Everything stays as it is when it ends.
pub async fn run(cfg: AgentConfig) -> Result<()> {
    if cfg.cluster_cidrs.is_empty() {
        bail!("no cluster CIDR is given: name the CIDRs of all pods with --cluster-cidr");
    }
    let api = Api::from_kubeconfig(&cfg.kubeconfig).await?;
    let cache = Some(cfg.state_dir.join("cluster.cache"));
    std::fs::create_dir_all(&cfg.state_dir)
        .with_context(|| format!("make the state folder {}", cfg.state_dir.display()))?;
    let (serves, announces) = (cfg.proxy.mode != ProxyMode::None, cfg.announce.is_on(cfg.proxy.mode));
    let mut store = {
        let services = serves || announces || cfg.backend == Backend::BGP;
        Store::start(api.clone(), StoreConfig { cache, services, ..StoreConfig::default() })
    };
    let (wanted, conditions) = watch::channel(Report::default());
    let (annotations, to_write) = watch::channel(serde_json::Map::new());
    let node = cfg.node_name.clone();
    let mut agent = Agent::new(cfg.clone())?;
    let heart = tokio::spawn(heart::keep(api.clone(), node.clone(), agent.host()));
    let (home, at_home) = watch::channel(false);
    let keeper = tokio::spawn(once(at_home.clone(), containers::keep(api.clone(), cfg.clone())));
    let services = Arc::new(Views::default());
    let (forwards, forwarding) = watch::channel(false);
    let proxy = tokio::spawn(once(at_home.clone(), proxy::keep(cfg.clone(), services.clone(), forwards)));
    let announced = Arc::new(Views::default());
    let (end, ends) = watch::channel(false);
    let spoken = Arc::new(Views::default());
    let routes = bgp::keep(api.clone(), cfg.clone(), spoken.clone(), agent.learnt(), ends.clone());
    let mut speaker = tokio::spawn(once(at_home.clone(), routes));
    let addresses = announce::keep(cfg.clone(), announced.clone(), forwarding, ends);
    let mut addresses = tokio::spawn(once(at_home.clone(), addresses));
    let views = Arc::new(Views::default());
    let pools = tokio::spawn(once(at_home, pools::keep(api.clone(), cfg.clone(), views.clone())));
    let announcer = tokio::spawn(flannel::keep(api.clone(), node.clone(), to_write));
    let reporter = tokio::spawn(conditions::keep(api, node, conditions));
    let status_file = cfg.state_dir.join("status.json");
    neighbours::make_room();
    tracing::info!(node = agent.config().node_name, backend = %agent.config().backend, "weft agent starts");
    let report = |status: &Status, served: bool| {
        let text = serde_json::to_vec_pretty(status).unwrap_or_default();
        if let Err(error) = files::ensure(&status_file, &text) {
            tracing::warn!("{error:#}");
        }
        annotate(&annotations, status);
        if served {
            if !status.standing.elsewhere {
                home.send_replace(true);
            }
            let new = Report::of(status);
            wanted.send_if_modified(|old| {
                let differs = *old != new;
                *old = new;
                differs
            });
        }
    };
    let ended = drive(
        &mut agent,
        async || {
            let update = store.changed().await;
            views.tell(&update);
            spoken.tell(&update);
            // Where nobody takes them, changes would pile up.
            if serves {
                services.tell(&update);
            }
            if announces {
                announced.tell(&update);
            }
            update
        },
        terminated()?,
        report,
    )
    .await;
    // Before anything else ends: who waits for this node has to know.
    end.send_replace(true);
    if *home.borrow() {
        let _ = timeout(LAST_WORDS, async { tokio::join!(&mut addresses, &mut speaker) }).await;
    }
    addresses.abort();
    speaker.abort();
    reporter.abort();
    announcer.abort();
    keeper.abort();
    pools.abort();
    proxy.abort();
    heart.abort();
    tracing::info!("weft agent ends; what it programmed stays");
    ended
}

/// Begins `work` when the node is known to be no other host's: what it keeps would be that one's.
async fn once(mut at_home: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    if at_home.wait_for(|home| *home).await.is_ok() {
        work.await;
    }
}

fn annotate(annotations: &watch::Sender<serde_json::Map<String, serde_json::Value>>, status: &Status) {
    annotations.send_if_modified(|old| {
        let differs = *old != status.flannel;
        old.clone_from(&status.flannel);
        differs
    });
}

fn terminated() -> Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

/// The event loop: feeds `agent` with the updates that `next` gives (which must be cancel safe)
/// and with what the kernel says, until `stop` ends. `report` gets each new status, and whether
/// a view of the cluster was served yet.
pub async fn drive(
    agent: &mut Agent,
    mut next: impl AsyncFnMut() -> Update,
    stop: impl Future<Output = ()>,
    mut report: impl FnMut(&Status, bool),
) -> Result<()> {
    let mut stop = pin!(stop);
    let learnt = agent.learnt();
    // Opened before the first reading, so that no change falls between.
    let mut sources = Sources::open(&agent.config().cni_conf_dir)?;
    let mut clock = Clock::new(Instant::now());
    let mut reported = agent.status();
    report(&reported, agent.served());
    loop {
        let update = tokio::select! {
            () = &mut stop => return Ok(()),
            ready = sources.ready() => {
                ready?;
                clock.hasten();
                None
            }
            update = next() => Some(update),
            () = learnt.changed() => None,
            () = sleep_until(clock.wakes(sources.poll_every())) => None,
        };
        sources.drain(agent);
        if agent.handle_learnt() {
            clock.hasten();
        }
        let now = Instant::now();
        if now >= clock.audit {
            clock.audit = now + AUDIT;
            agent.audit();
        }
        if let Some(update) = update {
            // What others broke is repaired, and counted, before the plan moves on.
            if agent.pending() {
                agent.apply();
                sources.drain(agent);
            }
            agent.handle_update(update);
            clock.retry = None;
        }
        if agent.pending() && clock.may_apply(now) {
            let done = agent.apply();
            clock.applied(done, Instant::now());
        }
        if now >= clock.report {
            let status = agent.status();
            if status != reported {
                report(&status, agent.served());
                reported = status;
                clock.report = now + REPORT;
            }
            clock.unreported = false;
        } else {
            clock.unreported = true;
        }
    }
}

/// When the loop wakes by itself.
struct Clock {
    audit: Instant,
    /// Not before this is a failed apply repeated.
    retry: Option<Instant>,
    applied: Instant,
    pause: Duration,
    /// Not before this is a status reported.
    report: Instant,
    unreported: bool,
}

impl Clock {
    fn new(now: Instant) -> Clock {
        Clock {
            audit: now + AUDIT,
            retry: None,
            applied: now,
            pause: FIRST_RETRY,
            report: now,
            unreported: false,
        }
    }

    fn wakes(&self, poll: Option<Duration>) -> Instant {
        let poll = poll.map(|pause| Instant::now() + pause);
        let report = self.unreported.then_some(self.report);
        [Some(self.audit), self.retry, report, poll].into_iter().flatten().min().unwrap_or(self.audit)
    }

    fn may_apply(&self, now: Instant) -> bool {
        self.retry.is_none_or(|retry| now >= retry)
    }

    /// Something happened: one lasting failure must not delay other repairs.
    fn hasten(&mut self) {
        self.retry = self.retry.map(|retry| retry.min(self.applied + FIRST_RETRY));
    }

    fn applied(&mut self, done: bool, now: Instant) {
        self.applied = now;
        self.retry = (!done).then_some(now + self.pause);
        self.pause = if done { FIRST_RETRY } else { (self.pause * 2).min(LAST_RETRY) };
    }
}
