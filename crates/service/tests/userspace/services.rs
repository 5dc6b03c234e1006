use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::sync::Arc;

use weft_kernel::testing::TestNs;
use weft_kernel::{Netns, Route};
use weft_model::NamespacedName;
use weft_model::service::Protocol;
use weft_service::userspace::Userspace;
use weft_service::{Backend, Changed, Choice, Frontend, FrontendKey, Kind, Place, Policy, ServicePlan};

use super::*;

/// A node with a client at one side of it and a pod at the other, which answers at port 8080.
struct World {
    ns: TestNs,
    client: Netns,
}

impl World {
    fn new() -> World {
        let mut ns = TestNs::new();
        let (node, client, pod) = (ns.ns().clone(), ns.extra("client"), ns.extra("pod"));
        for (other, name, node4, other4, node6, other6) in [
            (&client, "client0", "192.0.2.1/24", "192.0.2.9/24", "fd00:2::1/64", "fd00:2::9/64"),
            (&pod, "pod0", "10.244.1.1/24", "10.244.1.2/24", "fd00:1::1/64", "fd00:1::2/64"),
        ] {
            ns.join((&node, name, node4), (other, "eth0", other4));
            ns.join((&node, &format!("{name}six"), node6), (other, "eth6", other6));
        }
        for (net, via) in [("10.96.0.0/16", "192.0.2.1"), ("fd00:96::/64", "fd00:2::1")] {
            let via = Some(via.parse().unwrap());
            let mut netlink = weft_kernel::Netlink::open_in(&client).unwrap();
            let route = Route { via, ..Route::new(net.parse().unwrap()) };
            netlink.apply(&weft_kernel::Op::RouteAdd(route)).unwrap();
        }
        // What the node itself connects to it must have a way to.
        let names = [("10.96.0.0/16", "client0"), ("fd00:96::/64", "client0six")];
        for (net, name) in names {
            let index = ns.netlink().link(name).unwrap().unwrap().index;
            let route = Route { oif: Some(index), ..Route::new(net.parse().unwrap()) };
            ns.netlink().apply(&weft_kernel::Op::RouteAdd(route)).unwrap();
        }
        pod.run(|| {
            for address in ["10.244.1.2:8080", "[fd00:1::2]:8080"] {
                let listener = TcpListener::bind(address).unwrap();
                std::thread::spawn(move || {
                    for mut stream in listener.incoming().flatten() {
                        let _ = stream.write_all(b"p");
                    }
                });
                let socket = UdpSocket::bind(address).unwrap();
                std::thread::spawn(move || {
                    while let Ok((_, from)) = socket.recv_from(&mut [0; 64]) {
                        let _ = socket.send_to(b"p", from);
                    }
                });
            }
        })
        .unwrap();
        World { ns, client }
    }

    /// Connects from the client's place and from the node itself: both must be answered alike.
    fn both<R: Send + PartialEq + std::fmt::Debug>(&self, ask: impl Fn() -> R + Send + Sync) -> R {
        let from_client = self.client.run(&ask).unwrap();
        assert_eq!(from_client, ask(), "the node itself hears something else than a client");
        from_client
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Pod,
    Refused,
}

fn tcp(to: &str) -> Heard {
    let to: SocketAddr = to.parse().unwrap();
    let mut got = [0];
    match TcpStream::connect_timeout(&to, PATIENCE) {
        Ok(mut stream) => {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.read_exact(&mut got).unwrap();
            Heard::Pod
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}");
            Heard::Refused
        }
    }
}

fn udp(to: &str) -> Heard {
    let to: SocketAddr = to.parse().unwrap();
    let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // To the node's own processes the kernel says so at once, and otherwise.
    match socket.send(b"?").and_then(|_| socket.recv(&mut [0; 8])).map_err(|error| error.kind()) {
        Ok(_) => Heard::Pod,
        Err(ErrorKind::ConnectionRefused | ErrorKind::PermissionDenied) => Heard::Refused,
        Err(other) => panic!("{to}: {other}"),
    }
}

fn key(place: Place, protocol: Protocol, port: u16) -> FrontendKey {
    FrontendKey { place, protocol, port }
}

fn frontend(endpoint: Option<&str>) -> Frontend {
    let backend = |address: &str| Backend { address: address.parse().unwrap(), here: true };
    let all = endpoint.map_or(Choice::Reject, |address| Choice::Backends([backend(address)].into()));
    Frontend {
        service: NamespacedName { namespace: "shop".into(), name: "cart".into() },
        port_name: "".into(),
        kind: Kind::ClusterIp,
        policy: Policy::Internal,
        local: all.clone(),
        all,
        affinity: None,
        sources: None,
    }
}

/// A Service of each family at port 80, TCP and UDP, with node port 30080; another at 81 without endpoints.
fn plan() -> ServicePlan {
    let mut frontends = BTreeMap::new();
    let ips: [IpAddr; 2] = ["10.96.0.10".parse().unwrap(), "fd00:96::10".parse().unwrap()];
    for (ip, endpoint) in ips.into_iter().zip(["10.244.1.2:8080", "[fd00:1::2]:8080"]) {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let at = Place::Address(ip);
            frontends.insert(key(at, protocol, 80), Arc::new(frontend(Some(endpoint))));
            frontends.insert(key(at, protocol, 81), Arc::new(frontend(None)));
            let node = Place::NodePort { ipv6: ip.is_ipv6() };
            frontends.insert(key(node, protocol, 30080), Arc::new(frontend(Some(endpoint))));
        }
    }
    ServicePlan {
        frontends,
        cluster_ips: ips.map(|ip| (ip, 1)).into(),
        node_addresses: vec!["192.0.2.1/32".parse().unwrap(), "fd00:2::1/128".parse().unwrap()],
        pods: vec!["10.244.0.0/16".parse().unwrap()],
        ..ServicePlan::default()
    }
}

fn serves(open: fn() -> Result<Userspace, weft_service::Error>) {
    let world = World::new();
    let mut userspace = open().unwrap();
    let plan = plan();
    assert!(userspace.apply(&plan, &Changed::default()).unwrap() > 0);
    for host in ["10.96.0.10", "[fd00:96::10]"] {
        assert_eq!(world.both(|| tcp(&format!("{host}:80"))), Heard::Pod);
        assert_eq!(world.both(|| udp(&format!("{host}:80"))), Heard::Pod);
        // A Service without endpoints, and a port that is none of its.
        for port in [81, 82] {
            assert_eq!(world.both(|| tcp(&format!("{host}:{port}"))), Heard::Refused);
            assert_eq!(world.both(|| udp(&format!("{host}:{port}"))), Heard::Refused);
        }
    }
    for host in ["192.0.2.1", "[fd00:2::1]"] {
        assert_eq!(world.both(|| tcp(&format!("{host}:30080"))), Heard::Pod);
        assert_eq!(world.both(|| udp(&format!("{host}:30080"))), Heard::Pod);
    }
    // nft itself can read what there is.
    let listed = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    // Nothing differs: nothing is written.
    userspace.distrust();
    assert_eq!(userspace.apply(&plan, &Changed::default()).unwrap(), 0);

    // The endpoints go, and come back.
    let mut empty = plan.clone();
    let at = key(Place::Address("10.96.0.10".parse().unwrap()), Protocol::Tcp, 80);
    empty.frontends.insert(at, Arc::new(frontend(None)));
    let changed = || Changed { frontends: BTreeSet::from([at]), ..Changed::default() };
    userspace.apply(&empty, &changed()).unwrap();
    assert_eq!(world.both(|| tcp("10.96.0.10:80")), Heard::Refused);
    userspace.apply(&plan, &changed()).unwrap();
    assert_eq!(world.both(|| tcp("10.96.0.10:80")), Heard::Pod);

    // Somebody else removes what leads here.
    Command::new("nft").args(["flush", "ruleset"]).status().unwrap();
    for route in world.ns.netlink().routes().unwrap() {
        if route.protocol == weft_model::mark::SERVICE_ROUTE_PROTOCOL {
            world.ns.netlink().apply(&weft_kernel::Op::RouteDel(route)).unwrap();
        }
    }
    userspace.distrust();
    assert!(userspace.apply(&plan, &Changed::default()).unwrap() > 0);
    assert_eq!(world.both(|| tcp("10.96.0.10:80")), Heard::Pod);

    userspace.remove().unwrap();
    let tables = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&tables.stdout), "");
    let routes = world.ns.netlink().routes().unwrap();
    assert!(routes.iter().all(|route| route.protocol != weft_model::mark::SERVICE_ROUTE_PROTOCOL));
}

#[test]
fn a_plan_is_served_through_nftables() {
    serves(Userspace::open);
}

#[test]
fn a_plan_is_served_without_netfilter() {
    serves(Userspace::open_without_netfilter);
}

/// On the node another program listens at the port of a Service, at all addresses.
#[test]
fn a_program_at_the_port_of_a_service_is_not_in_the_way() {
    let world = World::new();
    let _other = TcpListener::bind("0.0.0.0:80").unwrap();
    let mut userspace = Userspace::open().unwrap();
    userspace.apply(&plan(), &Changed::default()).unwrap();
    assert_eq!(world.both(|| tcp("10.96.0.10:80")), Heard::Pod);
    // Who does not come by a frontend's address does not come to the proxy.
    let ports = Command::new("ss").args(["-Hltn", "src", "169.254.87.1"]).output().unwrap();
    let line = String::from_utf8_lossy(&ports.stdout).into_owned();
    let at = line.split_whitespace().nth(3).unwrap().to_owned();
    let route =
        Route { via: Some("192.0.2.1".parse().unwrap()), ..Route::new("169.254.87.1/32".parse().unwrap()) };
    let mut netlink = weft_kernel::Netlink::open_in(&world.client).unwrap();
    netlink.apply(&weft_kernel::Op::RouteAdd(route)).unwrap();
    let to: SocketAddr = at.parse().unwrap();
    let heard = world.client.run(|| TcpStream::connect_timeout(&to, Duration::from_millis(300)).map(|_| ()));
    assert_eq!(heard.unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
}

/// A client of UDP that never changes its port and never pauses.
#[test]
fn a_client_of_udp_is_led_on_when_the_agent_starts_anew() {
    let world = World::new();
    let mut userspace = Userspace::open().unwrap();
    userspace.apply(&plan(), &Changed::default()).unwrap();
    let client = world.client.run(|| UdpSocket::bind("192.0.2.9:7000").unwrap()).unwrap();
    client.connect("10.96.0.10:80").unwrap();
    client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let answered = || {
        let _ = client.send(b"?");
        client.recv(&mut [0; 8]).is_ok()
    };
    eventually(PATIENCE, "it is answered", answered);
    drop(userspace);
    let mut userspace = Userspace::open().unwrap();
    userspace.apply(&plan(), &Changed::default()).unwrap();
    eventually(PATIENCE, "it is answered by the next", answered);
}
