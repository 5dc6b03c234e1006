use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, sockopt};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// What a raw socket may hold until it is read, in bytes.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Bytes of the echo header; our own eight of token and four of number follow.
const HEADER: usize = 8;
const LENGTH: usize = HEADER + 12;

/// Sends echo requests and sees them arrive: a raw socket in the target's namespace gets each
/// request as the kernel there does, so the source address is observed and not concluded.
pub(super) struct Icmp {
    token: [u8; 8],
    shared: Arc<Mutex<Shared>>,
    sockets: HashMap<(usize, bool), Arc<AsyncFd<OwnedFd>>>,
    readers: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    next: u32,
    waiting: HashMap<u32, Waiting>,
}

struct Waiting {
    /// Spaces of sender and target.
    between: (usize, usize),
    source: Option<IpAddr>,
    replied: bool,
    done: Option<oneshot::Sender<()>>,
}

/// One echo under way; forgotten when dropped.
pub(super) struct Echo {
    number: u32,
    shared: Arc<Mutex<Shared>>,
    done: oneshot::Receiver<()>,
}

impl Icmp {
    pub(super) fn new(token: u64) -> Self {
        let sockets = HashMap::new();
        Icmp { token: token.to_be_bytes(), shared: Arc::default(), sockets, readers: JoinSet::new() }
    }

    /// Opens the sockets of one space; the calling thread is in its namespace.
    pub(super) fn open(&mut self, space: usize) -> io::Result<()> {
        for (v6, family, protocol) in
            [(false, AddressFamily::INET, ipproto::ICMP), (true, AddressFamily::INET6, ipproto::ICMPV6)]
        {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = match rustix::net::socket_with(family, SocketType::RAW, flags, Some(protocol)) {
                // A kernel without IPv6 still checks IPv4.
                Err(rustix::io::Errno::AFNOSUPPORT) if v6 => continue,
                socket => socket?,
            };
            sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)?;
            #[expect(
                deprecated,
                reason = "an OwnedFd keeps its descriptor, which is all the unsafe form asks for"
            )]
            let socket = Arc::new(AsyncFd::new(socket)?);
            self.sockets.insert((space, v6), socket.clone());
            self.readers.spawn(read(socket, space, v6, self.token, self.shared.clone()));
        }
        Ok(())
    }

    /// Sends one echo request from one space to `to`, which is in another or the same.
    pub(super) fn send(&self, from: usize, target: usize, to: IpAddr) -> io::Result<Echo> {
        let missing = || io::Error::new(io::ErrorKind::Unsupported, "no raw socket for this family");
        let socket = self.sockets.get(&(from, to.is_ipv6())).ok_or_else(missing)?;
        let (done, receiver) = oneshot::channel();
        let mut shared = lock(&self.shared);
        shared.next += 1;
        let number = shared.next;
        let waiting = Waiting { between: (from, target), source: None, replied: false, done: Some(done) };
        shared.waiting.insert(number, waiting);
        drop(shared);
        let echo = Echo { number, shared: self.shared.clone(), done: receiver };
        let packet = request(number, self.token, to.is_ipv6());
        rustix::net::sendto(socket.get_ref(), &packet, SendFlags::empty(), &SocketAddr::new(to, 0))?;
        Ok(echo)
    }
}

impl Echo {
    /// Waits until the request was seen and its reply has come.
    pub(super) async fn answered(&mut self) {
        let _ = (&mut self.done).await;
    }

    /// The source address with which the target saw the request, if it saw it.
    pub(super) fn source(&self) -> Option<IpAddr> {
        lock(&self.shared).waiting.get(&self.number).and_then(|waiting| waiting.source)
    }

    /// Whether the reply has come.
    pub(super) fn replied(&self) -> bool {
        lock(&self.shared).waiting.get(&self.number).is_some_and(|waiting| waiting.replied)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        lock(&self.shared).waiting.remove(&self.number);
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn request(number: u32, token: [u8; 8], v6: bool) -> [u8; LENGTH] {
    let mut packet = [0; LENGTH];
    packet[0] = if v6 { 128 } else { 8 };
    // A masquerading node may change the identifier: what tells probes apart is the payload.
    packet[4..6].copy_from_slice(&(number as u16).to_be_bytes());
    packet[6..8].copy_from_slice(&((number >> 16) as u16).to_be_bytes());
    packet[HEADER..HEADER + 8].copy_from_slice(&token);
    packet[HEADER + 8..].copy_from_slice(&number.to_be_bytes());
    if !v6 {
        // The kernel fills in the checksum of ICMPv6 only.
        let checksum = checksum(&packet);
        packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    packet
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Request(u32),
    Reply(u32),
}

/// Our own echo in what a raw socket delivers: for IPv4 the IP header comes first.
fn decode(bytes: &[u8], token: [u8; 8], v6: bool) -> Option<Seen> {
    let start = if v6 { 0 } else { usize::from(bytes.first()? & 0x0f) * 4 };
    let icmp = bytes.get(start..start + LENGTH)?;
    if icmp[HEADER..HEADER + 8] != token {
        return None;
    }
    let number = u32::from_be_bytes(icmp[HEADER + 8..].try_into().ok()?);
    match (icmp[0], v6) {
        (8, false) | (128, true) => Some(Seen::Request(number)),
        (0, false) | (129, true) => Some(Seen::Reply(number)),
        _ => None,
    }
}

async fn read(
    socket: Arc<AsyncFd<OwnedFd>>,
    space: usize,
    v6: bool,
    token: [u8; 8],
    shared: Arc<Mutex<Shared>>,
) {
    let mut buffer = [0; 256];
    loop {
        let Ok(mut ready) = socket.readable().await else { return };
        let received = ready.try_io(|socket| {
            Ok(rustix::net::recvfrom(socket.get_ref(), buffer.as_mut_slice(), RecvFlags::empty())?)
        });
        let Ok(Ok((_, length, Some(source)))) = received else { continue };
        let Ok(source) = SocketAddr::try_from(source) else { continue };
        if let Some(seen) = buffer.get(..length).and_then(|bytes| decode(bytes, token, v6)) {
            note(&mut lock(&shared), space, seen, source.ip());
        }
    }
}

fn note(shared: &mut Shared, space: usize, seen: Seen, source: IpAddr) {
    let (Seen::Request(number) | Seen::Reply(number)) = seen;
    let Some(waiting) = shared.waiting.get_mut(&number) else { return };
    match seen {
        Seen::Request(_) if space == waiting.between.1 => waiting.source = Some(source),
        Seen::Reply(_) if space == waiting.between.0 => waiting.replied = true,
        _ => {}
    }
    if waiting.replied
        && waiting.source.is_some()
        && let Some(done) = waiting.done.take()
    {
        let _ = done.send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_is_known_again_by_its_payload_even_when_nat_changed_its_identifier() {
        let token = [7; 8];
        let mut packet = request(70_000, token, false);
        assert_eq!(checksum(&packet), 0);
        packet[4] ^= 0xff;
        let mut received = vec![0x45; 20];
        received.extend_from_slice(&packet);
        assert_eq!(decode(&received, token, false), Some(Seen::Request(70_000)));
        received[20] = 0;
        assert_eq!(decode(&received, token, false), Some(Seen::Reply(70_000)));
        assert_eq!(decode(&received, [8; 8], false), None);
        assert_eq!(decode(&received[..30], token, false), None);
        assert_eq!(decode(&request(1, token, true), token, true), Some(Seen::Request(1)));
    }

    #[test]
    fn an_echo_is_done_when_seen_by_its_target_and_answered_to_its_sender() {
        let (done, mut receiver) = oneshot::channel();
        let mut shared = Shared::default();
        let waiting = Waiting { between: (1, 2), source: None, replied: false, done: Some(done) };
        shared.waiting.insert(5, waiting);
        let at = |text: &str| text.parse().unwrap();
        note(&mut shared, 1, Seen::Request(5), at("10.0.0.9"));
        note(&mut shared, 1, Seen::Reply(5), at("10.0.0.2"));
        assert!(receiver.try_recv().is_err());
        note(&mut shared, 2, Seen::Request(5), at("10.0.0.1"));
        assert!(receiver.try_recv().is_ok());
        assert_eq!(shared.waiting[&5].source, Some(at("10.0.0.1")));
    }
}
