use std::net::UdpSocket;
use std::time::Duration;

use weft_kernel::testing::TestNs;
use weft_service::userspace::Limits;

use super::*;

/// An endpoint that answers with its number and what it got.
fn echo(number: u8) -> SocketAddr {
    let socket = UdpSocket::bind(local(1)).unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok((len, from)) = socket.recv_from(&mut buffer[1..]) {
            buffer[0] = number;
            let _ = socket.send_to(&buffer[..=len], from);
        }
    });
    address
}

fn client(at: SocketAddr, from: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(from).unwrap();
    socket.connect(at).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn exchange(client: &UdpSocket, payload: &[u8]) -> u8 {
    client.send(payload).unwrap();
    let mut buffer = vec![0; 1 << 16];
    let len = client.recv(&mut buffer).unwrap();
    assert!(buffer[1..len] == *payload, "{} bytes came back of {}", len - 1, payload.len());
    buffer[0]
}

#[test]
fn each_client_has_a_flow_of_its_own_that_stays_with_its_endpoint() {
    let _ns = TestNs::new();
    let mut proxy = proxy();
    let target = to(&[echo(1), echo(2)]);
    let (_, at) = proxy.listen(Transport::Udp, local(1), &target).unwrap();
    let clients: Vec<UdpSocket> = (0..8).map(|_| client(at, local(1))).collect();
    let first: Vec<u8> = clients.iter().map(|client| exchange(client, b"first")).collect();
    assert_eq!(first.iter().filter(|number| **number == 1).count(), 4);
    for _ in 0..3 {
        for (client, number) in clients.iter().zip(&first) {
            assert_eq!(exchange(client, b"again"), *number);
        }
    }
    for length in [0, 1, 1472, 9000, 65_000] {
        exchange(&clients[0], &pattern(length));
    }
    assert_eq!(proxy.counters().flows, 8);
}

#[test]
fn an_idle_flow_ends_and_affinity_outlives_it() {
    let _ns = TestNs::new();
    let mut proxy =
        Proxy::start(Limits { threads: 1, ..Limits::default() }, Duration::from_millis(50)).unwrap();
    let target = Target { affinity: Some(Duration::from_secs(600)), ..to(&[echo(1), echo(2)]) };
    let (_, at) = proxy.listen(Transport::Udp, local(1), &target).unwrap();
    for from in [20, 21] {
        let number = exchange(&client(at, local(from)), b"one");
        counted(&proxy, "the flow ended", |c| c.flows == 0);
        assert_eq!(exchange(&client(at, local(from)), b"two"), number);
    }
}

#[test]
fn a_flow_to_what_is_not_there_is_closed_and_the_next_datagram_goes_elsewhere() {
    let _ns = TestNs::new();
    let mut proxy = proxy();
    let gone = UdpSocket::bind(local(1)).unwrap().local_addr().unwrap();
    let target = Target { affinity: Some(Duration::from_secs(600)), ..to(&[gone, echo(1)]) };
    let (_, at) = proxy.listen(Transport::Udp, local(1), &target).unwrap();
    let client = client(at, local(1));
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut buffer = [0; 16];
    eventually(PATIENCE, "another answers", || {
        client.send(b"hello").unwrap();
        client.recv(&mut buffer).is_ok()
    });
    assert_eq!(&buffer[..6], b"\x01hello");
}

#[test]
fn flows_to_an_endpoint_that_is_removed_end() {
    let _ns = TestNs::new();
    let mut proxy = proxy();
    let (one, two) = (echo(1), echo(2));
    let (id, at) = proxy.listen(Transport::Udp, local(1), &to(&[one])).unwrap();
    let client = client(at, local(1));
    assert_eq!(exchange(&client, b"x"), 1);
    proxy.set_target(id, &to(&[two]));
    counted(&proxy, "the flow ended", |c| c.flows == 0);
    assert_eq!(exchange(&client, b"x"), 2);
    proxy.close(id);
    counted(&proxy, "the flow ended with its frontend", |c| c.flows == 0);
}
