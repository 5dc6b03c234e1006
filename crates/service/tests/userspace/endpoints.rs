use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
use weft_kernel::testing::TestNs;

use super::*;

/// An address whose port is taken and where nobody listens: who connects is refused.
fn refusing() -> (TcpListener, SocketAddr) {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &local(1)).unwrap();
    let address = getsockname(&socket).unwrap().try_into().unwrap();
    (socket.into(), address)
}

/// An address that answers nothing: its queue is full and the kernel drops who comes.
fn silent() -> (TcpListener, Vec<TcpStream>, SocketAddr) {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &local(1)).unwrap();
    listen(&socket, 0).unwrap();
    let address: SocketAddr = getsockname(&socket).unwrap().try_into().unwrap();
    let mut waiting = vec![];
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        waiting.push(stream);
    }
    (socket.into(), waiting, address)
}

#[test]
fn clients_are_spread_over_the_endpoints() {
    let _ns = TestNs::new();
    let mut proxy = proxy();
    let (_, at) = listen_tcp(&mut proxy, &[teller(1), teller(2), teller(3)]);
    let mut answers: Vec<u8> = (0..9).filter_map(|_| ask(at, local(1))).collect();
    answers.sort_unstable();
    assert_eq!(answers, [1, 1, 1, 2, 2, 2, 3, 3, 3]);
}

#[test]
fn who_meets_an_endpoint_that_refuses_or_is_silent_gets_another() {
    let _ns = TestNs::new();
    let mut proxy = proxy();
    let ((_refuses, refusing), (_silent, _waiting, silent)) = (refusing(), silent());
    let (_, at) = listen_tcp(&mut proxy, &[refusing, silent, teller(1)]);
    for _ in 0..6 {
        assert_eq!(ask(at, local(1)), Some(1));
    }
    let counters = proxy.counters();
    assert!(counters.refused > 0 && counters.silent > 0 && counters.failed == 0, "{counters:?}");
}

#[test]
fn where_all_refuse_the_client_is_refused() {
    let _ns = TestNs::new();
    let mut proxy = proxy();
    let (_one, one) = refusing();
    let (_two, two) = refusing();
    let (id, at) = listen_tcp(&mut proxy, &[one, two]);
    assert_eq!(ask(at, local(1)), None);
    counted(&proxy, "it failed", |c| c.failed == 1 && c.refused == 2 && c.connections == 0);
    // And where there is none at all.
    proxy.set_target(id, &to(&[]));
    assert_eq!(ask(at, local(1)), None);
    assert_eq!(proxy.counters().no_endpoint, 1);
    // They come back.
    proxy.set_target(id, &to(&[teller(4)]));
    assert_eq!(ask(at, local(1)), Some(4));
}

#[test]
fn a_client_that_gives_up_while_connecting_leaves_nothing() {
    let _ns = TestNs::new();
    let mut proxy = proxy();
    let (_silent, _waiting, silent) = silent();
    let (_, at) = listen_tcp(&mut proxy, &[silent]);
    let client = TcpStream::connect(at).unwrap();
    counted(&proxy, "it is connecting", |c| c.connections == 1);
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    drop(client);
    counted(&proxy, "it is gone", |c| c.connections == 0);
}

#[test]
fn what_a_client_says_before_its_endpoint_is_found_is_not_lost() {
    let _ns = TestNs::new();
    let mut proxy = proxy();
    let (_silent, _waiting, silent) = silent();
    let endpoint = TcpListener::bind(local(1)).unwrap();
    let address = endpoint.local_addr().unwrap();
    // Whichever is the first of the two, twice meets both.
    let (_, at) = listen_tcp(&mut proxy, &[silent, address]);
    for _ in 0..2 {
        let mut client = TcpStream::connect(at).unwrap();
        client.write_all(b"early").unwrap();
        end_writing(&client);
        let (mut server, _) = endpoint.accept().unwrap();
        let mut got = String::new();
        server.read_to_string(&mut got).unwrap();
        assert_eq!(got, "early");
    }
    assert!(proxy.counters().silent >= 1);
}

#[test]
fn a_client_keeps_its_endpoint_by_its_address_alone() {
    let _ns = TestNs::new();
    let mut proxy = proxy();
    let tellers = [teller(1), teller(2), teller(3)];
    let target = Target { affinity: Some(Duration::from_secs(600)), ..to(&tellers) };
    let (id, at) = proxy.listen(Transport::Tcp, local(1), &target).unwrap();
    let mut met = HashSet::new();
    for client in 10..16 {
        let first = ask(at, local(client)).unwrap();
        met.insert(first);
        for _ in 0..4 {
            assert_eq!(ask(at, local(client)), Some(first));
        }
    }
    assert_eq!(met.len(), 3, "different clients met different endpoints");
    // The endpoint of somebody goes: another, and that is kept.
    let gone = ask(at, local(10)).unwrap();
    let left: Vec<SocketAddr> = (1..=3).zip(tellers).filter(|(n, _)| *n != gone).map(|(_, a)| a).collect();
    proxy.set_target(id, &Target { all: left, ..target });
    let new = ask(at, local(10)).unwrap();
    assert_ne!(new, gone);
    assert_eq!(ask(at, local(10)), Some(new));
}

#[test]
fn affinity_moves_on_from_an_endpoint_that_refuses() {
    let _ns = TestNs::new();
    let mut proxy = proxy();
    let (_refuses, refusing) = refusing();
    let target = Target { affinity: Some(Duration::from_secs(600)), ..to(&[refusing, teller(1), teller(2)]) };
    let (_, at) = proxy.listen(Transport::Tcp, local(1), &target).unwrap();
    for client in 10..14 {
        let first = ask(at, local(client)).unwrap();
        assert_eq!(ask(at, local(client)), Some(first));
    }
}

#[test]
fn a_connection_outlives_its_endpoint_s_removal_and_its_frontend() {
    let _ns = TestNs::new();
    let mut proxy = proxy();
    let endpoint = TcpListener::bind(local(1)).unwrap();
    let (id, at) = listen_tcp(&mut proxy, &[endpoint.local_addr().unwrap()]);
    let (mut client, mut server) = connect(at, &endpoint);
    let mut talks = || {
        client.write_all(b"ping").unwrap();
        let mut got = [0; 4];
        server.read_exact(&mut got).unwrap();
        server.write_all(b"pong").unwrap();
        client.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"pong");
    };
    talks();
    proxy.set_target(id, &to(&[teller(9)]));
    talks();
    assert_eq!(ask(at, local(1)), Some(9), "who comes now goes elsewhere");
    proxy.close(id);
    talks();
    let refused = TcpStream::connect(at).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    // Its port is free for another.
    assert!(proxy.listen(Transport::Tcp, at, &to(&[])).is_ok());
}

#[test]
fn sources_that_are_not_wanted_are_refused_and_those_outside_have_their_own_endpoints() {
    let _ns = TestNs::new();
    let mut proxy = proxy();
    let target = Target {
        outside: Some(vec![teller(2)]),
        inside: ["127.0.0.16/30".parse().unwrap()].into(),
        sources: Some(["127.0.0.16/29".parse().unwrap()].into()),
        ..to(&[teller(1)])
    };
    let (_, at) = proxy.listen(Transport::Tcp, local(1), &target).unwrap();
    assert_eq!(ask(at, local(17)), Some(1));
    assert_eq!(ask(at, local(21)), Some(2));
    assert_eq!(ask(at, local(33)), None);
    assert_eq!(proxy.counters().source, 1);
}

#[test]
fn ipv6_is_forwarded_and_so_is_an_address_that_comes_later() {
    let ns = TestNs::new();
    let mut proxy = proxy();
    let endpoint = TcpListener::bind("[::1]:0").unwrap();
    let target = to(&[endpoint.local_addr().unwrap()]);
    let mut listen = |at: &str| proxy.listen(Transport::Tcp, at.parse().unwrap(), &target).unwrap().1;
    let ats = [listen("[::1]:0"), listen("[fd00::7]:80")];
    let index = ns.netlink().link("lo").unwrap().unwrap().index;
    let address = weft_kernel::Address::new(index, "fd00::7/128".parse().unwrap());
    ns.netlink().apply(&weft_kernel::Op::AddrAdd(weft_kernel::Address { no_dad: true, ..address })).unwrap();
    for at in ats {
        // The kernel makes the addresses' routes a moment later.
        let mut client = None;
        eventually(PATIENCE, "there is a way to the address", || {
            client = TcpStream::connect(at).ok();
            client.is_some()
        });
        let (mut client, (mut server, _)) = (client.unwrap(), endpoint.accept().unwrap());
        client.write_all(b"six").unwrap();
        let mut got = [0; 3];
        server.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"six");
    }
}

#[test]
fn clients_of_an_endpoint_that_went_are_reset_where_that_is_asked_for() {
    for resets in [false, true] {
        let _ns = TestNs::new();
        let mut proxy = proxy();
        proxy.reset_removed(resets);
        let endpoints = [1, 2].map(|_| TcpListener::bind(local(1)).unwrap());
        let addresses = [0, 1].map(|n: usize| endpoints[n].local_addr().unwrap());
        let (id, at) = listen_tcp(&mut proxy, &addresses[..1]);
        let mut gone = connect(at, &endpoints[0]);
        proxy.set_target(id, &to(&addresses[1..]));
        let mut stays = connect(at, &endpoints[1]);
        if resets {
            counted(&proxy, "the one is reset", |c| c.connections == 1 && c.reset == 1);
        }
        let goes_on = |pair: &mut (TcpStream, TcpStream)| {
            let sent = pair.0.write_all(b"x").is_ok();
            sent && pair.1.read_exact(&mut [0]).is_ok()
        };
        assert_eq!(goes_on(&mut gone), !resets);
        assert!(goes_on(&mut stays));
        proxy.close(id);
        if resets {
            counted(&proxy, "so is the other", |c| c.connections == 0 && c.reset == 2);
        }
        assert_eq!(goes_on(&mut stays), !resets);
    }
}
