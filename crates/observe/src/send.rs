//! Sends the probe, once, from inside the source namespace.

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use rustix::net::{self, AddressFamily, SocketFlags, SocketType, ipproto};

use crate::probe::{MAGIC, Probe, Signature};
use crate::report::Protocol;

/// The socket the probe left by; kept open until the trace ends, so that the answer is wanted.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) signature: Signature,
    /// What the kernel said at once, if it refused.
    pub(crate) error: Option<io::Error>,
    _socket: OwnedFd,
}

pub(crate) fn send(probe: &Probe) -> io::Result<Sent> {
    let mut random = [0; MAGIC + 2];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let [id_high, id_low, magic @ ..] = random;
    let id = u16::from_be_bytes([id_high, id_low]);
    let (socket, sport, sent) = match probe.proto {
        Protocol::Icmp => echo(probe, id, &magic)?,
        Protocol::Udp => datagram(probe, &magic)?,
        Protocol::Tcp => connection(probe)?,
    };
    let dport = if probe.proto == Protocol::Icmp { 0 } else { probe.port };
    let signature = Signature { proto: probe.proto, magic, sport, dport, dst: probe.dst, tcp_seq: None };
    Ok(Sent { signature, error: sent.err(), _socket: socket })
}

type Attempt = (OwnedFd, u16, io::Result<()>);

fn echo(probe: &Probe, id: u16, magic: &[u8]) -> io::Result<Attempt> {
    let protocol = if probe.dst.is_ipv4() { ipproto::ICMP } else { ipproto::ICMPV6 };
    let socket = open(probe, SocketType::RAW, Some(protocol))?;
    if let Some(src) = probe.src {
        net::bind(&socket, &SocketAddr::new(src, 0))?;
    }
    let kind = if probe.dst.is_ipv4() { 8 } else { 128 };
    let mut message = vec![kind, 0, 0, 0];
    message.extend(id.to_be_bytes());
    message.extend([0, 1]);
    message.extend(magic);
    // For ICMPv6 the kernel writes it, as it needs the addresses.
    let sum = checksum(&message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    let to = SocketAddr::new(probe.dst, 0);
    let sent = net::sendto(&socket, &message, net::SendFlags::empty(), &to).map(|_| ());
    Ok((socket, 0, sent.map_err(io::Error::from)))
}

fn datagram(probe: &Probe, magic: &[u8]) -> io::Result<Attempt> {
    let socket = UdpSocket::bind(SocketAddr::new(probe.src.unwrap_or(unspecified(probe.dst)), 0))?;
    let sport = socket.local_addr()?.port();
    let sent = socket.send_to(magic, SocketAddr::new(probe.dst, probe.port)).map(|_| ());
    Ok((socket.into(), sport, sent))
}

fn connection(probe: &Probe) -> io::Result<Attempt> {
    let socket = open(probe, SocketType::STREAM, None)?;
    // Bound first, so that the port is known before the SYN leaves.
    net::bind(&socket, &SocketAddr::new(probe.src.unwrap_or(unspecified(probe.dst)), 0))?;
    let sport = SocketAddr::try_from(net::getsockname(&socket)?)?.port();
    let sent = match net::connect(&socket, &SocketAddr::new(probe.dst, probe.port)) {
        Err(rustix::io::Errno::INPROGRESS) | Ok(()) => Ok(()),
        Err(e) => Err(io::Error::from(e)),
    };
    Ok((socket, sport, sent))
}

fn open(probe: &Probe, kind: SocketType, protocol: Option<net::Protocol>) -> io::Result<OwnedFd> {
    let family = if probe.dst.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    Ok(net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, protocol)?)
}

fn unspecified(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let add = |sum: u16, c: &[u8]| {
        let (sum, carry) = sum.overflowing_add(u16::from_be_bytes([c[0], c[1]]));
        sum + u16::from(carry)
    };
    !bytes.chunks_exact(2).fold(0, add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_over_the_checksummed_message_is_zero() {
        let mut message = [8, 0, 0, 0, 0xff, 0xff, 0, 1, 0xfe, 0xdc, 0xba, 0x98];
        let sum = checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        assert_eq!(checksum(&message), 0);
    }
}
