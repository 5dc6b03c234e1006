//! The IPv4 client of an attachment with its sockets.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use weft_ipam::dhcp::v4::{CLIENT_PORT, Client, Event, Lease, SERVER_PORT, Transmit};
use weft_ipam::dhcp::wire;
use weft_kernel::{PacketFilter, PacketSocket};
use weft_model::Mac;

use crate::ipam::dhcp::daemon::place::{Place, PlaceError};

const EVERYBODY: Mac = Mac([0xff; 6]);
/// How long after a message its answer is waited for with a socket, which keeps the namespace.
const LISTENING: Duration = Duration::from_secs(10);
const LARGEST: usize = 2048;
/// How much is read at a time: a flood is to leave time for other pods.
const AT_A_TIME: u32 = 64;

/// A client and its sockets, which are open during an exchange only.
#[derive(Debug)]
pub(crate) struct V4 {
    pub(crate) client: Client,
    /// Why there is no lease yet, as far as it is known.
    pub(crate) fault: Option<String>,
    udp: Option<PacketSocket>,
    arp: Option<PacketSocket>,
    /// Takes answers that are sent to the leased address, lest the kernel refuse them.
    unicast: Option<UdpSocket>,
    until: Duration,
}

impl V4 {
    pub(crate) fn new(client: Client) -> V4 {
        V4 { client, fault: None, udp: None, arp: None, unicast: None, until: Duration::ZERO }
    }

    pub(crate) fn lease(&self) -> Option<&Lease> {
        self.client.lease()
    }

    /// Lets time pass: sends what is due. Answers what has happened.
    pub(crate) fn drive(&mut self, place: &Place, now: Duration) -> Result<Vec<Event>, PlaceError> {
        self.client.handle_timeout(now);
        while let Some(transmit) = self.client.poll_transmit() {
            // What cannot be sent now is sent again later.
            match self.send(place, &transmit) {
                Err(PlaceError::Gone) => return Err(PlaceError::Gone),
                Err(error) => self.fault = Some(error.to_string()),
                Ok(()) => self.until = now + LISTENING,
            }
        }
        let events = std::iter::from_fn(|| self.client.poll_event()).collect();
        if !self.client.listens() || now >= self.until {
            (self.udp, self.arp, self.unicast) = (None, None, None);
        }
        Ok(events)
    }

    /// When [`V4::drive`] is to be called.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        let open = self.udp.as_ref().map(|_| self.until);
        self.client.poll_timeout().into_iter().chain(open).min()
    }

    /// What is to be polled.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [&self.udp, &self.arp].into_iter().flatten().map(AsFd::as_fd)
    }

    /// Takes in what the sockets have.
    pub(crate) fn receive(&mut self, place: &Place, now: Duration) {
        let mut buffer = [0; LARGEST];
        for _ in 0..AT_A_TIME {
            let Some(got) = self.udp.as_ref().and_then(|udp| udp.receive(&mut buffer).ok()) else { break };
            let datagram = wire::datagram(&buffer[..got.length], got.summed);
            if let Some(datagram) = datagram.filter(|d| d.port == CLIENT_PORT && d.source_port == SERVER_PORT)
            {
                self.client.handle_message(datagram.payload, now);
            }
        }
        for _ in 0..AT_A_TIME {
            let Some(got) = self.arp.as_ref().and_then(|arp| arp.receive(&mut buffer).ok()) else { break };
            let Some(address) = self.client.lease().map(|lease| lease.address.addr()) else { break };
            if wire::arp_conflict(&buffer[..got.length], place.mac(), address) {
                self.client.handle_conflict(now);
            }
        }
    }

    fn send(&mut self, place: &Place, transmit: &Transmit) -> Result<(), PlaceError> {
        match transmit {
            Transmit::Broadcast { from, message } => {
                self.broadcast(place, *from, Ipv4Addr::BROADCAST, message)
            }
            Transmit::Unicast { from, to, message } => {
                self.open(place)?;
                let bound = place.inside(|_| Ok(UdpSocket::bind((*from, CLIENT_PORT))))?;
                let sent = bound.and_then(|socket| {
                    socket.set_nonblocking(true)?;
                    socket.send_to(message, SocketAddr::from((*to, SERVER_PORT)))?;
                    Ok(socket)
                });
                // The address is not on the interface, or the port is taken: without routing. A farewell
                // goes this way as well, since the interface may be gone before a neighbour is found.
                let parting = !self.client.listens();
                if sent.is_err() || parting {
                    self.broadcast(place, *from, *to, message)?;
                }
                self.unicast = sent.ok();
                Ok(())
            }
            Transmit::Probe(address) => {
                if self.arp.is_none() {
                    let open = |_: &mut _| PacketSocket::open(place.ifindex(), PacketFilter::Arp);
                    self.arp = Some(place.inside(open)?);
                }
                let probe = wire::arp_probe(place.mac(), *address);
                deliver(self.arp.as_ref(), &probe)
            }
        }
    }

    fn broadcast(
        &mut self,
        place: &Place,
        from: Ipv4Addr,
        to: Ipv4Addr,
        message: &[u8],
    ) -> Result<(), PlaceError> {
        self.open(place)?;
        let packet = wire::udp((from, CLIENT_PORT), (to, SERVER_PORT), message).unwrap_or_default();
        deliver(self.udp.as_ref(), &packet)
    }

    fn open(&mut self, place: &Place) -> Result<(), PlaceError> {
        if self.udp.is_none() {
            let filter = PacketFilter::Udp { port: CLIENT_PORT };
            self.udp = Some(place.inside(|_| PacketSocket::open(place.ifindex(), filter))?);
        }
        Ok(())
    }
}

fn deliver(socket: Option<&PacketSocket>, packet: &[u8]) -> Result<(), PlaceError> {
    let sent = socket.map_or(Ok(()), |socket| socket.send(EVERYBODY, packet));
    sent.map_err(|error: io::Error| weft_kernel::Error::sys("send", "a DHCP message", error).into())
}
