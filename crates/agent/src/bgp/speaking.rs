//! The speaker and what is told of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde::Serialize;
use weft_bgp::plan::Plan;
use weft_bgp::speaker::control::{Control, SOCKET};
use weft_bgp::speaker::{Changes, End, Settings, Speaker, Status};

use super::learnt::Learnt;
use crate::{AgentConfig, files};

/// How long a speaker that has restarted waits for neighbours before it decides by what it has.
const RESTART: Duration = Duration::from_secs(60);
/// So long a session is up when its neighbour has told its routes, in seconds.
const HEARD: u64 = 2;
/// How often a consumer of changes looks whether the speaker has ended.
const LOOK: Duration = Duration::from_secs(1);
/// Which boot of the machine this is.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// What `bgp.json` says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    /// What of the objects makes no sense or cannot be.
    problems: &'a BTreeSet<String>,
    /// Why the speaker does not do what it is to.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: &'a Option<String>,
    speaker: Option<Status>,
}

pub(super) struct Speaking {
    learnt: Arc<Learnt>,
    speaker: Option<Speaker>,
    /// Answers `weft bgp`.
    control: Option<Control>,
    /// What the speaker was told last.
    settings: Option<Settings>,
    /// Since when routes of before a restart are kept that nobody may tell any more.
    keeps: Option<Instant>,
    gateways: BTreeMap<IpAddr, IpAddr>,
    problems: BTreeSet<String>,
    error: Option<String>,
    /// What the speaker said last, but for how long it has been so.
    said: Option<Status>,
    /// `bgp.json`, and the file that says in which boot BGP was spoken.
    status: PathBuf,
    boot: PathBuf,
    socket: PathBuf,
}

impl Speaking {
    pub(super) fn new(cfg: &AgentConfig, learnt: Arc<Learnt>) -> Speaking {
        Speaking {
            learnt,
            speaker: None,
            control: None,
            settings: None,
            keeps: None,
            gateways: BTreeMap::new(),
            problems: BTreeSet::new(),
            error: None,
            said: None,
            status: cfg.state_dir.join("bgp.json"),
            boot: cfg.state_dir.join("bgp.boot"),
            socket: cfg.state_dir.join(SOCKET),
        }
    }

    /// Has the speaker do what is planned.
    pub(super) fn follow(&mut self, plan: &Plan) {
        for problem in plan.problems.difference(&self.problems) {
            tracing::warn!("{problem}");
        }
        let news = self.problems != plan.problems;
        if news {
            self.problems.clone_from(&plan.problems);
        }
        self.reach(&plan.gateways);
        let error = plan.settings.as_ref().and_then(|settings| self.set(settings).err());
        if let Some(error) = error.as_ref().filter(|error| self.error.as_ref() != Some(*error)) {
            tracing::warn!("{error}");
        }
        let news = news || self.error != error;
        self.error = error;
        self.tell(news);
    }

    fn set(&mut self, settings: &Settings) -> Result<(), String> {
        if self.speaker.is_some() && self.settings.as_ref() == Some(settings) {
            return Ok(());
        }
        match &self.speaker {
            Some(speaker) => speaker.set(settings.clone()).map_err(told)?,
            None => self.start(settings.clone())?,
        }
        self.settings = Some(settings.clone());
        Ok(())
    }

    fn start(&mut self, settings: Settings) -> Result<(), String> {
        let boot = fs::read(BOOT).unwrap_or_default();
        let restarted = !boot.is_empty() && fs::read(&self.boot).is_ok_and(|before| before == boot);
        let settings = Settings { restarted: restarted.then_some(RESTART), ..settings };
        let speaker = Speaker::start(settings).map_err(told)?;
        // Neighbours that restart too are not waited for by the speaker.
        self.keeps = restarted.then(Instant::now);
        self.learnt.hold(restarted);
        let (changes, learnt) = (speaker.changes(), self.learnt.clone());
        let consumer = std::thread::Builder::new().name("weft-bgp-routes".to_owned());
        consumer
            .spawn(move || consume(&changes, &learnt))
            .map_err(|error| format!("start a thread: {error}"))?;
        match Control::serve(&self.socket, speaker.asker()) {
            Ok(control) => self.control = Some(control),
            Err(error) => tracing::warn!("answer at {}: {error}", self.socket.display()),
        }
        self.speaker = Some(speaker);
        files::ensure(&self.boot, &boot).map(drop).map_err(|error| format!("{error:#}"))
    }

    /// Routes to neighbours by the gateways that objects name.
    fn reach(&mut self, gateways: &BTreeMap<IpAddr, IpAddr>) {
        if self.gateways == *gateways {
            return;
        }
        let gone = self.gateways.keys().map(|ip| (IpNet::from(*ip), Vec::new()));
        let new = gateways.iter().map(|(ip, gateway)| (IpNet::from(*ip), vec![*gateway]));
        self.learnt.tell(gone.chain(new).collect::<Vec<_>>(), None);
        self.gateways.clone_from(gateways);
    }

    /// BGP is not spoken any more.
    pub(super) fn cease(&mut self) {
        let Some(speaker) = self.speaker.take() else { return };
        self.control = None;
        speaker.stop(End::Cease("the cluster's backend is another now".to_owned()));
        self.settings = None;
        self.gateways.clear();
        self.said = None;
        self.learnt.end();
        let _ = fs::remove_file(&self.boot);
        let _ = fs::remove_file(&self.status);
    }

    /// The agent ends, and comes again.
    pub(super) fn restart(self) {
        if let Some(speaker) = self.speaker {
            speaker.stop(End::Restart);
        }
    }

    /// Writes `bgp.json` where something is new.
    fn tell(&mut self, news: bool) {
        let speaker = self.speaker.as_ref().map(|speaker| speaker.asker().status());
        let heard = |status: &Status| {
            status.neighbours.values().all(|one| one.state == "established" && one.since >= HEARD)
        };
        if self.keeps.is_some_and(|since| since.elapsed() >= RESTART || speaker.as_ref().is_some_and(heard)) {
            self.keeps = None;
            self.learnt.hold(false);
        }
        let timeless = speaker.clone().map(|mut status| {
            status.neighbours.values_mut().for_each(|neighbour| neighbour.since = 0);
            status
        });
        if !news && self.said == timeless {
            return;
        }
        self.said = timeless;
        let told = Told { problems: &self.problems, error: &self.error, speaker };
        let text = serde_json::to_vec_pretty(&told).unwrap_or_default();
        if let Err(error) = files::ensure(&self.status, &text) {
            tracing::warn!("{error:#}");
        }
    }
}

fn told(error: weft_bgp::speaker::Error) -> String {
    let why = std::error::Error::source(&error).map(|why| format!(": {why}")).unwrap_or_default();
    format!("{error}{why}")
}

/// Passes on what changes, until the speaker has ended.
fn consume(changes: &Changes, learnt: &Learnt) {
    while !changes.is_over() {
        if let Some(batch) = changes.next(LOOK) {
            let hops = |hops: Vec<weft_bgp::message::NextHop>| hops.iter().map(|hop| hop.address()).collect();
            let routes = batch.routes.into_iter().map(|(prefix, next)| (prefix, hops(next)));
            learnt.tell(routes.collect::<Vec<_>>(), Some(batch.settled));
        }
    }
}
