//! A DHCP server that does what its test says.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use weft_ipam::dhcp::v4::{Message, Options, kind, option};
use weft_kernel::Netns;

use crate::harness::PATIENCE;

pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);

pub struct Fake(UdpSocket);

impl Fake {
    /// Listens in a namespace, where the server's address is.
    pub fn new(ns: &Netns) -> Fake {
        let socket = ns.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 67)).unwrap()).unwrap();
        socket.set_broadcast(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Fake(socket)
    }

    /// The next message of this kind, and where it is from; others are passed over.
    pub fn expect(&self, kind: u8) -> (Message, Ipv4Addr) {
        let mut buffer = [0; 2000];
        loop {
            let (length, from) = self.0.recv_from(&mut buffer).unwrap();
            let message = Message::decode(&buffer[..length]).unwrap();
            if message.kind() == Some(kind) {
                let std::net::IpAddr::V4(from) = from.ip() else { panic!("IPv4") };
                return (message, from);
            }
        }
    }

    /// Nothing more comes for a while.
    pub fn silent(&self, time: Duration) -> bool {
        self.0.set_read_timeout(Some(time)).unwrap();
        let silent = self.0.recv(&mut [0; 2000]).is_err();
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
        silent
    }

    /// Sends bytes to everybody on the segment.
    pub fn send(&self, bytes: &[u8]) {
        self.0.send_to(bytes, (Ipv4Addr::new(10, 1, 0, 255), 68)).unwrap();
    }

    pub fn answer(&self, to: &Message, kind: u8, address: Ipv4Addr, more: &[(u8, &[u8])]) {
        self.send(&answer(to, kind, address, more).encode());
    }

    /// The exchange of a new lease.
    pub fn lease(&self, address: Ipv4Addr, more: &[(u8, &[u8])]) {
        let (discover, _) = self.expect(kind::DISCOVER);
        self.answer(&discover, kind::OFFER, address, more);
        let (request, _) = self.expect(kind::REQUEST);
        assert_eq!(request.options.address(option::REQUESTED_ADDRESS), Some(address));
        self.answer(&request, kind::ACK, address, more);
    }
}

/// An answer with a mask, a router and a lease of an hour.
pub fn answer(to: &Message, kind: u8, address: Ipv4Addr, more: &[(u8, &[u8])]) -> Message {
    let mut options = Options::default();
    options.set(option::MESSAGE_TYPE, [kind]);
    options.set(option::SERVER_ID, SERVER.octets());
    options.set(option::SUBNET_MASK, [255, 255, 255, 0]);
    options.set(option::ROUTER, SERVER.octets());
    options.set(option::LEASE_TIME, 3600u32.to_be_bytes());
    for (code, value) in more {
        options.set(*code, *value);
    }
    Message { reply: true, yours: address, client: Ipv4Addr::UNSPECIFIED, options, ..to.clone() }
}
