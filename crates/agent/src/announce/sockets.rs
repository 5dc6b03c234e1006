//! The packets of one link: what neighbours ask and claim, and what nodes say.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use tokio::io::unix::AsyncFd;
use weft_announce::arp::Arp;
use weft_announce::{Beat, beat, datagram, ndp};
use weft_kernel::{PacketFilter, PacketSocket, Received};
use weft_model::Mac;

use super::link::Announcing;

/// More packets than these are not read at a time, so that a flood of one kind holds up no other.
const AT_ONCE: usize = 256;
const EVERYBODY: Mac = Mac([0xff; 6]);

/// Which socket a packet came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Beats,
    Arp,
    Neighbours,
}

/// The sockets of a link.
pub(super) struct Sockets {
    link: Announcing,
    all: Vec<(Kind, PacketSocket, AsyncFd<OwnedFd>)>,
    /// They have the kernel ask for the groups that beats come to.
    _members: Vec<UdpSocket>,
    /// The same for the groups in which neighbours ask for an address, several a socket.
    groups: BTreeMap<Ipv6Addr, (Arc<UdpSocket>, usize)>,
}

impl Sockets {
    /// Opens them in the calling thread's network namespace.
    pub(super) fn open(link: &Announcing) -> anyhow::Result<Sockets> {
        let mut sockets =
            Sockets { link: link.clone(), all: Vec::new(), _members: Vec::new(), groups: BTreeMap::new() };
        sockets.add(Kind::Arp, PacketFilter::Arp)?;
        for source in &link.sources {
            match source {
                IpAddr::V4(ip) => {
                    sockets.add(Kind::Beats, PacketFilter::Udp { port: beat::PORT })?;
                    let member = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                    member.join_multicast_v4(&beat::GROUP_V4, ip)?;
                    sockets._members.push(member);
                }
                IpAddr::V6(_) => {
                    sockets.add(Kind::Beats, PacketFilter::Udp6 { port: beat::PORT })?;
                    let member = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
                    member.join_multicast_v6(&beat::GROUP_V6, link.index)?;
                    sockets._members.push(member);
                }
            }
        }
        sockets.add(Kind::Neighbours, PacketFilter::Neighbours)?;
        Ok(sockets)
    }

    /// Whether these are what would be opened for `link` now.
    pub(super) fn are_of(&self, link: &Announcing) -> bool {
        let known = &self.link;
        (known.index, known.mac, &known.sources) == (link.index, link.mac, &link.sources)
    }

    fn add(&mut self, kind: Kind, filter: PacketFilter) -> anyhow::Result<()> {
        let socket = PacketSocket::open(self.link.index, filter)?;
        let fd = socket.as_fd().try_clone_to_owned()?;
        #[expect(deprecated, reason = "its successor is unsafe to call; an OwnedFd keeps to its terms")]
        let wait = AsyncFd::new(fd)?;
        self.all.push((kind, socket, wait));
        Ok(())
    }

    /// Waits until something can be read. Cancel safe.
    pub(super) async fn ready(&self) {
        let waits = self.all.iter().map(|(_, _, wait)| {
            Box::pin(async {
                if let Ok(mut guard) = wait.readable().await {
                    guard.clear_ready();
                }
            })
        });
        futures_util::future::select_all(waits).await;
    }

    /// Gives what came in of this kind to `take`. Says whether more may wait.
    pub(super) fn drain(&self, kind: Kind, mut take: impl FnMut(&[u8], &Received)) -> bool {
        let mut buffer = [0; 2048];
        let mut more = false;
        for (_, socket, _) in self.all.iter().filter(|(of, ..)| *of == kind) {
            let mut left = AT_ONCE;
            while left > 0 {
                match socket.receive(&mut buffer) {
                    Ok(received) => take(&buffer[..received.length.min(buffer.len())], &received),
                    // What a link that went down says of itself is no packet.
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => {}
                    Err(_) => break,
                }
                left -= 1;
            }
            more |= left == 0;
        }
        more
    }

    /// Says something to the segment's nodes.
    pub(super) fn say(&self, beat: &Beat) -> io::Result<()> {
        let Some(from) = self.link.sources.first().copied() else { return Ok(()) };
        let (to, mac) = match from {
            IpAddr::V4(_) => {
                let [_, b, c, d] = beat::GROUP_V4.octets();
                (IpAddr::from(beat::GROUP_V4), Mac([1, 0, 0x5e, b & 0x7f, c, d]))
            }
            IpAddr::V6(_) => (beat::GROUP_V6.into(), ndp::group_mac(beat::GROUP_V6)),
        };
        let socket = self.all.iter().find(|(kind, ..)| *kind == Kind::Beats);
        let Some((_, socket, _)) = socket else { return Ok(()) };
        for payload in beat.encode() {
            if let Some(packet) = datagram::encode(from, to, beat::PORT, &payload) {
                socket.send(mac, &packet)?;
            }
        }
        Ok(())
    }

    /// Tells everybody on the segment that `address` is here.
    pub(super) fn announce(&self, address: IpAddr) -> io::Result<()> {
        match address {
            IpAddr::V4(ip) => {
                for arp in Arp::announcements(ip, self.link.mac) {
                    self.send(Kind::Arp, EVERYBODY, &arp.encode())?;
                }
                Ok(())
            }
            IpAddr::V6(ip) => {
                let packet = ndp::advertisement(ip, self.link.mac, None);
                self.send(Kind::Neighbours, ndp::group_mac(ndp::ALL_NODES), &packet)
            }
        }
    }

    /// Answers one neighbour that asked.
    pub(super) fn send(&self, kind: Kind, to: Mac, packet: &[u8]) -> io::Result<()> {
        match self.all.iter().find(|(of, ..)| *of == kind) {
            Some((_, socket, _)) => socket.send(to, packet),
            None => Ok(()),
        }
    }

    /// Asks the segment for what neighbours say to the group of `address`; tells switches so too (MLD).
    pub(super) fn join(&mut self, address: Ipv6Addr) -> io::Result<()> {
        let group = ndp::group(address);
        if let Some((_, count)) = self.groups.get_mut(&group) {
            *count += 1;
            return Ok(());
        }
        let last = self.groups.values().next_back().map(|(socket, _)| socket.clone());
        let joined = |socket: &UdpSocket| socket.join_multicast_v6(&group, self.link.index);
        let socket = match last.filter(|socket| joined(socket).is_ok()) {
            Some(socket) => socket,
            // A socket has room for some dozens.
            None => {
                let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
                joined(&socket)?;
                Arc::new(socket)
            }
        };
        self.groups.insert(group, (socket, 1));
        Ok(())
    }

    /// The opposite of [`join`](Self::join).
    pub(super) fn leave(&mut self, address: Ipv6Addr) {
        let group = ndp::group(address);
        let Some((socket, count)) = self.groups.get_mut(&group) else { return };
        *count -= 1;
        if *count == 0 {
            let _ = socket.leave_multicast_v6(&group, self.link.index);
            self.groups.remove(&group);
        }
    }
}
