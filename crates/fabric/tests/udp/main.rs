//! The tunnel in user space with real packets: two nodes, a router between them, pods.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod congestion;
mod engine;
mod flannel;
mod hostile;
mod paths;
mod world;

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use weft_fabric::udp::{Counters, Reason};
use weft_kernel::Netns;
use weft_kernel::testing::eventually;

use world::{Outer, World, sh};

const SOON: Duration = Duration::from_secs(20);

/// The pods' addresses of one family.
fn pods(v4: bool) -> [IpAddr; 2] {
    [1, 2].map(|n| if v4 { format!("10.244.{n}.2") } else { format!("fd00:{n}::2") }.parse().unwrap())
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// A connection from a namespace to an address, and its other end.
fn connect(from: &Netns, to: &Netns, address: IpAddr) -> (TcpStream, TcpStream) {
    let listener = to.run(|| TcpListener::bind((address, 0)).unwrap()).unwrap();
    let target = listener.local_addr().unwrap();
    let client = from.run(|| TcpStream::connect_timeout(&target, SOON).unwrap()).unwrap();
    let server = listener.accept().unwrap().0;
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
    }
    (client, server)
}

/// Sends `data` from one end to the other and checks that it arrives.
fn transfer(mut from: &TcpStream, mut to: &TcpStream, data: &[u8]) {
    std::thread::scope(|scope| {
        scope.spawn(move || from.write_all(data).unwrap());
        let mut got = vec![0; data.len()];
        to.read_exact(&mut got).unwrap();
        assert!(got == data, "the stream was changed on its way");
    });
}

/// Packets dropped for any reason.
fn total(counters: &Counters) -> u64 {
    // The hosts' own neighbour discovery comes and goes.
    let reasons = Reason::ALL.iter().filter(|reason| **reason != Reason::Multicast);
    reasons.map(|reason| counters.dropped(*reason)).sum()
}

#[test]
fn streams_and_datagrams_of_both_families_cross_underlays_of_both() {
    let data = pattern(8 << 20);
    for outer in [Outer::V4, Outer::V6] {
        let world = World::new(outer, 1_500);
        for v4 in [true, false] {
            let [here, there] = pods(v4);
            let (client, server) = connect(&world.pods[0], &world.pods[1], there);
            transfer(&client, &server, &data);
            transfer(&server, &client, &data);
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!((&server).read(&mut [0]).unwrap(), 0, "the end of the stream comes too");
            let one = world.pods[0].run(|| UdpSocket::bind((here, 0)).unwrap()).unwrap();
            let other = world.pods[1].run(|| UdpSocket::bind((there, 0)).unwrap()).unwrap();
            other.set_read_timeout(Some(SOON)).unwrap();
            // A small one, one that fills a packet, and one that the pod cuts into fragments.
            for size in [1, 1_400, 9_000] {
                one.send_to(&data[..size], other.local_addr().unwrap()).unwrap();
                let mut buffer = vec![0; 10_000];
                let (len, from) = other.recv_from(&mut buffer).unwrap();
                assert_eq!((&buffer[..len], from), (&data[..size], one.local_addr().unwrap()), "{outer:?}");
            }
        }
        let counters = world.tunnel(1).counters();
        assert_eq!(total(&counters) + total(&world.tunnel(2).counters()), 0, "{counters:?}");
        let average = counters.sent_bytes / counters.sent_trains;
        assert!(average > 10_000, "{outer:?}: trains of {average} bytes are none");
        let back = world.tunnel(2).counters();
        assert!(back.received_packets > 2 * back.received_frames, "nothing was joined: {back:?}");
    }
}

#[test]
fn pings_of_every_size_come_back_and_too_big_ones_say_so() {
    let world = World::new(Outer::V4, 1_500);
    for (target, header) in [("10.244.2.2", 28), ("fd00:2::2", 48)] {
        let fits = 1_472 - header;
        for size in [0, 8, 56, 1_000, fits] {
            let (ok, text) = world.pod(1, &format!("ping -c1 -W5 -M do -s {size} {target}"));
            assert!(ok, "{size}: {text}");
        }
        let (ok, text) = world.pod(1, &format!("ping -c1 -W1 -M do -s {} {target}", fits + 1));
        assert!(!ok && text.contains("too long"), "{text}");
        let (ok, text) = world.pod(1, &format!("ping -c1 -W5 -M dont -s 20000 {target}"));
        assert!(ok, "in fragments: {text}");
    }
}

#[test]
fn every_router_on_the_way_answers_when_the_time_is_up() {
    let world = World::new(Outer::V4, 1_500);
    for (target, hops) in [
        ("10.244.2.2", ["10.244.1.1", "10.244.1.0", "10.244.2.0"]),
        ("fd00:2::2", ["fd00:1::1", "fd00:1::", "fd00:2::"]),
    ] {
        for (ttl, hop) in (1..).zip(hops) {
            let (_, text) = world.pod(1, &format!("ping -c1 -W5 -n -t {ttl} {target}"));
            assert!(text.contains(&format!("From {hop} ")), "{ttl}, {hop}: {text}");
        }
        assert!(world.pod(1, &format!("ping -c1 -W5 -t 4 {target}")).0);
    }
}

#[test]
fn nobodys_addresses_are_unreachable() {
    let world = World::new(Outer::V4, 1_500);
    for (target, us) in [("10.244.99.9", "10.244.1.0"), ("fd00:99::9", "fd00:1::")] {
        let (ok, text) = world.pod(1, &format!("ping -c1 -W5 -n {target}"));
        let says = text.contains(&format!("From {us} ")) && text.contains("nreachable");
        assert!(!ok && says, "{text}");
    }
}

#[test]
fn the_node_itself_reaches_pods_and_is_answered() {
    let world = World::new(Outer::V4, 1_500);
    for target in ["10.244.2.2", "10.244.2.0", "fd00:2::2"] {
        let said = world.nodes[0].run(|| sh(&format!("ping -c1 -W5 {target}"))).unwrap();
        assert!(said.contains(" 0% packet loss"), "{said}");
    }
}

#[test]
fn a_connection_outlives_the_engine_that_carries_it() {
    let mut world = World::new(Outer::V4, 1_500);
    let data = pattern(2 << 20);
    let (client, server) = connect(&world.pods[0], &world.pods[1], pods(true)[1]);
    let routes = |world: &World| {
        world.nodes[0].run(|| sh("ip -o addr show weft-udp0; ip route; ip -6 route")).unwrap()
    };
    let before = routes(&world).replace("linkdown ", "");
    for n in [1, 2, 1] {
        transfer(&client, &server, &data);
        world.tunnels[n - 1] = None;
        let while_down = routes(&world);
        assert!(while_down.contains("10.244.0.0/16 dev weft-udp0"), "{while_down}");
        // Sent into the gap: it comes once somebody carries it again.
        (&client).write_all(b"in the gap").unwrap();
        world.start(n);
        let mut got = [0; 10];
        (&server).read_exact(&mut got).unwrap();
        assert_eq!(&got, b"in the gap");
        transfer(&server, &client, &data);
    }
    assert_eq!(routes(&world).lines().count(), before.lines().count());
}

#[test]
fn peers_change_under_a_running_stream() {
    let world = World::new(Outer::V4, 1_500);
    let (client, server) = connect(&world.pods[0], &world.pods[1], pods(true)[1]);
    let data = pattern(16 << 20);
    let stranger = weft_fabric::udp::UdpPeer {
        address: "192.0.2.77:8285".parse().unwrap(),
        prefixes: vec!["10.244.77.0/24".parse().unwrap()],
    };
    std::thread::scope(|scope| {
        let stream = scope.spawn(|| transfer(&client, &server, &data));
        while !stream.is_finished() {
            world.tunnel(1).set_peers(&[stranger.clone(), world.peer(2)]);
            world.tunnel(2).set_peers(&[world.peer(1)]);
            world.tunnel(1).set_peers(&[world.peer(2), stranger.clone()]);
            std::thread::yield_now();
        }
    });
    assert_eq!(total(&world.tunnel(1).counters()), 0, "{:?}", world.tunnel(1).counters());
    // A peer that is gone gets nothing and is believed nothing.
    world.tunnel(1).set_peers(&[]);
    eventually(SOON, "the peer is unreachable", || {
        world.pod(1, "ping -c1 -W1 10.244.2.2").1.contains("nreachable")
    });
}

#[test]
fn a_port_in_use_and_a_missing_address_are_named() {
    let world = World::without_tunnels(Outer::V4, 1_500);
    let node = &world.nodes[0];
    let taken = node.run(|| UdpSocket::bind(SocketAddr::new(world.outer.node(1), world::PORT)).unwrap());
    let start = |spec: &weft_fabric::UdpSpec| {
        node.run(|| weft_fabric::udp::Tunnel::start(spec, 2).unwrap_err().to_string()).unwrap()
    };
    let error = start(&world.spec(1));
    assert!(error.contains("192.0.2.1:8285") && error.contains("in use"), "{error}");
    drop(taken);
    let elsewhere = weft_fabric::UdpSpec { local: "203.0.113.1".parse().unwrap(), ..world.spec(1) };
    assert!(start(&elsewhere).contains("203.0.113.1:8285"));
}
