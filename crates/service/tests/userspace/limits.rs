use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};

use weft_kernel::testing::TestNs;
use weft_service::userspace::Limits;

use super::*;

#[test]
fn a_full_table_refuses_and_counts_and_has_room_again_later() {
    let _ns = TestNs::new();
    let mut proxy = start(Limits { threads: 2, connections: 3, flows: 2, ..Limits::default() });
    let endpoint = TcpListener::bind(local(1)).unwrap();
    let (_, at) = listen_tcp(&mut proxy, &[endpoint.local_addr().unwrap()]);
    let mut open: Vec<_> = (0..3).map(|_| connect(at, &endpoint)).collect();
    let mut refused = TcpStream::connect(at).unwrap();
    assert!(refused.read(&mut [0]).is_err());
    counted(&proxy, "the fourth was counted", |c| c.full == 1 && c.connections == 3);
    open.pop();
    counted(&proxy, "one is gone", |c| c.connections == 2);
    open.push(connect(at, &endpoint));

    let sink = UdpSocket::bind(local(1)).unwrap();
    let target = to(&[sink.local_addr().unwrap()]);
    let (_, at) = proxy.listen(Transport::Udp, local(1), &target).unwrap();
    for _ in 0..3 {
        UdpSocket::bind(local(1)).unwrap().send_to(b"x", at).unwrap();
    }
    counted(&proxy, "the third flow was counted", |c| c.flows == 2 && c.flows_full == 1);
}

#[test]
fn for_a_new_flow_the_one_that_is_idle_for_longest_goes() {
    let _ns = TestNs::new();
    let mut proxy = start(Limits { threads: 1, flows: 2, ..Limits::default() });
    let echo = UdpSocket::bind(local(1)).unwrap();
    let target = to(&[echo.local_addr().unwrap()]);
    let (_, at) = proxy.listen(Transport::Udp, local(1), &target).unwrap();
    let clients: Vec<UdpSocket> = (0..3).map(|_| UdpSocket::bind(local(1)).unwrap()).collect();
    // From where each one's datagram comes to the endpoint: his flow.
    let flow = |client: usize| {
        clients[client].send_to(b"x", at).unwrap();
        echo.recv_from(&mut [0; 8]).unwrap().1
    };
    let first = [flow(0), flow(1)];
    assert_eq!(flow(0), first[0], "used again");
    flow(2);
    assert_eq!(flow(0), first[0], "the other one went");
    counted(&proxy, "one ended for want of room", |c| c.flows == 2 && c.flows_full == 1);
    assert_ne!(flow(1), first[1]);
}

#[test]
fn more_frontends_than_may_be_are_refused() {
    let _ns = TestNs::new();
    let mut proxy = start(Limits { threads: 1, listeners: 1, ..Limits::default() });
    let (id, _) = listen_tcp(&mut proxy, &[]);
    assert!(proxy.listen(Transport::Tcp, local(1), &to(&[])).is_err());
    proxy.close(id);
    assert!(proxy.listen(Transport::Tcp, local(1), &to(&[])).is_ok());
}

/// Ten thousand, or what the machine's limit of open files has room for: both ends of both
/// connections are in this process.
#[test]
fn thousands_of_connections_at_once() {
    let _ns = TestNs::new();
    let few = Limits { threads: 2, flows: 1, listeners: 1, pipes: 8, ..Limits::default() };
    let mut proxy = start(few);
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let count = 10_000.min((most.unwrap_or(u64::MAX) as usize - 2_000) / 4);
    assert!(proxy.limits().connections >= count);
    let endpoint = TcpListener::bind(local(1)).unwrap();
    let (_, at) = listen_tcp(&mut proxy, &[endpoint.local_addr().unwrap()]);
    let mut open: Vec<_> = (0..count).map(|_| connect(at, &endpoint)).collect();
    assert_eq!(proxy.counters().connections, count);
    for (client, _) in &mut open {
        client.write_all(b"x").unwrap();
    }
    for (_, server) in &mut open {
        let mut got = [0];
        server.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"x");
        server.write_all(b"y").unwrap();
    }
    for (client, _) in &mut open {
        let mut got = [0];
        client.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"y");
    }
    drop(open);
    counted(&proxy, "all are closed", |c| c.connections == 0 && c.held == 0);
}
