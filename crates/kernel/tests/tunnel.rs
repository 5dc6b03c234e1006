//! TUN queues, UDP sockets with trains, and raw packets, on a real kernel.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use weft_kernel::testing::{TestNs, eventually};
use weft_kernel::{Address, Arrived, LinkSet, Op, Piece, RawSender, Train, UdpSocket, open_tun, path_mtu};

const SOON: Duration = Duration::from_secs(10);
const STRIDE: usize = 66_000;

fn at(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

/// Everything that comes until `count` bytes are there.
fn collect(socket: &mut UdpSocket, count: usize) -> (Vec<u8>, Vec<Arrived>) {
    let mut arena = vec![0; 8 * STRIDE];
    let (mut bytes, mut all, mut arrived) = (Vec::new(), Vec::new(), Vec::new());
    eventually(SOON, "all datagrams", || {
        if socket.receive(&mut arena, STRIDE, 8, &mut arrived).is_ok() {
            for message in &arrived {
                bytes.extend(message.piece.of(&arena).unwrap());
                all.push(*message);
            }
        }
        bytes.len() >= count
    });
    (bytes, all)
}

#[test]
fn a_train_arrives_as_a_train_with_its_sender() {
    for (a, b, suffix) in [("10.0.0.1", "10.0.0.2", "/24"), ("fd00::1", "fd00::2", "/64")] {
        let mut test = TestNs::new();
        let (here, there) = (test.ns().clone(), test.extra("there"));
        test.join((&here, "a", &format!("{a}{suffix}")), (&there, "b", &format!("{b}{suffix}")));
        let address = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 8285);
        let mut one = UdpSocket::bind(address(a), 1 << 20).unwrap();
        let mut other = there.run(|| UdpSocket::bind(address(b), 1 << 20).unwrap()).unwrap();
        // Three datagrams of 1,000 bytes in pieces that do not follow their borders, and one alone.
        let arena: Vec<u8> = (0..4_000u32).map(|i| (i % 251) as u8).collect();
        let piece = |start, len| Piece { start, len };
        let pieces = [piece(0, 10), piece(10, 1_500), piece(1_510, 1_390), piece(3_000, 77)];
        let trains = [
            Train { to: address(b), first: 0, count: 3, segment: Some(1_000), ecn: 2 },
            Train { to: address(b), first: 3, count: 1, segment: None, ecn: 0 },
        ];
        assert_eq!(one.send(&arena, &pieces, &trains).unwrap(), 2);
        let (bytes, messages) = collect(&mut other, 2_977);
        assert_eq!(bytes, [&arena[..2_900], &arena[3_000..3_077]].concat());
        assert!(messages.iter().all(|message| message.from == address(a) && !message.truncated));
        assert_eq!((messages[0].piece.len, messages[0].segment), (2_900, 1_000), "one message: {messages:?}");
        assert_eq!(messages.iter().map(|message| message.ecn).collect::<Vec<_>>(), [2, 0]);
        assert_eq!(
            other.receive(&mut [0; STRIDE], STRIDE, 1, &mut vec![]).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        // Pieces and trains that lie outside are refused, and nothing is sent.
        assert!(one.send(&arena, &[piece(3_999, 2)], &[Train { first: 0, count: 1, ..trains[1] }]).is_err());
        assert!(one.send(&arena, &pieces, &[Train { first: 3, count: 2, ..trains[1] }]).is_err());
        // Larger than the path: never fragmented.
        let big = [0; 2_000];
        let large = Train { to: address(b), first: 0, count: 1, segment: None, ecn: 0 };
        assert_eq!(one.send(&big, &[piece(0, 2_000)], &[large]).unwrap_err().raw_os_error(), Some(90));
        assert_eq!(path_mtu(a.parse().unwrap(), address(b)).unwrap(), 1_500);
    }
}

#[test]
fn sockets_of_a_group_share_flows_and_each_keeps_its_own() {
    let _test = TestNs::new();
    let local = at("127.0.0.1:8285");
    let mut group: Vec<UdpSocket> = (0..2).map(|_| UdpSocket::bind(local, 1 << 20).unwrap()).collect();
    group[0].spread_by_inner_flow(2).unwrap();
    let mut sender = UdpSocket::bind(at("127.0.0.1:9000"), 1 << 20).unwrap();
    let mut seen = [0usize; 2];
    for port in 0..32u8 {
        let mut packet = vec![0x45, 0, 0, 28, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 1, 0, 2, 10, 2, 0, 2];
        packet.extend([0xc0, port, 0, 53, 0, 8, 0, 0]);
        let mut got = Vec::new();
        for _ in 0..3 {
            let train = Train { to: local, first: 0, count: 1, segment: None, ecn: 0 };
            assert_eq!(sender.send(&packet, &[Piece { start: 0, len: 28 }], &[train]).unwrap(), 1);
            let mut arrived = Vec::new();
            eventually(SOON, "the datagram at one of both", || {
                let mut arena = [0; STRIDE];
                for (number, socket) in group.iter_mut().enumerate() {
                    if socket.receive(&mut arena, STRIDE, 1, &mut arrived).is_ok() {
                        got.push(number);
                    }
                }
                !got.is_empty()
            });
        }
        got.dedup();
        assert_eq!(got.len(), 1, "port {port}: one flow stays with one socket");
        seen[got[0]] += 1;
    }
    assert!(seen.iter().all(|count| *count > 4), "{seen:?}");
}

#[test]
fn a_tun_interface_stays_and_carries_frames_both_ways() {
    let test = TestNs::new();
    let mut queues = open_tun("tun7", 2).unwrap();
    let mut netlink = test.netlink();
    let link = netlink.link("tun7").unwrap().unwrap();
    assert_eq!(queues[0].ifindex().unwrap(), link.index);
    let up = LinkSet { index: link.index, up: Some(true), ..LinkSet::default() };
    netlink.apply(&Op::LinkSet(up)).unwrap();
    netlink.apply(&Op::AddrAdd(Address::new(link.index, "10.9.0.1/24".parse().unwrap()))).unwrap();
    let socket = std::net::UdpSocket::bind("10.9.0.1:7000").unwrap();
    socket.send_to(b"out", "10.9.0.2:7001").unwrap();
    let mut buffer = vec![0; 66_000];
    let mut packet = Vec::new();
    eventually(SOON, "the packet on one of the queues", || {
        for queue in &queues {
            // The host's own IPv6 packets come too.
            while let Ok(len) = queue.read(&mut buffer) {
                if buffer[10] == 0x45 {
                    packet = buffer[10..len].to_vec();
                }
            }
        }
        !packet.is_empty()
    });
    assert_eq!((&packet[12..20], &packet[28..]), (&[10, 9, 0, 1, 10, 9, 0, 2][..], &b"out"[..]));
    // An answer, in two pieces: addresses and ports exchanged leave IPv4's sum as it was.
    let mut answer = [&[0; 10][..], &packet].concat();
    answer[22..30].copy_from_slice(&[10, 9, 0, 2, 10, 9, 0, 1]);
    let ports: [u8; 4] = [packet[22], packet[23], packet[20], packet[21]];
    answer[30..34].copy_from_slice(&ports);
    // No UDP checksum.
    answer[36..38].fill(0);
    let pieces = [Piece { start: 0, len: 33 }, Piece { start: 33, len: answer.len() as u32 - 33 }];
    queues[1].write(&answer, &pieces).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(socket.recv_from(&mut buffer).unwrap(), (3, at("10.9.0.2:7001")));
    assert!(queues[1].write(&answer, &[Piece { start: 0, len: 1_000 }]).is_err());
    drop(queues);
    assert_eq!(netlink.link("tun7").unwrap().unwrap().index, link.index, "it stays");
    assert_eq!(open_tun("tun7", 1).unwrap()[0].ifindex().unwrap(), link.index, "and is adopted");
    let error = open_tun("lo", 1).unwrap_err();
    assert_eq!(error.errno(), Some(22), "{error}");
    assert!(open_tun("", 1).is_err() && open_tun("a-name-that-is-too-long", 1).is_err());
}

#[test]
fn a_raw_packet_goes_out_as_it_is() {
    let mut test = TestNs::new();
    let (here, there) = (test.ns().clone(), test.extra("there"));
    test.join((&here, "a", "10.0.0.1/24"), (&there, "b", "10.0.0.2/24"));
    let socket = there.run(|| std::net::UdpSocket::bind("10.0.0.2:7000").unwrap()).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    // The kernel fills in IPv4's checksum; the source is one that this host does not have.
    let mut packet = vec![0x45, 0, 0, 30, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 77, 10, 0, 0, 2];
    packet.extend([0x1b, 0x58, 0x1b, 0x58, 0, 10, 0, 0, b'h', b'i']);
    let raw = RawSender::open().unwrap();
    raw.send("10.0.0.2".parse().unwrap(), &packet).unwrap();
    assert_eq!(socket.recv_from(&mut [0; 10]).unwrap(), (2, at("10.0.0.77:7000")));
}
