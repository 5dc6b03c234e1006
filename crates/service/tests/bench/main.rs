//! One table of connections for every proxy: who connects to which address of which Service, which endpoints
//! answer, and what source address they see. Real packets between namespaces. To have a proxy in it, add it to
//! `proxies.rs` and give it a test here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod client;
mod net;
mod proxies;
mod rows;
mod scene;
mod sctp;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use net::{From, Net};
use proxies::Proxy;
use weft_judge::ProxyMode;
use weft_kernel::{Netlink, Netns};

/// So many connections show whether each endpoint gets its share.
const CONNECTIONS: u32 = 10_000;

/// Has every row run, those of one client after the other, the clients at once; then counts what each endpoint
/// gets of many connections.
fn judge(proxy: Proxy) {
    let mut net = Net::new();
    let running = proxy.start();
    let node: Vec<std::net::IpAddr> =
        Netlink::open().unwrap().addresses().unwrap().iter().map(|address| address.net.addr()).collect();
    let clients: Vec<(From, Netns)> = From::ALL.map(|from| (from, net.of(from))).into();
    let failures: Vec<String> = std::thread::scope(|scope| {
        let work: Vec<_> = clients
            .iter()
            .map(|(from, namespace)| {
                let node = &node;
                scope.spawn(move || {
                    namespace.enter().unwrap();
                    rows::rows(*from)
                        .iter()
                        .filter_map(|row| row.run(node, proxy.differs_in(row)).err())
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        work.into_iter().flat_map(|work| work.join().unwrap()).collect()
    });
    let count: usize = From::ALL.iter().map(|from| rows::rows(*from).len()).sum();
    let shares = clients[0].1.run(|| rows::shares(CONNECTIONS)).unwrap();
    drop(running);
    assert!(
        failures.is_empty(),
        "{proxy:?}: {} of {count} rows differ:\n{}",
        failures.len(),
        failures.join("\n")
    );
    // Six standard deviations: by chance once in a hundred million times.
    let (expected, deviation) = (f64::from(CONNECTIONS) / 3.0, (f64::from(CONNECTIONS) * 2.0 / 9.0).sqrt());
    let fair = |count: &u32| (f64::from(*count) - expected).abs() < 6.0 * deviation;
    assert!(shares.len() == 3 && shares.values().all(fair), "{proxy:?}: {shares:?}");
    println!("{proxy:?}: {count} rows; of {CONNECTIONS} connections {shares:?}");
}

#[test]
fn every_row_holds_with_iptables_over_nf_tables() {
    judge(Proxy::Iptables { legacy: false });
}

#[test]
fn every_row_holds_with_legacy_iptables() {
    judge(Proxy::Iptables { legacy: true });
}

#[test]
fn every_row_holds_with_nftables() {
    judge(Proxy::Nftables);
}

#[test]
fn every_row_holds_in_user_space() {
    judge(Proxy::Userspace);
}

#[test]
#[ignore = "needs IPVS: scripts/vm-test.sh 9-ipvs"]
fn every_row_holds_with_ipvs() {
    judge(Proxy::Ipvs);
}

#[test]
#[ignore = "needs the real kube-proxy: scripts/test.sh kubernetes"]
fn every_row_holds_with_kube_proxy_in_mode_iptables() {
    judge(Proxy::Kube(ProxyMode::Iptables));
}

#[test]
#[ignore = "needs the real kube-proxy: scripts/test.sh kubernetes"]
fn every_row_holds_with_kube_proxy_in_mode_nftables() {
    judge(Proxy::Kube(ProxyMode::Nftables));
}

/// Chain by chain: their names, their rules, and the order of these where it matters.
#[test]
#[ignore = "needs the real kube-proxy: scripts/test.sh kubernetes"]
fn the_rules_are_those_of_kube_proxy() {
    let found = [Proxy::Iptables { legacy: false }, Proxy::Kube(ProxyMode::Iptables)].map(|proxy| {
        let _net = Net::new();
        let _running = proxy.start();
        ["iptables-save", "ip6tables-save"].map(text::saved)
    });
    for (ours, theirs) in found[0].iter().zip(&found[1]) {
        let names: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
        assert!(names.len() > 80, "{names:?}");
        for name in names {
            let rules = |of: &BTreeMap<_, Vec<String>>| of.get(name).cloned();
            let (ours, theirs) = (rules(ours), rules(theirs));
            assert!(ours == theirs, "{name:?}: {ours:#?}\nkube-proxy: {theirs:#?}");
        }
    }
}
