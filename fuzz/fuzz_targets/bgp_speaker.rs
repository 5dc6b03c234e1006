//! A whole speaker: sessions that are fed what peers may send, in any order and cut anywhere, the RIB behind them, and
//! what it tells its peers, which a speaker of the same kind must be able to read. Each peer ends up with what one
//! is told that comes afresh.
#![no_main]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use weft_bgp::message::{self, Action, Attributes, Message, Negotiated, NextHop, Nlri, Notification, Reason};
use weft_bgp::policy::Policy;
use weft_bgp::rib::{self, Peer, PeerId, Rib};
use weft_bgp::session::{Config, Event, INPUT, PeerAs, Session, Side};
use weft_bgp::{Family, PerFamily};

const OURS: u32 = 65000;
const PEERS: usize = 3;

struct Speaker {
    now: Duration,
    rib: Rib,
    sessions: Vec<(Session, PeerId)>,
    /// What each peer believes, and by which terms it reads.
    told: Vec<(Option<Negotiated>, BTreeMap<Nlri, Attributes>)>,
}

fn config(number: usize) -> Config {
    // The first two inside, the third outside.
    let (asn, peer_as) = if number < 2 { (OURS, PeerAs::Internal) } else { (OURS, PeerAs::External) };
    let config = Config::new(asn, Ipv4Addr::new(10, 0, 0, 100), peer_as);
    let mut config = config.with_graceful_restart(Duration::from_secs(60));
    config.capabilities.add_path =
        PerFamily::from_fn(|_| message::AddPath { receive: true, send: number == 1 });
    Config { passive: true, ..config }
}

impl Speaker {
    fn new() -> Speaker {
        let id = Ipv4Addr::new(10, 0, 0, 100);
        let config_of =
            rib::Config { asn: OURS, confederation: None, id, cluster: None, addresses: [id.into()].into() };
        let mut rib = Rib::new(config_of);
        let mut sessions = Vec::new();
        for number in 0..PEERS {
            let mut peer = Peer::new(IpAddr::from([10, 0, 0, number as u8 + 1]));
            peer.client = true;
            peer.import = Some(Arc::new(Policy::accept()));
            peer.export = peer.import.clone();
            peer.max_prefixes = PerFamily { ipv4: Some(50), ipv6: Some(50) };
            peer.next_hop.ipv4 = Some(NextHop::V4(id));
            let mut session = Session::new(config(number), number as u64);
            session.start(Duration::ZERO);
            sessions.push((session, rib.add_peer(peer)));
        }
        Speaker { now: Duration::ZERO, rib, sessions, told: vec![(None, BTreeMap::new()); PEERS] }
    }

    fn poll(&mut self, number: usize) {
        let (session, peer) = &mut self.sessions[number];
        let mut over = None;
        while let Some(event) = session.poll(self.now) {
            match event {
                Event::Up { terms, .. } => {
                    self.rib.up(*peer, &terms);
                    self.told[number] = (Some(*terms), BTreeMap::new());
                }
                Event::Down { kept, .. } => {
                    self.rib.down(*peer, kept);
                    self.told[number].0 = None;
                }
                Event::LongLived(family) => self.rib.long_lived(*peer, family),
                Event::Sweep(family) => self.rib.sweep(*peer, family),
                Event::Refresh(family, kind) => self.rib.handle_refresh(*peer, family, kind),
                Event::Update(update) => {
                    if let Err(error) = self.rib.handle_update(*peer, update) {
                        over = Some(error);
                    }
                }
                _ => {}
            }
        }
        if over.is_some() {
            session.stop(&Reason::MAX_PREFIXES.into(), self.now);
            self.poll(number);
        }
    }

    fn read(&mut self, number: usize) {
        let (terms, told) = &mut self.told[number];
        let Some(terms) = terms else { return };
        let terms = Negotiated { add_path_in: terms.add_path_out, ..terms.clone() };
        while let Some(bytes) = self.rib.poll_transmit(self.sessions[number].1) {
            let mut rest = &bytes[..];
            while let Some(frame) = message::frame(rest, terms.extended_messages).expect("our own message") {
                rest = &rest[frame.length()..];
                let Ok(Message::Update(update)) = Message::decode(&frame, Some(&terms)) else { continue };
                let bad = update.malformed.iter().any(|malformed| malformed.action == Action::Withdraw);
                assert!(!bad, "{:?}", update.malformed);
                for nlri in update.withdrawn().flat_map(|list| list.iter()) {
                    told.remove(&nlri);
                }
                for (attributes, list) in update.into_announced() {
                    told.extend(list.iter().map(|nlri| (nlri, attributes.clone())));
                }
            }
        }
    }

    fn settle(&mut self) {
        for number in 0..PEERS {
            self.poll(number);
        }
        while self.rib.flush(5).more {}
        for number in 0..PEERS {
            self.read(number);
        }
    }
}

/// What a peer that keeps to the rules would send next.
fn good(which: u8, rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let (number, kind) = (usize::from(which / 8) % PEERS, which % 8);
    let mut peer = config(number);
    peer.id = Ipv4Addr::new(10, 0, 0, number as u8 + 1);
    peer.local_as = if number == 2 { 65001 } else { OURS };
    let attribute = |at: usize| rest.get(at).copied().unwrap_or(1);
    let route = |out: &mut Vec<u8>, attributes: &Attributes, withdraw: bool| {
        let length = 8 + attribute(1) % 17;
        let prefix = format!("10.{}.0.0/{length}", attribute(0)).parse().expect("a prefix");
        let nlri = Nlri { prefix, path: u32::from(attribute(2) % 3) };
        let ours = &peer.capabilities;
        let open = message::Open { asn: OURS, hold: 90, id: peer.id, capabilities: ours.clone() };
        let mut terms = Negotiated::new(&open, &open, message::Relation::Internal);
        terms.four_octet_as = true;
        terms.add_path_out = PerFamily { ipv4: number == 1, ipv6: number == 1 };
        if withdraw {
            message::withdraw(out, &terms, Family::Ipv4, [nlri]);
        } else {
            let _ = message::announce(out, &terms, attributes, Family::Ipv4, [nlri]);
        }
    };
    let mut attributes = Attributes::new(NextHop::V4(Ipv4Addr::new(10, 0, 0, number as u8 + 1)));
    attributes.med = Some(attribute(3).into());
    if number == 2 {
        attributes.as_path = message::AsPath::sequence(&[65001, u32::from(attribute(4)) + 1]);
    } else {
        attributes.local_pref = Some(attribute(4).into());
    }
    match kind {
        0 | 1 => {
            let capabilities =
                message::Capabilities { four_octet_as: Some(peer.local_as), ..peer.capabilities };
            let open = message::Open { asn: peer.local_as, hold: 90, id: peer.id, capabilities };
            message::open(&mut out, &open);
            message::keepalive(&mut out);
        }
        2 => message::keepalive(&mut out),
        3 => message::refresh(&mut out, Family::Ipv4, message::RefreshKind::Request),
        4 => message::end_of_rib(&mut out, Family::Ipv4),
        5 => message::notification(&mut out, &Notification::from(Reason::ADMINISTRATIVE_RESET)),
        6 => route(&mut out, &attributes, true),
        _ => route(&mut out, &attributes, false),
    }
    out
}

fuzz_target!(|data: &[u8]| {
    let mut speaker = Speaker::new();
    let mut rest = data;
    // What happens, to whom, and five bytes more to say how.
    while let Some((&[what, whom, ref how @ ..], more)) = rest.split_first_chunk::<7>() {
        rest = more;
        let number = usize::from(whom) % PEERS;
        let now = speaker.now;
        let session = &mut speaker.sessions[number].0;
        match what % 16 {
            0 => {
                session.handle_connected(Side::Accepted, now);
            }
            1 => session.handle_closed(Side::Accepted, now),
            2 => {
                speaker.now += Duration::from_secs(how[0].into());
                let now = speaker.now;
                speaker.sessions.iter_mut().for_each(|(session, _)| session.handle_timeout(now));
            }
            3 => session.start(now),
            4 => {
                let taken = session.handle_bytes(Side::Accepted, how);
                assert!(taken <= INPUT);
            }
            5 => {
                // A good one, with a byte changed.
                let mut bytes = good(whom, how);
                let at = usize::from(how[0]) * 2 % bytes.len();
                bytes[at] ^= how[1];
                session.handle_bytes(Side::Accepted, &bytes);
            }
            6 => speaker.settle(),
            _ => {
                session.handle_bytes(Side::Accepted, &good(number as u8 * 8 + whom / 32, how));
            }
        }
        speaker.poll(number);
        while speaker.sessions[number].0.poll_transmit(Side::Accepted, speaker.now).is_some() {}
    }
    speaker.settle();
    for number in 0..PEERS {
        let Some(terms) = speaker.told[number].0.clone() else { continue };
        let before = std::mem::take(&mut speaker.told[number].1);
        speaker.rib.up(speaker.sessions[number].1, &terms);
        speaker.read(number);
        assert_eq!(before, speaker.told[number].1, "peer {number}");
    }
});
