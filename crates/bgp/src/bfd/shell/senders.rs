//! A socket for each session, with a port of its own (RFC 5881 4).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;
use weft_kernel::HopSender;

use super::super::{Key, Outgoing, PORT, Sessions};

/// Ports that packets may come from.
const PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;
/// So many ports are tried at once, where others have some.
const TRIES: usize = 64;

#[derive(Debug)]
struct Sender {
    port: u16,
    interface: Option<std::sync::Arc<str>>,
    /// Missing while the interface or the address is.
    socket: Option<HopSender>,
}

#[derive(Debug)]
pub(super) struct Senders {
    /// By the session's discriminator.
    by_session: BTreeMap<u32, Sender>,
    used: BTreeSet<u16>,
    next: u16,
}

impl Senders {
    /// None; the first port is one that `seed` gives.
    pub(super) fn new(seed: u64) -> Senders {
        let next = PORTS.start() + (seed % 16_384) as u16;
        Senders { by_session: BTreeMap::new(), used: BTreeSet::new(), next }
    }

    /// Sends a packet. What cannot be sent is lost, as by the network.
    pub(super) fn send(&mut self, out: &Outgoing, sessions: &Sessions) {
        if let Some(key) = sessions.key(out.session) {
            self.open(out.session, key);
        }
        let Some(sender) = self.by_session.get_mut(&out.session) else { return };
        let Some(socket) = &sender.socket else { return };
        let sent = socket.send(&out.packet, SocketAddr::new(out.peer, PORT));
        // That nobody listens, or that there is no room, says nothing about the socket.
        let harmless = [Errno::CONNREFUSED, Errno::AGAIN, Errno::NOBUFS];
        if sent.is_err_and(|error| {
            !harmless.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
        }) {
            sender.socket = None;
        }
    }

    fn open(&mut self, session: u32, key: &Key) {
        if self.by_session.get(&session).is_some_and(|sender| sender.socket.is_some()) {
            return;
        }
        let any: IpAddr =
            if key.peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let local = key.local.unwrap_or(any);
        let bind = |port| HopSender::open(SocketAddr::new(local, port), key.interface.as_deref()).ok();
        if let Some(sender) = self.by_session.get_mut(&session) {
            sender.socket = bind(sender.port);
            return;
        }
        for _ in 0..TRIES {
            let port = self.next;
            self.next = if port == *PORTS.end() { *PORTS.start() } else { port + 1 };
            if self.used.contains(&port) {
                continue;
            }
            if let Some(socket) = bind(port) {
                self.used.insert(port);
                let interface = key.interface.clone();
                self.by_session.insert(session, Sender { port, interface, socket: Some(socket) });
                return;
            }
        }
    }

    /// An interface is gone, or another one of its name is there.
    pub(super) fn forget_interface(&mut self, name: &str) {
        for sender in self.by_session.values_mut() {
            if sender.interface.as_deref() == Some(name) {
                sender.socket = None;
            }
        }
    }

    /// Closes those of sessions that are there no more.
    pub(super) fn keep(&mut self, sessions: &Sessions) {
        if self.by_session.len() > sessions.len() {
            self.by_session.retain(|session, _| sessions.key(*session).is_some());
            self.used = self.by_session.values().map(|sender| sender.port).collect();
        }
    }
}
