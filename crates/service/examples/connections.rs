//! How long a connection takes to the last of many Services, and by a single rule of DNAT: pairs of rounds in turn, a
//! client, a node and a server in namespaces of their own. Must run as root: `connections SERVICES`.
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

const SERVER: ([u8; 4], u16) = ([10, 244, 1, 2], 8080);
const ROUNDS: usize = 15;
const CONNECTIONS: u32 = 4000;

fn plan(count: u32) -> (ServicePlan, SocketAddr) {
    let backend = |address: [u8; 4]| Backend { address: (address, SERVER.1).into(), here: false };
    let mut frontends = BTreeMap::new();
    let mut last = Ipv4Addr::UNSPECIFIED;
    for i in 0..count {
        last = Ipv4Addr::from(0x0a60_0001 + i);
        let key = FrontendKey { place: Place::Address(last.into()), protocol: Protocol::Tcp, port: 80 };
        // All lead to the server: three slots that are asked in the kernel like others.
        let all = Choice::Backends([backend(SERVER.0); 3].into());
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
fn round(to: SocketAddr) -> f64 {
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
    let here = test.ns().clone();
    let [client, server] = ["client", "server"].map(|name| test.extra(name));
    test.join((&here, "c", "10.244.0.1/24"), (&client, "eth0", "10.244.0.2/24"));
    test.join((&here, "s", "10.244.1.1/24"), (&server, "eth0", "10.244.1.2/24"));
    for (namespace, via) in [(&client, "10.244.0.1"), (&server, "10.244.1.1")] {
        let via: IpAddr = via.parse().unwrap();
        let route = Route { via: Some(via), ..Route::new("0.0.0.0/0".parse().unwrap()) };
        Netlink::open_in(namespace).unwrap().apply(&Op::RouteAdd(route)).unwrap();
    }
    sysctl::set("net.ipv4.ip_forward", "1").unwrap();
    let listener = server.run(|| TcpListener::bind(SocketAddr::from(SERVER)).unwrap()).unwrap();
    std::thread::spawn(move || while listener.accept().is_ok() {});

    let (plan, service) = plan(count);
    let single: SocketAddr = ([10, 95, 0, 1], 80).into();
    let rule = Rule::new(
        "",
        [
            Expr::daddr("10.95.0.1/32".parse().unwrap()),
            Expr::l4proto(6),
            Expr::Port { side: Side::Destination, port: 80 },
            Expr::Dnat(SERVER.into()),
        ],
    );
    let dnat = Ruleset::new(Family::Ip, "single").with_base_chain(
        "prerouting",
        ChainKind::Nat,
        Hook::Prerouting,
        -100,
        vec![rule],
    );
    let mut nft = Nft::open().unwrap();
    let mut nftables = Nftables::open().unwrap();
    let changed =
        Changed { frontends: plan.frontends.keys().copied().collect::<BTreeSet<_>>(), ..Changed::default() };
    let mut times: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        let mut transaction = Transaction::default();
        dnat.add_to(&mut transaction, false);
        nft.apply(&transaction).unwrap();
        times[0].push(client.run(|| round(single)).unwrap());
        let mut transaction = Transaction::default();
        transaction.delete_table(&dnat.table);
        nft.apply(&transaction).unwrap();
        nftables.apply(&plan, &changed).unwrap();
        times[1].push(client.run(|| round(service)).unwrap());
        nftables.remove().unwrap();
    }
    for (what, times) in ["a single rule of DNAT", "the last Service"].iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        println!("{what}: median {:.2} us, least {:.2} us", times[ROUNDS / 2], times[0]);
    }
}
