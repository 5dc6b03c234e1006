use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use weft_announce::{Action, Election, Wants};
use weft_kernel::{Event, Monitor, Netlink};
use weft_model::{Cluster, Mac};

use super::AnnounceStatus;
use super::conflicts::Conflicts;
use super::link::{self, Announcing};
use super::sockets::Sockets;
use crate::views::Views;
use crate::{AgentConfig, ProxyMode};

/// How often the link is looked at, in case a notification was missed, and after a failure.
const AUDIT: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(1);
/// Between two views of a cluster that changes all the time, and between two of what is told.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Worker<'a> {
    pub(super) cfg: &'a AgentConfig,
    started: Instant,
    pub(super) run: u64,
    netlink: Netlink,
    cluster: Cluster,
    wants: Wants,
    /// The nodes' addresses, by which beats are believed.
    pub(super) nodes: BTreeMap<Arc<str>, Vec<IpAddr>>,
    pub(super) election: Election,
    pub(super) link: Option<Announcing>,
    pub(super) sockets: Option<Sockets>,
    /// The station of each node that was heard: what it says of an address as it moves is no conflict.
    pub(super) stations: BTreeMap<Arc<str>, Mac>,
    pub(super) conflicts: Conflicts,
    /// Whether the kernel forwards for Services.
    forwards: bool,
    /// When the link is looked at next.
    look: Instant,
    /// Not before this is the cluster viewed again.
    view: Instant,
    pub(super) status: AnnounceStatus,
    /// Not before this is anything told again, and whether there may be something to tell.
    tell: Instant,
    pub(super) untold: bool,
}

/// Takes part, until `ends`.
pub(super) async fn work(
    cfg: &AgentConfig,
    views: &Views,
    mut forwards: watch::Receiver<bool>,
    mut ends: watch::Receiver<bool>,
    teller: &watch::Sender<AnnounceStatus>,
) {
    let opened = Monitor::of_links().map_err(anyhow::Error::from).and_then(|monitor| {
        let fd: OwnedFd = monitor.as_fd().try_clone_to_owned()?;
        #[expect(deprecated, reason = "its successor is unsafe to call; an OwnedFd keeps to its terms")]
        let wait = AsyncFd::new(fd)?;
        Ok((monitor, wait, Netlink::open()?))
    });
    let (mut monitor, wait, netlink) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            tracing::error!("no address is announced: {error:#}");
            return;
        }
    };
    let mut worker = Worker::new(cfg, netlink);
    let mut more = false;
    let mut viewed = true;
    loop {
        let packets = async {
            match &worker.sockets {
                _ if more => {}
                Some(sockets) => sockets.ready().await,
                None => std::future::pending().await,
            }
        };
        // The sender gone means no more news.
        let news = async {
            if forwards.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let view = worker.view;
        let seen = async {
            sleep_until(view).await;
            views.changed().await;
        };
        tokio::select! {
            _ = ends.wait_for(|ends| *ends) => return worker.last_words(),
            () = seen => viewed = true,
            () = packets => {}
            () = news => {}
            ready = wait.readable() => { let _ = ready.map(|mut guard| guard.clear_ready()); }
            () = sleep_until(worker.wakes()) => {}
        }
        worker.untold |= worker.forwards != *forwards.borrow();
        worker.forwards = *forwards.borrow();
        while let Ok(Some(event)) = monitor.try_next().inspect_err(|error| tracing::warn!("{error}")) {
            worker.notice(&event);
        }
        worker.look(std::mem::take(&mut viewed).then_some(views));
        more = worker.turn();
        worker.tell(teller);
    }
}

impl<'a> Worker<'a> {
    fn new(cfg: &'a AgentConfig, netlink: Netlink) -> Worker<'a> {
        let run = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
        let digits: String = run.chars().filter(char::is_ascii_hexdigit).take(16).collect();
        let run = u64::from_str_radix(&digits, 16).unwrap_or_default();
        let started = Instant::now();
        Worker {
            cfg,
            started,
            run,
            netlink,
            cluster: Cluster::default(),
            wants: Wants::default(),
            nodes: BTreeMap::new(),
            election: Election::new(cfg.node_name.as_str().into(), run),
            link: None,
            sockets: None,
            stations: BTreeMap::new(),
            conflicts: Conflicts::default(),
            forwards: false,
            look: started,
            view: started,
            status: AnnounceStatus::default(),
            tell: started,
            untold: true,
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn wakes(&self) -> Instant {
        let due = [self.election.wakes(self.now()), self.conflicts.wakes()];
        let due = due.into_iter().flatten().map(|after| self.started + after);
        due.chain(self.untold.then_some(self.tell)).fold(self.look, Instant::min)
    }

    fn notice(&mut self, event: &Event) {
        if link::concerns(event, self.link.as_ref()) {
            self.look = Instant::now();
        }
    }

    /// Takes in what changed in the cluster, where there are news of it, and of the link.
    fn look(&mut self, views: Option<&Views>) {
        let mut concerned = false;
        if let Some(views) = views {
            self.view = Instant::now() + PAUSE;
            self.election.set_current(views.are_current());
            self.untold |= self.status.api_away == views.are_current();
            self.status.api_away = !views.are_current();
        }
        if let Some((cluster, changes)) = views.and_then(Views::take) {
            concerned = self.wants.concerned(&cluster, &changes) || self.nodes.is_empty();
            if concerned {
                let own = &*self.cfg.node_name;
                let moved = cluster.nodes.get(own).map(|node| &node.addresses)
                    != self.cluster.nodes.get(own).map(|node| &node.addresses);
                self.look = if moved { Instant::now() } else { self.look };
            }
            self.cluster = cluster;
        }
        if Instant::now() >= self.look {
            let before = self.link.clone();
            match self.find_link() {
                Ok(()) => self.look = Instant::now() + AUDIT,
                Err(error) => {
                    self.complain(vec![format!("{error:#}")]);
                    self.look = Instant::now() + RETRY;
                }
            }
            concerned |= before != self.link || self.sockets.is_none();
        }
        if concerned {
            self.replan();
            if let Err(error) = self.open() {
                self.complain(vec![format!("{error:#}")]);
                self.look = Instant::now() + RETRY;
            }
        }
    }

    fn find_link(&mut self) -> anyhow::Result<()> {
        let found = match self.cluster.nodes.get(&*self.cfg.node_name) {
            Some(node) => Announcing::find(&mut self.netlink, &self.cfg.announce, node)?,
            // What it had is let go and told to the others, for which it needs its link.
            None => return Ok(()),
        };
        let why = found.as_ref().err().cloned();
        self.untold = true;
        self.link = found.ok();
        // Without addresses to announce nobody asks for a link.
        self.complain(why.filter(|_| !self.wants.addresses().is_empty()).into_iter().collect());
        Ok(())
    }

    /// Has sockets while there is something to announce.
    fn open(&mut self) -> anyhow::Result<()> {
        let Some(link) = self.link.as_ref().filter(|_| !self.wants.addresses().is_empty()) else {
            self.sockets = None;
            return Ok(());
        };
        if self.sockets.as_ref().is_some_and(|sockets| sockets.are_of(link)) {
            return Ok(());
        }
        // Whoever asks from now on is answered with what the link has now.
        let mut sockets = Sockets::open(link)?;
        let mine = self.mine();
        for address in &mine {
            if let IpAddr::V6(ip) = address {
                sockets.join(*ip)?;
            }
        }
        self.sockets = Some(sockets);
        mine.into_iter().for_each(|address| self.announce(address));
        Ok(())
    }

    fn mine(&self) -> Vec<IpAddr> {
        self.wants.addresses().keys().copied().filter(|address| self.election.has(*address)).collect()
    }

    fn complain(&mut self, errors: Vec<String>) {
        for error in errors.iter().filter(|error| !self.status.errors.contains(*error)) {
            tracing::warn!("addresses are not announced: {error}");
        }
        self.untold |= self.status.errors != errors;
        self.status.errors = errors;
    }

    fn replan(&mut self) {
        let nodes = self.cluster.nodes.values();
        self.nodes = nodes.map(|node| (node.name.clone(), node.addresses.clone())).collect();
        let nets = self.link.as_ref().map(|link| link.nets.clone()).unwrap_or_default();
        self.wants.update(&self.cluster, &nets);
        let wanted = self.wants.addresses().iter();
        self.election.set_wanted(wanted.map(|(address, one)| (*address, one.candidates.clone())).collect());
        let now = self.now();
        self.election.retain_nodes(|node| self.nodes.contains_key(node), now);
        self.stations.retain(|node, _| self.nodes.contains_key(node));
        self.status.set_wanted(self.wants.addresses());
        self.untold = true;
        let of_kernel = matches!(self.cfg.proxy.mode, ProxyMode::Nftables | ProxyMode::Iptables);
        if !of_kernel && self.wants.addresses().keys().any(IpAddr::is_ipv4) {
            let quiet = self.link.as_ref().map_or(Ok(()), Announcing::quiet_kernel);
            if let Err(error) = quiet {
                self.complain(vec![format!("the kernel may answer too: {error}")]);
            }
        }
    }

    /// Hears what nodes say, decides, and then answers whoever asks. Says whether more may wait.
    fn turn(&mut self) -> bool {
        let running = self.link.as_ref().is_some_and(|link| link.running) && self.sockets.is_some();
        self.election.set_able(running && self.forwards, self.now());
        let mut more = self.hear();
        self.act();
        more |= self.read();
        self.untold |= self.conflicts.forget(self.now());
        more
    }

    fn act(&mut self) {
        for action in self.election.poll(self.now()) {
            self.untold |= !matches!(action, Action::Say(_));
            match action {
                Action::Say(beat) => {
                    let said = self.sockets.as_ref().map_or(Ok(()), |sockets| sockets.say(&beat));
                    // A link without carrier says so itself.
                    let _ = said.inspect_err(|error| tracing::debug!("tell the other nodes: {error}"));
                }
                Action::Take(address) => {
                    let owner = self.election.owner(address);
                    let why = owner.map(|owner| owner.why.to_string()).unwrap_or_default();
                    tracing::info!("announces {address}: {why}");
                    if let (IpAddr::V6(ip), Some(sockets)) = (address, &mut self.sockets)
                        && let Err(error) = sockets.join(ip)
                    {
                        tracing::warn!("neighbours that ask for {ip} may not be heard: {error}");
                    }
                }
                Action::Withdraw(address) => {
                    tracing::info!("announces {address} no more");
                    if let (IpAddr::V6(ip), Some(sockets)) = (address, &mut self.sockets) {
                        sockets.leave(ip);
                    }
                }
                Action::Announce(address) => self.announce(address),
            }
        }
    }

    pub(super) fn announce(&self, address: IpAddr) {
        let Some(sockets) = &self.sockets else { return };
        let _ = sockets.announce(address).inspect_err(|error| tracing::debug!("announce {address}: {error}"));
    }

    /// Others wait for this node, whose kernel goes on forwarding: said twice, since one may be lost.
    fn last_words(&mut self) {
        if let (Some(beat), Some(sockets)) = (self.election.restarts(), &self.sockets) {
            for _ in 0..2 {
                let _ = sockets.say(&beat);
            }
        }
    }

    /// Tells what may have changed, now or when it was last told long enough ago.
    fn tell(&mut self, teller: &watch::Sender<AnnounceStatus>) {
        let now = Instant::now();
        if !self.untold || now < self.tell {
            return;
        }
        (self.untold, self.tell) = (false, now + PAUSE);
        self.status.place(|address| self.election.owner(address));
        self.status.link = self.link.as_ref().map(|link| link.name.clone());
        self.status.out = self.out();
        self.status.conflicts = self.conflicts.told();
        teller.send_if_modified(|told| {
            let differs = *told != self.status;
            if differs {
                told.clone_from(&self.status);
            }
            differs
        });
    }

    fn is_node(&self) -> bool {
        self.cluster.nodes.contains_key(&*self.cfg.node_name)
    }

    /// Why this node may have no address.
    fn out(&self) -> Option<String> {
        match &self.link {
            link if !self.is_node() && (link.is_some() || !self.cluster.nodes.is_empty()) => {
                Some(format!("the cluster has no node {}", self.cfg.node_name))
            }
            None => Some("there is no link to announce on".into()),
            Some(link) if !link.running => Some(format!("{} has no carrier", link.name)),
            Some(_) if !self.forwards => Some("its Services are not programmed yet".into()),
            Some(_) => None,
        }
    }
}
