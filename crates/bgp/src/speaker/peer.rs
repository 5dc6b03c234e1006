//! A neighbour at one address: its session, its connections, and what is counted of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};

use super::link::Link;
use super::settings::{Neighbour, Remote, Settings};
use super::token::Token;
use crate::message::{GracefulRestart, LongLived, Negotiated, NextHop, RESTART_TIME, STALE_TIME};
use crate::rib::{self, PeerId, TooMany};
use crate::session::{Config, Fall, Session, Side, State};
use crate::{Family, PerFamily};

/// So long one of a network is remembered that is gone.
const REMEMBERED: Duration = Duration::from_secs(60);
/// So long one of a network has for its OPENs when others want its place.
const HALF_OPEN: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: Arc<str>,
    /// The name of its settings.
    pub(super) of: Arc<str>,
    pub(super) address: IpAddr,
    pub(super) neighbour: Neighbour,
    pub(super) session: Session,
    pub(super) rib: PeerId,
    pub(super) links: Links,
    /// When it is looked at again.
    pub(super) timer: Option<Duration>,
    /// Since when a network's peer has had no connection, or only one by which no routes go.
    pub(super) idle: Duration,
    /// By which connection routes go.
    pub(super) up: Option<Side>,
    /// Since when they go, or do not.
    pub(super) since: Duration,
    pub(super) established: u64,
    pub(super) stale: PerFamily<bool>,
    pub(super) too_many: Option<TooMany>,
    pub(super) last_fall: Option<String>,
    pub(super) last_error: Option<String>,
    pub(super) updates: u64,
    pub(super) malformed: BTreeMap<u8, u64>,
}

/// Connections by who dialled.
#[derive(Debug, Default)]
pub(super) struct Links {
    dialled: Option<Link>,
    accepted: Option<Link>,
}

impl Links {
    pub(super) fn slot(&mut self, side: Side) -> &mut Option<Link> {
        match side {
            Side::Dialled => &mut self.dialled,
            Side::Accepted => &mut self.accepted,
        }
    }

    pub(super) fn get(&self, side: Side) -> Option<&Link> {
        match side {
            Side::Dialled => self.dialled.as_ref(),
            Side::Accepted => self.accepted.as_ref(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.dialled.is_none() && self.accepted.is_none()
    }
}

impl Peer {
    pub(super) fn is_dynamic(&self) -> bool {
        matches!(self.neighbour.remote, Remote::Prefix { .. })
    }

    /// Where it is dialled.
    fn dialled_at(&self) -> SocketAddr {
        let port = match self.neighbour.remote {
            Remote::Address { port, .. } => port,
            Remote::Prefix { .. } => super::PORT,
        };
        SocketAddr::new(self.address, port)
    }

    /// Dials it.
    pub(super) fn dial(&mut self, poll: &OwnedFd, number: u32, now: Duration) {
        let token = EventData::new_u64(Token::Link(number, Side::Dialled).write());
        let dialled = Link::dial(self.dialled_at(), &self.neighbour).and_then(|link| {
            epoll::add(poll, &link, token, EventFlags::OUT)?;
            Ok(link)
        });
        match dialled {
            Ok(link) => self.links.dialled = Some(link),
            Err(error) => {
                self.last_error = Some(format!("cannot connect: {error}"));
                self.session.handle_unreachable(now);
            }
        }
    }

    /// When one of a network may be forgotten that nothing is known of any more.
    pub(super) fn forgotten_at(&self) -> Option<Duration> {
        let nothing = self.is_dynamic() && self.links.is_empty() && !self.stale.ipv4 && !self.stale.ipv6;
        nothing.then(|| self.idle + REMEMBERED)
    }

    /// Whether it makes room for another of its network.
    pub(super) fn gives_way(&self, now: Duration) -> bool {
        let half_open = !self.links.is_empty() && self.up.is_none() && now >= self.idle + HALF_OPEN;
        self.forgotten_at().is_some() || half_open && !self.stale.ipv4 && !self.stale.ipv6
    }

    /// Notes why it fell, or failed before any routes went.
    pub(super) fn fell(&mut self, fall: &Fall, was_up: bool) {
        let text = match fall {
            Fall::Closed => "the connection was closed".to_owned(),
            Fall::Replaced => "the neighbour connected anew".to_owned(),
            Fall::Received(why) => format!("the neighbour ended it: {why}"),
            Fall::Sent(why) => match self.too_many {
                Some(too_many) => too_many.to_string(),
                None => why.to_string(),
            },
        };
        if was_up {
            self.last_fall = Some(text.clone());
        }
        self.last_error = Some(text);
    }

    /// What the RIB is to know of it, up with these terms by that address of ours.
    pub(super) fn rib_peer(&self, settings: &Settings, up: Option<(IpAddr, &Negotiated)>) -> rib::Peer {
        let own = |family: Family| {
            let (local, terms) = up?;
            let ip = match (family, local) {
                (Family::Ipv4, IpAddr::V4(_)) | (Family::Ipv6, IpAddr::V6(_)) => Some(local),
                (Family::Ipv4, _) if terms.extended_next_hop => Some(local),
                _ => settings.next_hop[family],
            };
            ip.map(NextHop::from)
        };
        let of = &self.neighbour;
        rib::Peer {
            client: of.reflector_client,
            import: of.import.clone(),
            export: of.export.clone(),
            next_hop: PerFamily::from_fn(own),
            next_hop_self: of.next_hop_self,
            keep_next_hop: of.keep_next_hop,
            own_as: of.own_as,
            max_prefixes: of.max_prefixes,
            ..rib::Peer::new(self.address)
        }
    }

    /// Its connection's address of ours and terms, while routes go.
    pub(super) fn terms(&self) -> Option<(IpAddr, &Negotiated)> {
        Some((self.links.get(self.up?)?.local, self.session.terms()?))
    }

    /// What its state is called (RFC 4273).
    pub(super) fn state(&self) -> &'static str {
        match self.session.state() {
            State::Idle => "idle",
            State::Connect => "connect",
            State::Active => "active",
            State::OpenSent => "openSent",
            State::OpenConfirm => "openConfirm",
            State::Established => "established",
        }
    }
}

/// The session's configuration. `restarted`: we have, and went on forwarding; `kept`: we went on forwarding.
pub(super) fn session(settings: &Settings, neighbour: &Neighbour, restarted: bool, kept: bool) -> Config {
    let mut config = Config::new(settings.local_as, settings.id, neighbour.peer_as);
    config.hold = neighbour.hold;
    config.passive = neighbour.passive || matches!(neighbour.remote, Remote::Prefix { .. });
    let capabilities = &mut config.capabilities;
    capabilities.families = Some(neighbour.families);
    capabilities.add_path = neighbour.add_path;
    let spoken = |family| neighbour.families[family];
    capabilities.graceful_restart = neighbour.graceful_restart.map(|time| GracefulRestart {
        restarted,
        notification: true,
        time: u16::try_from(time.as_secs()).unwrap_or(RESTART_TIME).min(RESTART_TIME),
        families: PerFamily::from_fn(|family| spoken(family).then_some(kept)),
    });
    if let (Some(_), Some(time)) = (neighbour.graceful_restart, neighbour.long_lived) {
        let time = u32::try_from(time.as_secs()).unwrap_or(STALE_TIME).min(STALE_TIME);
        capabilities.long_lived =
            PerFamily::from_fn(|family| spoken(family).then_some(LongLived { kept, time }));
    }
    config
}
