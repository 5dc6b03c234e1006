//! Real connections, and what became of them.

use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};
use weft_model::service::Protocol;

use crate::sctp;

/// What became of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An endpoint answered, and saw the client by this address.
    Answered { by: String, source: IpAddr },
    /// Refused.
    Refused,
    /// Taken, and reset then.
    Reset,
    /// The kernel did not let the packet out: dropped or refused on the client's own node.
    Forbidden,
    /// Nothing came back in the time given.
    Silent,
    /// Something else, which no row expects.
    Odd(String),
}

/// Connects from the calling thread's namespace.
pub(crate) fn connect_to(
    protocol: Protocol,
    from: Option<IpAddr>,
    to: SocketAddr,
    patience: Duration,
) -> Outcome {
    let answer = match protocol {
        Protocol::Udp => by_udp(from, to, patience),
        Protocol::Tcp => by_tcp(from, to, patience),
        Protocol::Sctp => sctp::ask(from, to, patience),
    };
    match answer {
        Ok(text) => {
            match text.split_once(' ').and_then(|(by, source)| Some((by.to_owned(), source.parse().ok()?))) {
                Some((by, source)) => Outcome::Answered { by, source },
                None => Outcome::Odd(format!("answered {text:?}")),
            }
        }
        Err(e) if matches!(e.kind(), ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable) => {
            Outcome::Refused
        }
        Err(e) if e.kind() == ErrorKind::ConnectionReset => Outcome::Reset,
        Err(e) if e.kind() == ErrorKind::PermissionDenied => Outcome::Forbidden,
        Err(e) if matches!(e.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => Outcome::Silent,
        Err(e) => Outcome::Odd(e.to_string()),
    }
}

fn by_tcp(from: Option<IpAddr>, to: SocketAddr, patience: Duration) -> std::io::Result<String> {
    let family = if to.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let made = socket(family, SocketType::STREAM, None)?;
    if let Some(from) = from {
        bind(&made, &SocketAddr::new(from, 0))?;
    }
    // Connecting gives up after the time for sending (socket(7)).
    sockopt::set_socket_timeout(&made, sockopt::Timeout::Send, Some(patience))?;
    match connect(&made, &to) {
        Err(rustix::io::Errno::INPROGRESS) => return Err(ErrorKind::TimedOut.into()),
        other => other?,
    }
    let mut stream = TcpStream::from(made);
    stream.set_read_timeout(Some(patience))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn by_udp(from: Option<IpAddr>, to: SocketAddr, patience: Duration) -> std::io::Result<String> {
    let any: IpAddr =
        if to.is_ipv6() { "::".parse() } else { "0.0.0.0".parse() }.map_err(std::io::Error::other)?;
    let socket = UdpSocket::bind((from.unwrap_or(any), 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(b"who?")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}
