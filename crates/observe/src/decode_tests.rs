use proptest::prelude::*;

use super::*;

fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 63, protocol, 0, 0, 10, 244, 0, 5, 10, 244, 1, 7];
    out.extend(payload);
    out
}

fn framed(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    out.extend(kind.to_be_bytes());
    out.extend(payload);
    out
}

fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x30, 0x39];
    out.extend(port.to_be_bytes());
    out.extend([0; 4]);
    out.extend(payload);
    out
}

#[test]
fn an_echo_wrapped_in_vxlan_shows_both_headers() {
    let echo = [8, 0, 0, 0, 0x12, 0x34, 0, 7, b'm', b'a', b'g'];
    let inner = framed(ETHERTYPE_IPV4, &ipv4(proto::ICMP, &echo));
    let mut tunnel = vec![0x08, 0, 0, 0, 0, 0, 1, 0];
    tunnel.extend(&inner);
    let bytes = framed(ETHERTYPE_IPV4, &ipv4(proto::UDP, &udp(8472, &tunnel)));
    let read = frame(&bytes).unwrap();
    let outer = read.outer.unwrap();
    assert_eq!((outer.vni, outer.port, outer.source_port), (1, 8472, 12345));
    assert_eq!(outer.inner_macs, read.macs);
    assert_eq!(read.ip.ttl, 63);
    assert_eq!(read.transport, Transport::Echo { reply: false, id: 0x1234, seq: 7, payload: b"mag" });
    // The same datagram to another port is just a datagram.
    let bytes = framed(ETHERTYPE_IPV4, &ipv4(proto::UDP, &udp(53, &tunnel)));
    assert_eq!(frame(&bytes).unwrap().outer, None);
}

#[test]
fn an_icmp_error_tells_what_it_is_about() {
    let quoted = ipv4(proto::UDP, &udp(53, b"magic"));
    let mut error = vec![3, 3, 0, 0, 0, 0, 0, 0];
    error.extend(&quoted);
    let bytes = ipv4(proto::ICMP, &error);
    let Transport::IcmpError { kind: 3, code: 3, about: Some(about) } = packet(&bytes).unwrap().transport
    else {
        panic!("not an error");
    };
    assert_eq!(about.transport, Transport::Udp { sport: 12345, dport: 53, payload: b"magic" });
}

#[test]
fn ipv6_extension_headers_are_skipped() {
    let mut bytes = vec![0x60, 0, 0, 0, 0, 0, 0, 61];
    bytes.extend([0xfd; 32]);
    bytes.extend([proto::TCP, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend([0, 80, 1, 187, 0, 0, 0, 9, 0, 0, 0, 0, 0x50, 2, 0, 0]);
    let read = packet(&bytes).unwrap();
    assert_eq!((read.ip.proto, read.ip.ttl), (proto::TCP, 61));
    assert_eq!(read.transport, Transport::Tcp { sport: 80, dport: 443, seq: 9, ack: 0, flags: 2 });
}

#[test]
fn a_later_fragment_has_no_ports() {
    let mut bytes = ipv4(proto::UDP, &udp(8472, &[8; 40]));
    bytes[7] = 0xb9;
    assert_eq!(packet(&bytes).unwrap().transport, Transport::Other);
}

proptest! {
    #[test]
    fn any_bytes_decode_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = (frame(&bytes), packet(&bytes), split(&bytes, &bytes));
    }

    #[test]
    fn a_broken_tunnel_decodes_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..120), cut in 0usize..170, version in any::<bool>()
    ) {
        let mut tunnel = vec![0x08, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        tunnel.extend(if version { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 }.to_be_bytes());
        tunnel.extend(bytes);
        let mut whole = framed(ETHERTYPE_IPV4, &ipv4(proto::UDP, &udp(4789, &tunnel)));
        whole.truncate(cut);
        let _ = frame(&whole);
    }
}
