//! What a packet pays for many Services: a connection to the last of them beside one by a single rule of DNAT, and a
//! stream to it beside one to its endpoint. Short turns in pairs, a client, a server and two nodes between them in
//! namespaces of their own. Must run as root: `connections SERVICES`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement ends by panicking and prints")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::net::sockopt;
use rustix::thread::{CpuSet, sched_setaffinity};
use weft_kernel::nft::{ChainKind, Expr, Family, Hook, Nft, Rule, Ruleset, Side, Transaction};
use weft_kernel::testing::TestNs;
use weft_kernel::{Netlink, Netns, Op, Route, sysctl};
use weft_model::NamespacedName;
use weft_model::service::Protocol;
use weft_service::nftables::Nftables;
use weft_service::{Backend, Changed, Choice, Frontend, FrontendKey, Kind, Place, Policy, ServicePlan};

/// The server's addresses behind the two nodes: of those with the single rule, and with the Services.
const SERVERS: [[u8; 4]; 2] = [[10, 244, 1, 2], [10, 244, 3, 2]];
/// The server's port that only accepts, and the one that reads all; the Services' ports that lead there.
const ACCEPTS: (u16, u16) = (80, 8080);
const READS: (u16, u16) = (81, 8081);
const PAIRS: usize = 401;
/// Connections and bytes of a turn.
const CONNECTIONS: u32 = 200;
const BYTES: usize = 128 << 20;

fn plan(count: u32) -> (ServicePlan, IpAddr) {
    let mut frontends = BTreeMap::new();
    let mut last = Ipv4Addr::UNSPECIFIED;
    for i in 0..count {
        last = Ipv4Addr::from(0x0a60_0001 + i);
        for (port, target) in [ACCEPTS, READS] {
            let key = FrontendKey { place: Place::Address(last.into()), protocol: Protocol::Tcp, port };
            // All lead to the server: three slots that are asked in the kernel like others.
            let backend = Backend { address: (SERVERS[1], target).into(), here: false };
            let all = Choice::Backends([backend; 3].into());
            let frontend = Frontend {
                service: NamespacedName::new("default", "web"),
                port_name: "http".into(),
                kind: Kind::ClusterIp,
                policy: Policy::Internal,
                local: all.clone(),
                all,
                affinity: None,
                sources: None,
            };
            frontends.insert(key, Arc::new(frontend));
            if i + 1 < count {
                break;
            }
        }
    }
    let pods = vec!["10.244.0.0/16".parse().unwrap()];
    (ServicePlan { frontends, pods, ..ServicePlan::default() }, last.into())
}

/// Seconds for a turn's connections, by the client's thread alone.
fn connections(to: SocketAddr) -> f64 {
    let start = Instant::now();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(to).unwrap();
        // Closed by a reset: no connection waits for its end.
        sockopt::set_socket_linger(stream.as_fd(), Some(std::time::Duration::ZERO)).unwrap();
    }
    start.elapsed().as_secs_f64()
}

/// Seconds for a turn's bytes, until the server has read the last.
fn stream(to: SocketAddr) -> f64 {
    on_processor(0);
    let stream = TcpStream::connect(to).unwrap();
    let bytes = vec![0; 1 << 20];
    let send = |total: usize| (0..total / bytes.len()).for_each(|_| (&stream).write_all(&bytes).unwrap());
    // The windows are open when the turn's time begins.
    send(BYTES / 8);
    let start = Instant::now();
    send(BYTES);
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!((&stream).read(&mut [0]).unwrap(), 0, "the server ends it when it has read all");
    start.elapsed().as_secs_f64()
}

fn on_processor(number: usize) {
    let mut set = CpuSet::new();
    set.set(number);
    sched_setaffinity(None, &set).unwrap();
}

fn read_all(listener: &TcpListener) {
    on_processor(1);
    let mut buffer = vec![0; 1 << 20];
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        while stream.read(&mut buffer).unwrap() > 0 {}
    }
}

/// Turns of both in pairs, each first in every other; prints the median of the ratios with its interval at 95 %.
fn compare(client: &Netns, turn: fn(SocketAddr) -> f64, what: &str, single: SocketAddr, service: SocketAddr) {
    let mut times: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
    let mut ratios = Vec::new();
    for round in 0..=PAIRS {
        let mut order = [(0, single), (1, service)];
        order.rotate_left(round % 2);
        let mut pair = [0.0; 2];
        for (which, to) in order {
            pair[which] = client.run(|| turn(to)).unwrap();
        }
        // The first pair warms up.
        if round > 0 {
            ratios.push(pair[1] / pair[0]);
            times.iter_mut().zip(pair).for_each(|(times, time)| times.push(time));
        }
    }
    times.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
    ratios.sort_by(f64::total_cmp);
    let [single, service] = times.map(|times| times[PAIRS / 2] * 1e3);
    // The order statistics about the median between which it lies in 95 of 100 cases.
    let aside = (0.98 * (PAIRS as f64).sqrt()).ceil() as usize;
    let at = |rank: usize| ratios[rank];
    let (median, low, high) = (at(PAIRS / 2), at(PAIRS / 2 - aside), at(PAIRS / 2 + aside));
    println!(
        "{what}: {single:.3} ms, the last Service {service:.3} ms; ratio {median:.4} ({low:.4} to {high:.4})"
    );
}

fn main() {
    let count = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(30_000);
    let mut test = TestNs::new();
    let node = test.ns().clone();
    let [client, server, other] = ["client", "server", "other"].map(|name| test.extra(name));
    let nets = ["10.95.0.0/16", "10.96.0.0/12"];
    for (i, node) in [&other, &node].into_iter().enumerate() {
        let [near, far] = [i * 2, i * 2 + 1];
        let link = |name: &str| format!("{name}{i}");
        let ends = |net: usize| [format!("10.244.{net}.1/24"), format!("10.244.{net}.2/24")];
        let [[here, there], [beyond, last]] = [ends(near), ends(far)];
        test.join((node, &link("c"), &here), (&client, &link("eth"), &there));
        test.join((node, &link("s"), &beyond), (&server, &link("eth"), &last));
        let via = |net: usize, to: &str| {
            let via: IpAddr = format!("10.244.{net}.1").parse().unwrap();
            Op::RouteAdd(Route { via: Some(via), ..Route::new(to.parse().unwrap()) })
        };
        let [forth, back] = [far, near].map(|net| format!("10.244.{net}.0/24"));
        for to in [nets[i], &forth] {
            Netlink::open_in(&client).unwrap().apply(&via(near, to)).unwrap();
        }
        Netlink::open_in(&server).unwrap().apply(&via(far, &back)).unwrap();
        node.run(|| sysctl::set("net.ipv4.ip_forward", "1").unwrap()).unwrap();
    }
    for address in SERVERS {
        let listen =
            |port| server.run(|| TcpListener::bind(SocketAddr::from((address, port))).unwrap()).unwrap();
        let (accepts, reads) = (listen(ACCEPTS.1), listen(READS.1));
        std::thread::spawn(move || while accepts.accept().is_ok() {});
        std::thread::spawn(move || read_all(&reads));
    }

    let single: SocketAddr = ([10, 95, 0, 1], ACCEPTS.0).into();
    let rule = Rule::new(
        "",
        [
            Expr::daddr("10.95.0.1/32".parse().unwrap()),
            Expr::l4proto(6),
            Expr::Port { side: Side::Destination, port: ACCEPTS.0 },
            Expr::Dnat((SERVERS[0], ACCEPTS.1).into()),
        ],
    );
    let dnat = Ruleset::new(Family::Ip, "single").with_base_chain(
        "prerouting",
        ChainKind::Nat,
        Hook::Prerouting,
        -100,
        vec![rule],
    );
    let mut transaction = Transaction::default();
    dnat.add_to(&mut transaction, false);
    Nft::open_in(&other).unwrap().apply(&transaction).unwrap();
    let (plan, last) = plan(count);
    let changed =
        Changed { frontends: plan.frontends.keys().copied().collect::<BTreeSet<_>>(), ..Changed::default() };
    Nftables::open().unwrap().apply(&plan, &changed).unwrap();

    let turn = format!("{CONNECTIONS} connections by a single rule of DNAT");
    compare(&client, connections, &turn, single, (last, ACCEPTS.0).into());
    let turn = format!("{} MiB to the endpoint", BYTES >> 20);
    compare(&client, stream, &turn, (SERVERS[1], READS.1).into(), (last, READS.0).into());
}
