//! What the sending half does as a router: time to live, sizes, errors to sources.

use super::super::packet::{ICMP, ICMPV6};
use super::*;

const ACK: u8 = 0x10;

/// Errors that node A sends for a frame: destination, kind, code, MTU, source.
fn errors(egress: &mut Egress) -> Vec<(String, u8, u8, u32, String)> {
    let read = |(to, packet): (IpAddr, &[u8])| {
        let inner = Inner::parse(packet).unwrap();
        let icmp = &packet[inner.header..];
        let pseudo = match inner.is_v4() {
            true => 0,
            false => pseudo(&packet[8..40], ICMPV6, icmp.len()),
        };
        assert_eq!(fold(pseudo + sum(icmp)), 0xffff);
        assert_eq!(inner.protocol, if inner.is_v4() { ICMP } else { ICMPV6 });
        assert_eq!(inner.destination, to);
        let mtu = u32::from_be_bytes(icmp[4..8].try_into().unwrap());
        (to.to_string(), icmp[0], icmp[1], mtu, inner.source.to_string())
    };
    let errors = egress.replies.iter().map(read).collect();
    egress.replies.clear();
    errors
}

fn ttl(mut packet: Vec<u8>, hops: u8) -> Vec<u8> {
    if packet[0] >> 4 == 6 {
        packet[7] = hops;
        return packet;
    }
    packet[8] = hops;
    packet[10..12].fill(0);
    let check = field(sum(&packet[..20]));
    packet[10..12].copy_from_slice(&check);
    packet
}

#[test]
fn one_hop_is_taken_off_and_at_the_last_the_source_is_told() {
    let (a, _) = tables();
    for (from, to, us, kind) in
        [("10.1.0.2", "10.2.0.2", "10.1.0.0", 11), ("fd01::2", "fd02::2", "fd01::", 3)]
    {
        let sent = summed(packet(from, to, UDP, &udp(b"traceroute")));
        let mut egress = egress();
        let trains = send(&mut egress, &a, &[plain(&ttl(sent.clone(), 2))]);
        assert_eq!(trains[0].1, [ttl(sent.clone(), 1)]);
        for hops in [1, 0] {
            assert!(send(&mut egress, &a, &[plain(&ttl(sent.clone(), hops))]).is_empty());
            assert_eq!(errors(&mut egress), [(from.to_string(), kind, 0, 0, us.to_string())]);
        }
        assert_eq!(dropped(&egress.counters), [(Reason::Expired, 2)]);
    }
}

#[test]
fn a_destination_that_nobody_has_is_unreachable() {
    let (a, _) = tables();
    // Also one of our own: the host would have delivered it if it were there.
    for (from, to, kind) in
        [("10.1.0.2", "10.9.0.2", 3), ("10.1.0.2", "10.1.0.200", 3), ("fd01::2", "fd09::2", 1)]
    {
        let mut egress = egress();
        let sent = summed(packet(from, to, UDP, &udp(b"?")));
        assert!(send(&mut egress, &a, &[plain(&sent)]).is_empty());
        assert_eq!(errors(&mut egress)[0].1, kind, "{to}");
        assert_eq!(dropped(&egress.counters), [(Reason::NoRoute, 1)]);
    }
}

#[test]
fn there_are_no_errors_about_errors_fragments_and_packets_to_many() {
    let (a, _) = tables();
    let error = packet("10.1.0.2", "10.9.0.2", ICMP, &[3, 1, 0, 0, 0, 0, 0, 0]);
    let error6 = packet("fd01::2", "fd09::2", ICMPV6, &[1, 0, 0, 0, 0, 0, 0, 0]);
    let mut later = packet("10.1.0.2", "10.9.0.2", UDP, &[0; 16]);
    (later[6], later[7]) = (0, 9);
    let many = packet("10.1.0.2", "224.0.0.251", UDP, &udp(b"mdns"));
    let nobody = packet("0.0.0.0", "10.9.0.2", UDP, &udp(b"?"));
    let mut egress = egress();
    assert_eq!(dropped(&egress.counters), []);
    for sent in [error, error6, ttl(later, 9), many, nobody] {
        assert!(send(&mut egress, &a, &[plain(&sent)]).is_empty());
        assert_eq!(errors(&mut egress), [], "{sent:02x?}");
    }
    // But about a question there is.
    let ping = packet("10.1.0.2", "10.9.0.2", ICMP, &[8, 0, 0, 0, 0, 0, 0, 0]);
    send(&mut egress, &a, &[plain(&ping)]);
    assert_eq!(errors(&mut egress).len(), 1);
}

#[test]
fn a_smaller_path_is_told_to_sources_and_what_may_be_cut_is_cut() {
    let (a, _) = tables();
    let index = a.sender(B.parse().unwrap()).unwrap();
    a.peer(index).unwrap().learn(Some(1_028));
    let mut egress = egress();
    let big = |from, to| summed(packet(from, to, UDP, &udp(&[6; 1_200])));
    // With DF: refused, the largest inner packet being 1,028 less 28.
    assert!(send(&mut egress, &a, &[plain(&big("10.1.0.2", "10.2.0.2"))]).is_empty());
    assert_eq!(errors(&mut egress), [("10.1.0.2".into(), 3, 4, 1_000, "10.1.0.0".into())]);
    // IPv6 never believes in less than 1,280.
    assert!(send(&mut egress, &a, &[plain(&big("fd01::2", "fd02::2"))]).is_empty());
    assert_eq!(errors(&mut egress), [("fd01::2".into(), 2, 0, 1_280, "fd01::".into())]);
    // A train whose segments are too big is refused as a whole; one that fits goes.
    let stream =
        |segment| frame(packet("10.1.0.2", "10.2.0.2", TCP, &tcp(5, ACK, &[1; 9_000])), Some(segment));
    assert!(send(&mut egress, &a, &[stream(1_400)]).is_empty());
    assert_eq!(errors(&mut egress).len(), 1);
    assert!(!send(&mut egress, &a, &[stream(900)]).is_empty());
    assert_eq!(dropped(&egress.counters), [(Reason::TooBig, 3)]);
    // Without DF: cut, and the parts put together are the packet.
    let mut sent = big("10.1.0.2", "10.2.0.2");
    sent[6] = 0;
    let sent = ttl(sent, 64);
    let parts: Vec<Vec<u8>> =
        send(&mut egress, &a, &[plain(&sent)]).into_iter().flat_map(|(_, t)| t).collect();
    assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [20 + 976, 20 + 232]);
    let read: Vec<Inner> = parts.iter().map(|part| Inner::parse(part).unwrap()).collect();
    assert!(read.iter().all(|part| part.fragment) && !read[0].later && read[1].later);
    assert_eq!(u16::from_be_bytes([parts[1][6], parts[1][7]]), 976 / 8);
    assert_eq!([&parts[0][20..], &parts[1][20..]].concat(), sent[20..]);
    // What was learnt survives a new table, and ends.
    let peer = UdpPeer { address: B.parse().unwrap(), prefixes: nets(2) };
    let after = Table::new(&nets(1), &[peer], Some(&a));
    assert_eq!(after.peer(0).unwrap().path_mtu(), Some(1_028));
    after.peer(0).unwrap().learn(None);
    assert!(!send(&mut egress, &after, &[stream(1_400)]).is_empty());
}

#[test]
fn when_the_underlay_refuses_a_train_its_source_is_told() {
    let (a, _) = tables();
    let mut egress = egress();
    let stream = frame(packet("10.1.0.2", "10.2.0.2", TCP, &tcp(5, ACK, &[1; 9_000])), Some(1_400));
    let room = egress.room().unwrap();
    room[..stream.len()].copy_from_slice(&stream);
    egress.handle_frame(&a, stream.len());
    egress.seal(&a);
    a.peer(0).unwrap().learn(Some(1_400));
    egress.handle_too_big(&a, 0);
    assert_eq!(errors(&mut egress), [("10.1.0.2".into(), 3, 4, 1_372, "10.1.0.0".into())]);
    egress.handle_too_big(&a, 7);
    assert_eq!(errors(&mut egress), []);
}

#[test]
fn the_longest_prefix_decides() {
    let near = UdpPeer { address: B.parse().unwrap(), prefixes: nets(2) };
    let lent: Vec<IpNet> = vec!["10.2.0.77/32".parse().unwrap(), "10.1.0.9/32".parse().unwrap()];
    let far = UdpPeer { address: "192.0.2.3:8285".parse().unwrap(), prefixes: lent };
    let table = Table::new(&nets(1), &[near, far], None);
    let to = |destination: &str| {
        let trains = send(&mut egress(), &table, &[plain(&packet("10.1.0.2", destination, 50, b"x"))]);
        trains.first().map(|(to, _)| to.to_string())
    };
    assert_eq!(to("10.2.0.76").as_deref(), Some(B));
    assert_eq!(to("10.2.0.77").as_deref(), Some("192.0.2.3:8285"));
    assert_eq!(to("10.1.0.9").as_deref(), Some("192.0.2.3:8285"), "an address of our block that is lent");
    assert_eq!(to("10.1.0.8"), None);
}

#[test]
fn what_is_remembered_of_a_flow_ends_with_the_table() {
    let (a, b) = tables();
    let one = summed(packet("10.1.0.2", "10.2.0.2", UDP, &udp(b"x")));
    let mut egress = egress();
    assert_eq!(send(&mut egress, &a, &[plain(&one)])[0].0.to_string(), B);
    let moved = UdpPeer { address: "192.0.2.8:8285".parse().unwrap(), prefixes: nets(2) };
    let none = UdpPeer { address: "192.0.2.9:8285".parse().unwrap(), prefixes: vec![] };
    let table = Table::new(&nets(1), &[none, moved], Some(&a));
    egress.forget_peers();
    assert_eq!(send(&mut egress, &table, &[plain(&one)])[0].0.to_string(), "192.0.2.8:8285");
    let mut ingress = Ingress::new(true);
    assert_eq!(receive(&mut ingress, &b, A, &[vec![one.clone()]]).len(), 1);
    ingress.forget_peers();
    assert_eq!(receive(&mut ingress, &Table::new(&nets(2), &[], None), A, &[vec![one]]).len(), 0);
    assert_eq!(dropped(&ingress.counters), [(Reason::Stranger, 1)]);
}
