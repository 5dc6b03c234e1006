//! How long a connection takes to the last of many Services, and by a single rule of DNAT: pairs of rounds in turn, a
//! client, a server and two nodes between them in namespaces of their own. Must run as root: `connections SERVICES`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement ends by panicking and prints")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::net::sockopt;
use weft_kernel::nft::{ChainKind, Expr, Family, Hook, Nft, Rule, Ruleset, Side, Transaction};
use weft_kernel::testing::TestNs;
use weft_kernel::{Netlink, Op, Route, sysctl};
use weft_model::NamespacedName;
use weft_model::service::Protocol;
use weft_service::nftables::Nftables;
use weft_service::{Backend, Changed, Choice, Frontend, FrontendKey, Kind, Place, Policy, ServicePlan};

/// The server's addresses behind the two nodes: of those with the single rule, and with the Services.
const SERVERS: [([u8; 4], u16); 2] = [([10, 244, 1, 2], 8080), ([10, 244, 3, 2], 8080)];
const ROUNDS: usize = 31;
const CONNECTIONS: u32 = 2000;

fn plan(count: u32) -> (ServicePlan, SocketAddr) {
    let backend = |address: [u8; 4]| Backend { address: (address, SERVERS[1].1).into(), here: false };
    let mut frontends = BTreeMap::new();
    let mut last = Ipv4Addr::UNSPECIFIED;
    for i in 0..count {
        last = Ipv4Addr::from(0x0a60_0001 + i);
        let key = FrontendKey { place: Place::Address(last.into()), protocol: Protocol::Tcp, port: 80 };
        // All lead to the server: three slots that are asked in the kernel like others.
        let all = Choice::Backends([backend(SERVERS[1].0); 3].into());
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
    }
    let pods = vec!["10.244.0.0/16".parse().unwrap()];
    (ServicePlan { frontends, pods, ..ServicePlan::default() }, (last, 80).into())
}

/// Microseconds for a connection, by the client's thread alone.
fn connections(to: SocketAddr) -> f64 {
    let start = Instant::now();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(to).unwrap();
        // Closed by a reset: no connection waits for its end.
        sockopt::set_socket_linger(stream.as_fd(), Some(std::time::Duration::ZERO)).unwrap();
    }
    start.elapsed().as_secs_f64() * 1e6 / f64::from(CONNECTIONS)
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
        Netlink::open_in(&client).unwrap().apply(&via(near, nets[i])).unwrap();
        let back = format!("10.244.{near}.0/24");
        Netlink::open_in(&server).unwrap().apply(&via(far, &back)).unwrap();
        node.run(|| sysctl::set("net.ipv4.ip_forward", "1").unwrap()).unwrap();
    }
    for address in SERVERS {
        let listener = server.run(|| TcpListener::bind(SocketAddr::from(address)).unwrap()).unwrap();
        std::thread::spawn(move || while listener.accept().is_ok() {});
    }

    let single: SocketAddr = ([10, 95, 0, 1], 80).into();
    let rule = Rule::new(
        "",
        [
            Expr::daddr("10.95.0.1/32".parse().unwrap()),
            Expr::l4proto(6),
            Expr::Port { side: Side::Destination, port: 80 },
            Expr::Dnat(SERVERS[0].into()),
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
    let (plan, service) = plan(count);
    let changed =
        Changed { frontends: plan.frontends.keys().copied().collect::<BTreeSet<_>>(), ..Changed::default() };
    Nftables::open().unwrap().apply(&plan, &changed).unwrap();

    let mut times: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
    let mut ratios = Vec::new();
    for round in 0..=ROUNDS {
        // Each goes first in every other round.
        let mut order = [(0, single), (1, service)];
        order.rotate_left(round % 2);
        let mut pair = [0.0; 2];
        for (which, to) in order {
            pair[which] = client.run(|| connections(to)).unwrap();
        }
        // The first round warms up.
        if round > 0 {
            ratios.push(pair[1] / pair[0]);
            times.iter_mut().zip(pair).for_each(|(times, time)| times.push(time));
        }
    }
    for (what, times) in ["a single rule of DNAT", "the last Service"].iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        println!("{what}: median {:.2} us, least {:.2} us", times[ROUNDS / 2], times[0]);
    }
    ratios.sort_by(f64::total_cmp);
    let at = |part: usize| ratios[part * (ROUNDS - 1) / 4];
    println!("the last Service to the single rule: median {:.3} ({:.3} to {:.3})", at(2), at(1), at(3));
}
