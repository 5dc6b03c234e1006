//! A neighbour that writes what it likes.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use weft_bgp::PerFamily;
use weft_bgp::message::{self, Capabilities, Frame, Kind, Open};

use crate::world::PATIENCE;

/// A connection to one of ours.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    read: Vec<u8>,
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Came {
    pub(crate) kind: u8,
    pub(crate) body: Vec<u8>,
}

impl Raw {
    /// Dials from an address.
    pub(crate) fn dial(from: &str, to: &str) -> Raw {
        let [from, to]: [IpAddr; 2] = [from, to].map(|ip| ip.parse().unwrap());
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        bind(&socket, &SocketAddr::new(from, 0)).unwrap();
        connect(&socket, &SocketAddr::new(to, 179)).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Raw { stream, read: Vec::new() }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next message; `None` at the end.
    pub(crate) fn next(&mut self) -> Option<Came> {
        loop {
            if let Some(Frame { kind, body }) = message::frame(&self.read, true).unwrap() {
                let came = Came { kind: kind as u8, body: body.to_vec() };
                self.read.drain(..message::HEADER + came.body.len());
                return Some(came);
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(read) => self.read.extend(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing has come: {error}"),
            }
        }
    }

    /// The NOTIFICATION that ends it: code and subcode.
    pub(crate) fn end(&mut self) -> Option<(u8, u8)> {
        while let Some(came) = self.next() {
            if came.kind == Kind::Notification as u8 {
                assert_eq!(self.next(), None);
                return Some((came.body[0], came.body[1]));
            }
        }
        None
    }

    /// Goes through the OPENs; routes may go then.
    pub(crate) fn establish(&mut self, asn: u32, id: &str) {
        self.write(&open(asn, id));
        let mut seen = Vec::new();
        while seen.len() < 2 {
            seen.push(self.next().unwrap().kind);
        }
        assert_eq!(seen, [Kind::Open as u8, Kind::Keepalive as u8]);
        let mut bytes = Vec::new();
        message::keepalive(&mut bytes);
        self.write(&bytes);
    }

    /// Whether it is there still after a while in which nothing comes.
    pub(crate) fn stands_for(&mut self, while_: Duration) -> bool {
        self.stream.set_read_timeout(Some(while_)).unwrap();
        let mut buffer = [0; 4096];
        let stands = loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => break false,
                Ok(_) => {}
                Err(error) => break matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            }
        };
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stands
    }
}

/// An OPEN of IPv4 routes and four-octet numbers.
pub(crate) fn open(asn: u32, id: &str) -> Vec<u8> {
    let capabilities = Capabilities {
        families: Some(PerFamily { ipv4: true, ipv6: false }),
        four_octet_as: Some(asn),
        ..Capabilities::default()
    };
    let mut bytes = Vec::new();
    message::open(&mut bytes, &Open { asn, hold: 90, id: id.parse().unwrap(), capabilities });
    bytes
}

/// A message of any kind, length and body.
pub(crate) fn message(length: u16, kind: u8, body: &[u8]) -> Vec<u8> {
    [&[0xff; 16][..], &length.to_be_bytes(), &[kind], body].concat()
}
