//! Published ports of SCTP, with its packets made by hand: few kernels have the protocol itself,
//! and the packet filter translates it without.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::Duration;

use common::chain::{Chain, node_in_the_world};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket, sockopt};
use serde_json::json;
use weft_kernel::Netns;

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;

/// A packet with one chunk INIT or INIT ACK (RFC 9260 sections 3.1 and 3.3.2). `tag` is the one
/// that the receiver of the packet chose, `own` the sender's.
fn packet(ports: (u16, u16), chunk: u8, tag: u32, own: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(ports.0.to_be_bytes());
    bytes.extend(ports.1.to_be_bytes());
    bytes.extend(tag.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend([chunk, 0, 0, 20]);
    bytes.extend(own.to_be_bytes());
    // Window, streams out and in, first number.
    bytes.extend([0, 0, 0xff, 0xff, 0, 10, 0, 10, 0, 0, 0, 1]);
    let sum = crc32c(&bytes);
    bytes[8..12].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// The checksum of SCTP (RFC 9260 appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _| if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 };
    !bytes.iter().fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
}

/// Sees all packets of SCTP in the namespace.
fn raw(ns: &Netns) -> OwnedFd {
    let open = || socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::SCTP)).unwrap();
    let fd = ns.run(open).unwrap();
    sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(Duration::from_secs(10))).unwrap();
    fd
}

fn send(fd: &OwnedFd, to: Ipv4Addr, packet: &[u8]) {
    sendto(fd, packet, SendFlags::empty(), &SocketAddrV4::new(to, 0)).unwrap();
}

/// Source and destination, ports and kind of the next packet, of which the checksum is right.
fn receive(fd: &OwnedFd) -> (Ipv4Addr, Ipv4Addr, (u16, u16), u8) {
    let mut buffer = [0; 256];
    let length = rustix::io::read(fd, &mut buffer).unwrap();
    let address = |at: usize| Ipv4Addr::from(*buffer[at..].first_chunk::<4>().unwrap());
    let mut sctp = buffer[usize::from(buffer[0] & 15) * 4..length].to_vec();
    let sum = u32::from_le_bytes(*sctp[8..].first_chunk().unwrap());
    sctp[8..12].fill(0);
    assert_eq!(sum, crc32c(&sctp), "checksum");
    let port = |at: usize| u16::from_be_bytes(*sctp[at..].first_chunk().unwrap());
    (address(12), address(16), (port(0), port(2)), sctp[12])
}

#[test]
fn a_published_port_of_sctp_leads_to_the_container_and_its_answer_back() {
    for backend in ["iptables", "nftables"] {
        let (node, world) = node_in_the_world();
        let pod = node.pod();
        let chain =
            Chain::of([node.config(&["10.9.0.0/24"]), json!({"type": "portmap", "backend": backend})]);
        let ports = json!({"portMappings": [
            {"hostPort": 9000, "containerPort": 80, "protocol": "sctp"},
            {"hostPort": 9001, "containerPort": 81, "protocol": "tcp"},
        ]});
        let made = chain.add("c1", &pod, &ports).success();
        let (client, server) = (raw(&world), raw(&pod));
        let (here, there, host) =
            (Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(10, 9, 0, 2), Ipv4Addr::new(192, 0, 2, 1));
        // One to a port that is published for TCP only goes nowhere; the other alone arrives.
        send(&client, host, &packet((5001, 9001), INIT, 0, 0x1111));
        send(&client, host, &packet((5000, 9000), INIT, 0, 0x2222));
        assert_eq!(receive(&server), (here, there, (5000, 80), INIT), "{backend}");
        send(&server, here, &packet((80, 5000), INIT_ACK, 0x2222, 0x3333));
        assert_eq!(receive(&client), (host, here, (9000, 5000), INIT_ACK), "{backend}");
        chain.check("c1", &pod, &ports, &made).success();
        chain.del("c1", &pod, &ports, &made);
        // The flow that was there before leads nowhere either, nor to the next container.
        let next = node.pod();
        let listener = raw(&next);
        let again = json!({"portMappings": [{"hostPort": 9002, "containerPort": 82, "protocol": "sctp"}]});
        chain.add("c2", &next, &again).success();
        send(&client, host, &packet((5000, 9000), INIT, 0, 0x2222));
        send(&client, host, &packet((5002, 9002), INIT, 0, 0x4444));
        assert_eq!(receive(&listener).2, (5002, 82), "{backend}");
    }
}
