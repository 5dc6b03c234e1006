//! The IPv6 client of an attachment with its socket.

use std::net::{SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use weft_ipam::dhcp::Settings;
use weft_ipam::dhcp::v6::{CLIENT_PORT, Client, Event, Lease, Options, SERVER_PORT, SERVERS};

use crate::ipam::dhcp::daemon::place::{Place, PlaceError, link_local};

/// How long after a message its answer is waited for with a socket, which keeps the namespace.
const LISTENING: Duration = Duration::from_secs(10);
/// Between looks whether the link-local address can be used.
const PAUSE: Duration = Duration::from_millis(100);
/// When the kernel's duplicate address detection has ended at the latest: the default is one
/// probe, a second, and up to a second before.
const DETECTION: Duration = Duration::from_secs(3);
const LARGEST: usize = 4096;
const AT_A_TIME: u32 = 64;

/// A client and its socket, which is open during an exchange only.
#[derive(Debug)]
pub(crate) struct V6 {
    pub(crate) client: Client,
    /// Why there is no lease yet, as far as it is known.
    pub(crate) fault: Option<String>,
    /// The answer of a client that asks for settings alone.
    pub(crate) informed: Option<Options>,
    socket: Option<UdpSocket>,
    /// What waits until the link-local address can be used, and when that is looked at.
    waiting: Vec<Vec<u8>>,
    looking: Duration,
    /// When the address is looked at once more.
    detection: Option<Duration>,
    until: Duration,
}

impl V6 {
    pub(crate) fn new(client: Client) -> V6 {
        V6 {
            client,
            fault: None,
            informed: None,
            socket: None,
            waiting: Vec::new(),
            looking: Duration::ZERO,
            detection: None,
            until: Duration::ZERO,
        }
    }

    pub(crate) fn lease(&self) -> Option<&Lease> {
        self.client.lease()
    }

    /// What the server says about the network.
    pub(crate) fn settings(&self) -> Option<Settings> {
        let informed = self.informed.as_ref().map(Lease::settings_of);
        self.lease().map(Lease::settings).or(informed)
    }

    /// The address is on the interface, where the kernel probes for it.
    pub(crate) fn begin_detection(&mut self, now: Duration) {
        self.detection = Some(now + DETECTION);
    }

    /// Lets time pass: sends what is due. Answers what has happened.
    pub(crate) fn drive(&mut self, place: &Place, now: Duration) -> Result<Vec<Event>, PlaceError> {
        if self.detection.is_some_and(|at| at <= now) {
            self.detection = None;
            let address = self.lease().map(|lease| lease.address);
            if address.map(|address| place.is_duplicate(address)).transpose()?.unwrap_or(false) {
                self.client.handle_conflict(now);
            }
        }
        self.client.handle_timeout(now);
        let fresh: Vec<Vec<u8>> = std::iter::from_fn(|| self.client.poll_transmit()).map(|t| t.0).collect();
        if !fresh.is_empty() {
            (self.waiting, self.looking) = (fresh, now);
        }
        while self.looking <= now && !self.waiting.is_empty() {
            let message = self.waiting.remove(0);
            match self.send(place, &message) {
                Err(PlaceError::Gone) => return Err(PlaceError::Gone),
                Ok(true) => self.until = now + LISTENING,
                Ok(false) => {
                    self.fault = Some("its interface has no link-local IPv6 address yet".to_owned());
                    self.waiting.insert(0, message);
                    self.looking = now + PAUSE;
                }
                // What cannot be sent now is sent again later.
                Err(error) => self.fault = Some(error.to_string()),
            }
        }
        let events = std::iter::from_fn(|| self.client.poll_event()).collect();
        if !self.client.listens() || now >= self.until {
            self.socket = None;
        }
        Ok(events)
    }

    /// When [`V6::drive`] is to be called.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        let open = self.socket.as_ref().map(|_| self.until);
        let waiting = (!self.waiting.is_empty()).then_some(self.looking);
        self.client.poll_timeout().into_iter().chain(open).chain(waiting).chain(self.detection).min()
    }

    /// What is to be polled.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.socket.iter().map(AsFd::as_fd)
    }

    /// Takes in what the socket has.
    pub(crate) fn receive(&mut self, now: Duration) {
        let mut buffer = [0; LARGEST];
        for _ in 0..AT_A_TIME {
            let Some((length, _)) =
                self.socket.as_ref().and_then(|socket| socket.recv_from(&mut buffer).ok())
            else {
                break;
            };
            self.client.handle_message(&buffer[..length], now);
        }
    }

    /// Whether there was an address to send from.
    fn send(&mut self, place: &Place, message: &[u8]) -> Result<bool, PlaceError> {
        let index = place.ifindex();
        if self.socket.is_none() {
            let opened = place.inside(|netlink| {
                let Some(address) = link_local(netlink, index)? else { return Ok(None) };
                let bound = UdpSocket::bind(SocketAddrV6::new(address, CLIENT_PORT, 0, index));
                let failed =
                    |error| weft_kernel::Error::sys("bind to", format!("[{address}]:{CLIENT_PORT}"), error);
                bound.and_then(|socket| socket.set_nonblocking(true).map(|()| Some(socket))).map_err(failed)
            })?;
            self.socket = opened;
        }
        let Some(socket) = &self.socket else { return Ok(false) };
        let to = SocketAddrV6::new(SERVERS, SERVER_PORT, 0, index);
        let failed = |error| weft_kernel::Error::sys("send", "a DHCPv6 message", error);
        socket.send_to(message, to).map_err(failed)?;
        Ok(true)
    }
}
