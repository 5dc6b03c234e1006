//! Associations of SCTP as far as it takes to find an endpoint: INIT and INIT ACK (RFC 9260), made by hand and sent
//! through raw sockets. Few kernels have the protocol itself, and the packet filter translates it without.

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with};

use crate::scene::TARGET;

/// Kinds of chunks (section 3.2).
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
/// The parameter that an INIT ACK must have (section 3.3.3.1); here it says who answered.
const COOKIE: u16 = 7;
/// Where a chunk begins: after ports, tag and checksum.
const HEADER: usize = 12;
/// Where an INIT's parameters begin: after the chunk's header, tag, window, streams and first number.
const PARAMETERS: usize = HEADER + 20;
/// Longer than any packet of these.
const LONGEST: usize = 256;

/// Associations begun so far, by all tests: each has a port and a tag of its own, so that none is taken for an
/// older one of the same client.
static BEGUN: AtomicU32 = AtomicU32::new(0);

/// A packet with one INIT or INIT ACK.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Packet {
    /// Source and destination.
    ports: [u16; 2],
    kind: u8,
    /// What the receiver chose to know its packets by; none in an INIT.
    tag: u32,
    /// What the sender chose.
    own: u32,
    cookie: Option<String>,
}

impl Packet {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.ports.iter().flat_map(|port| port.to_be_bytes()).collect();
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend([self.kind, 0, 0, 0]);
        bytes.extend(self.own.to_be_bytes());
        // Window, streams out and in, first number.
        bytes.extend([0, 0, 0xff, 0xff, 0, 10, 0, 10, 0, 0, 0, 1]);
        if let Some(cookie) = &self.cookie {
            bytes.extend(COOKIE.to_be_bytes());
            bytes.extend((4 + cookie.len() as u16).to_be_bytes());
            bytes.extend(cookie.as_bytes());
        }
        // Lengths are without what fills up to four bytes.
        let length = (bytes.len() - HEADER) as u16;
        bytes[HEADER + 2..HEADER + 4].copy_from_slice(&length.to_be_bytes());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let sum = crc32c(&bytes);
        bytes[8..HEADER].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads one, and whether its checksum is right.
    fn read(bytes: &[u8]) -> Option<(Packet, bool)> {
        let short = |at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        let long = |at: usize| Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        let cookie = if short(PARAMETERS) == Some(COOKIE) {
            let end = PARAMETERS + usize::from(short(PARAMETERS + 2)?);
            Some(String::from_utf8_lossy(bytes.get(PARAMETERS + 4..end)?).into_owned())
        } else {
            None
        };
        let packet = Packet {
            ports: [short(0)?, short(2)?],
            kind: *bytes.get(HEADER)?,
            tag: long(4)?,
            own: long(HEADER + 4)?,
            cookie,
        };
        let mut unsummed = bytes.to_vec();
        unsummed[8..HEADER].fill(0);
        Some((packet, long(8)?.swap_bytes() == crc32c(&unsummed)))
    }
}

/// The checksum of SCTP (RFC 9260 appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _| if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 };
    !bytes.iter().fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
}

/// A raw socket has no ports, but is else sent to and received from as one for datagrams.
fn raw(from: IpAddr) -> std::io::Result<UdpSocket> {
    let family = if from.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let made = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::SCTP))?;
    bind(&made, &SocketAddr::new(from, 0))?;
    Ok(made.into())
}

/// What IP carries: of IPv4 raw sockets give the header too.
fn carried(bytes: &[u8], ipv6: bool) -> &[u8] {
    let header = if ipv6 { 0 } else { usize::from(bytes.first().unwrap_or(&0) & 15) * 4 };
    bytes.get(header..).unwrap_or_default()
}

/// Sends an INIT, and reads what the INIT ACK says.
pub(crate) fn ask(from: Option<IpAddr>, to: SocketAddr, patience: Duration) -> std::io::Result<String> {
    let any = if to.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let socket = raw(from.unwrap_or(any))?;
    // Connected, it hears of its peer alone, and of what ICMP says about that.
    socket.connect((to.ip(), 0))?;
    socket.set_read_timeout(Some(patience))?;
    let number = BEGUN.fetch_add(1, Ordering::Relaxed);
    let (port, own) = (1024 + (number % 64_000) as u16, number + 1);
    let init = Packet { ports: [port, to.port()], kind: INIT, tag: 0, own, cookie: None };
    socket.send(&init.bytes())?;
    let mut buffer = [0; LONGEST];
    loop {
        let length = socket.recv(&mut buffer)?;
        let Some((answer, whole)) = Packet::read(carried(&buffer[..length], to.is_ipv6())) else { continue };
        if answer.kind != INIT_ACK || answer.ports[1] != port {
            continue;
        }
        if !whole || answer.ports[0] != to.port() || answer.tag != own {
            return Err(Error::new(ErrorKind::InvalidData, format!("to {init:?} came {answer:?}, {whole}")));
        }
        return Ok(answer.cookie.unwrap_or_default());
    }
}

/// Where an endpoint hears of associations of a family.
pub(crate) fn listen(ipv6: bool) -> UdpSocket {
    raw(if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }).unwrap()
}

/// Answers what came there, if it begins an association, with what is told to its client.
pub(crate) fn answer(socket: &UdpSocket, told: impl Fn(IpAddr) -> String) -> std::io::Result<()> {
    let mut buffer = [0; LONGEST];
    let (length, client) = socket.recv_from(&mut buffer)?;
    let Some((init, whole)) = Packet::read(carried(&buffer[..length], client.is_ipv6())) else {
        return Ok(());
    };
    if init.kind != INIT || init.ports[1] != TARGET {
        return Ok(());
    }
    let cookie = if whole { told(client.ip()) } else { "the checksum is wrong".to_owned() };
    let [port, own_port] = init.ports;
    let answer = Packet {
        ports: [own_port, port],
        kind: INIT_ACK,
        tag: init.own,
        own: !init.own,
        cookie: Some(cookie),
    };
    socket.send_to(&answer.bytes(), SocketAddr::new(client.ip(), 0)).map(|_| ())
}

#[test]
fn a_packet_is_read_as_it_was_made_and_its_checksum_guards_it() {
    // The value that catalogues of checksums give for CRC-32C.
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    for cookie in [None, Some("a 10.244.0.10".to_owned()), Some("fd00::1".to_owned())] {
        let packet = Packet { ports: [1024, TARGET], kind: INIT_ACK, tag: 7, own: 8, cookie };
        let bytes = packet.bytes();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(Packet::read(&bytes), Some((packet, true)));
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 0x10;
            assert!(Packet::read(&other).is_none_or(|(_, whole)| !whole), "byte {at}");
        }
    }
    assert_eq!(Packet::read(&[0; HEADER + 7]), None);
}
