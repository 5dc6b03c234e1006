//! Against the plan of a small cluster and a real kernel, with both variants of iptables.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::Arc;

use proptest::prelude::*;
use weft_kernel::testing::TestNs;
use weft_model::service::{Protocol, ServiceKey};

use super::tables::Tables;
use super::*;
use crate::plan::{Backend, Choice, Frontend, FrontendKey, Kind, Place, Policy};

pub(super) fn variants() -> [Variant; 2] {
    [false, true].map(|legacy| Variant { legacy, ..Variant::find() })
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Backends by the last byte of their addresses.
pub(super) fn backends(last: &[u8], ipv6: bool) -> Choice {
    let net = if ipv6 { "fd00:244::" } else { "10.244.0." };
    let backend =
        |last: &u8| Backend { address: SocketAddr::new(ip(&format!("{net}{last}")), 8080), here: true };
    if last.is_empty() { Choice::Reject } else { Choice::Backends(last.iter().map(backend).collect()) }
}

pub(super) fn frontend(kind: Kind, name: &str, all: Choice) -> Frontend {
    let policy = if kind == Kind::ClusterIp { Policy::Internal } else { Policy::Cluster };
    Frontend {
        service: ServiceKey::new("shop", name),
        port_name: "http".into(),
        kind,
        policy,
        local: all.clone(),
        all,
        affinity: None,
        sources: None,
    }
}

pub(super) fn at(address: &str) -> FrontendKey {
    FrontendKey { place: Place::Address(ip(address)), protocol: Protocol::Tcp, port: 80 }
}

fn node_port(port: u16) -> FrontendKey {
    FrontendKey { place: Place::NodePort { ipv6: false }, protocol: Protocol::Tcp, port }
}

/// A plan and everything in it as changed.
pub(super) fn plan(frontends: impl IntoIterator<Item = (FrontendKey, Frontend)>) -> (ServicePlan, Changed) {
    let frontends: std::collections::BTreeMap<_, _> =
        frontends.into_iter().map(|(key, frontend)| (key, Arc::new(frontend))).collect();
    let of_cluster = |(key, frontend): (&FrontendKey, &Arc<Frontend>)| match key.place {
        Place::Address(ip) if frontend.kind == Kind::ClusterIp => Some((ip, 1)),
        _ => None,
    };
    let plan = ServicePlan {
        cluster_ips: frontends.iter().filter_map(of_cluster).collect(),
        pods: ["10.244.0.0/16", "fd00:244::/48"].map(|net| net.parse().unwrap()).into(),
        node_addresses: ["192.168.50.1/32"].map(|net| net.parse().unwrap()).into(),
        frontends,
        ..ServicePlan::default()
    };
    let changed = Changed {
        frontends: plan.frontends.keys().copied().collect(),
        cluster_ips: plan.cluster_ips.keys().copied().collect(),
        rest: true,
    };
    (plan, changed)
}

pub(super) fn shop() -> Vec<(FrontendKey, Frontend)> {
    let some = || backends(&[2, 3], false);
    let guarded = Frontend {
        sources: Some(["192.168.0.0/16", "203.0.113.0/24"].map(|net| net.parse().unwrap()).into()),
        affinity: Some(60),
        policy: Policy::Local,
        local: Choice::Drop,
        ..frontend(Kind::LoadBalancer, "guarded", some())
    };
    vec![
        (at("10.96.0.1"), frontend(Kind::ClusterIp, "web", some())),
        (node_port(30080), frontend(Kind::NodePort, "web", some())),
        (at("10.96.0.2"), frontend(Kind::ClusterIp, "empty", Choice::Reject)),
        (node_port(30081), frontend(Kind::NodePort, "empty", Choice::Reject)),
        (at("10.96.0.3"), Frontend { affinity: Some(60), ..frontend(Kind::ClusterIp, "guarded", some()) }),
        (at("198.18.0.3"), guarded),
        (at("fd00:96::1"), frontend(Kind::ClusterIp, "web", backends(&[2, 3], true))),
    ]
}

fn apply(iptables: &mut Iptables, frontends: Vec<(FrontendKey, Frontend)>) -> usize {
    let (plan, changed) = plan(frontends);
    iptables.apply(&plan, &changed).unwrap()
}

/// Applies what is there already.
fn again(iptables: &mut Iptables) -> usize {
    iptables.apply(&plan(shop()).0, &Changed::default()).unwrap()
}

pub(super) fn run(iptables: &Iptables, end: &str, arguments: &[&str]) -> String {
    let program = iptables.variant().program(Family::Ip, end);
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn script(ipv6: bool, frontends: Vec<(FrontendKey, Frontend)>) -> String {
    let (plan, changed) = plan(frontends);
    let mut tables = Tables::new(ipv6);
    tables.update(&plan, &changed);
    tables.script(true)
}

#[test]
fn the_text_is_that_of_kube_proxy() {
    let text = script(false, shop());
    for line in [
        "-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m comment --comment \"shop/web:http cluster IP\" -m tcp --dport 80 -j KUBE-SVC-",
        "-A KUBE-SERVICES -d 198.18.0.3/32 -p tcp -m comment --comment \"shop/guarded:http loadbalancer IP\" -m tcp --dport 80 -j KUBE-FW-",
        "-A KUBE-NODEPORTS -p tcp -m comment --comment \"shop/web:http\" -m tcp --dport 30080 -j KUBE-EXT-",
        " ! -s 10.244.0.0/16 -d 10.96.0.1/32 -p tcp -m comment --comment \"shop/web:http cluster IP\" -m tcp --dport 80 -j KUBE-MARK-MASQ\n",
        " -m comment --comment \"shop/web:http -> 10.244.0.2:8080\" -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-",
        " -m comment --comment \"shop/guarded:http -> 10.244.0.2:8080\" -m recent --rcheck --seconds 60 --reap --name KUBE-SEP-",
        " -s 10.244.0.2/32 -m comment --comment \"shop/web:http\" -j KUBE-MARK-MASQ\n",
        " -p tcp -m comment --comment \"shop/web:http\" -m tcp -j DNAT --to-destination 10.244.0.2:8080\n",
        "-A KUBE-SERVICES -d 10.96.0.2/32 -p tcp -m comment --comment \"shop/empty:http has no endpoints\" -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable\n",
        "-A KUBE-EXTERNAL-SERVICES -d 198.18.0.3/32 -p tcp -m comment --comment \"shop/guarded:http has no local endpoints\" -m tcp --dport 80 -j DROP\n",
        " -s 203.0.113.0/24 -m comment --comment \"shop/guarded:http loadbalancer IP\" -j KUBE-EXT-",
        " -s 198.18.0.3/32 -m comment --comment \"shop/guarded:http loadbalancer IP\" -j KUBE-EXT-",
        "-A KUBE-SERVICES -d 10.96.0.0/30 -m comment --comment \"ports that no Service has\" -j WEFT-CLUSTER-IPS\n",
    ] {
        assert!(text.contains(line), "{line}\nis not in\n{text}");
    }
    assert!(script(true, shop()).contains("-j DNAT --to-destination [fd00:244::2]:8080\n"));
}

#[test]
fn what_is_written_is_read_back_as_it_was_meant() {
    for variant in variants() {
        let _ns = TestNs::new();
        let mut iptables = Iptables::with(variant.clone());
        assert!(apply(&mut iptables, shop()) > 0);
        assert!(iptables.is_intact());
        iptables.distrust();
        assert_eq!(again(&mut iptables), 0, "{variant:?}");
        // An agent that starts anew changes nothing either.
        assert_eq!(apply(&mut Iptables::with(variant), shop()), 0);
    }
}

#[test]
fn a_change_of_endpoints_writes_that_service_s_chains_alone() {
    let _ns = TestNs::new();
    let mut iptables = Iptables::with(variants()[0].clone());
    apply(&mut iptables, shop());
    let mut changed = shop();
    changed[0].1.all = backends(&[2, 4], false);
    changed[1].1.all = backends(&[2, 4], false);
    let (plan, mut keys) = plan(changed);
    keys.frontends = [at("10.96.0.1"), node_port(30080)].into();
    keys.cluster_ips = BTreeSet::new();
    let mut tables = std::mem::replace(&mut iptables.families[0].tables, Tables::new(false));
    tables.update(&plan, &keys);
    let text = tables.script(true);
    iptables.families[0].tables = tables;
    let chains: Vec<&str> = text.lines().filter(|line| line.starts_with(':')).collect();
    assert_eq!(chains.len(), 3, "the Service's, the new endpoint's and the old one's: {text}");
    assert!(!text.contains("*filter") && text.contains("-X KUBE-SEP-"));
    assert_eq!(iptables.families[1].tables.count(), 0);
    assert_eq!(iptables.apply(&plan, &keys).unwrap(), 3);
}

#[test]
fn a_flush_is_noticed_and_put_back() {
    for variant in variants() {
        let _ns = TestNs::new();
        let mut iptables = Iptables::with(variant);
        apply(&mut iptables, shop());
        let before = run(&iptables, "-save", &["-t", "nat"]);
        for done in [
            &["-t", "nat", "-F"][..],
            &["-t", "nat", "-D", "PREROUTING", "1"],
            &["-t", "filter", "-F"],
            &["-t", "filter", "-F", "OUTPUT"],
        ] {
            run(&iptables, "", done);
            assert!(!iptables.is_intact(), "{done:?}");
            if iptables.variant().legacy {
                iptables.distrust();
            } else {
                let table = nft::Table::new(Family::Ip, done[1]);
                assert!(iptables.notice(&NftEvent::Touched { table, port: 1 }));
            }
            assert!(again(&mut iptables) > 0);
            assert!(iptables.is_intact(), "{done:?}");
        }
        let rules = |text: &str| {
            text.lines().filter(|line| line.starts_with("-A")).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(rules(&run(&iptables, "-save", &["-t", "nat"])), rules(&before));
    }
}

#[test]
fn what_others_have_there_stays_and_what_leads_to_a_chain_keeps_it_only_itself() {
    for variant in variants() {
        let _ns = TestNs::new();
        let mut iptables = Iptables::with(variant);
        run(&iptables, "", &["-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", "1", "-j", "ACCEPT"]);
        run(&iptables, "", &["-t", "nat", "-N", "KUBE-SVC-AAAAAAAAAAAAAAAA"]);
        run(&iptables, "", &["-t", "nat", "-A", "KUBE-SVC-AAAAAAAAAAAAAAAA", "-j", "ACCEPT"]);
        run(&iptables, "", &["-t", "nat", "-N", "OTHERS"]);
        run(&iptables, "", &["-t", "nat", "-A", "OTHERS", "-j", "KUBE-SVC-AAAAAAAAAAAAAAAA"]);
        apply(&mut iptables, shop());
        let saved = run(&iptables, "-save", &["-t", "nat"]);
        assert!(saved.contains("-A PREROUTING -p tcp -m tcp --dport 1 -j ACCEPT"));
        assert!(saved.contains("-A OTHERS -j KUBE-SVC-AAAAAAAAAAAAAAAA"), "{saved}");
        assert!(!saved.contains("-A KUBE-SVC-AAAAAAAAAAAAAAAA"), "emptied");
        assert!(saved.contains("10.96.0.1/32"));
        run(&iptables, "", &["-t", "nat", "-F", "OTHERS"]);
        iptables.distrust();
        again(&mut iptables);
        assert!(!run(&iptables, "-save", &["-t", "nat"]).contains("AAAAAAAAAAAAAAAA"));
    }
}

#[test]
fn names_and_comments_of_users_never_become_rules() {
    let _ns = TestNs::new();
    let evil = Frontend {
        port_name: "x\"\n-A KUBE-SERVICES -j ACCEPT\n`touch /tmp/x`$(id)'\\ \u{0}é".into(),
        ..frontend(Kind::ClusterIp, &"n".repeat(300), backends(&[2], false))
    };
    for variant in variants() {
        let mut iptables = Iptables::with(variant);
        apply(&mut iptables, vec![(at("10.96.0.1"), evil.clone())]);
        let saved = run(&iptables, "-save", &["-t", "nat"]);
        assert_eq!(saved.matches("-A KUBE-SERVICES").count(), 2, "{saved}");
        assert!(!saved.contains("-j ACCEPT"));
        iptables.distrust();
        assert_eq!(apply(&mut iptables, vec![(at("10.96.0.1"), evil.clone())]), 0);
    }
}

#[test]
fn a_held_lock_is_told_and_what_waits_is_written_later() {
    let _ns = TestNs::new();
    let dir = tempfile::tempdir().unwrap();
    let lock = dir.path().join("lock");
    let real = Variant { legacy: true, ..Variant::find() };
    // A lock of its own, so that no other test waits for it, and no five seconds.
    for end in ["-restore", "-save", ""] {
        for (family, name) in [(Family::Ip, "iptables"), (Family::Ip6, "ip6tables")] {
            let path = dir.path().join(format!("{name}-legacy{end}"));
            let program = real.program(family, end);
            let text = format!(
                "#!/bin/bash\nexport XTABLES_LOCKFILE={}\nexec {} \"${{@/#5/1}}\"\n",
                lock.display(),
                program.display()
            );
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    let held = std::fs::File::create(&lock).unwrap();
    held.lock().unwrap();
    let mut iptables = Iptables::with(Variant { legacy: true, program: Some(dir.path().join("iptables")) });
    let (plan, changed) = plan(shop());
    assert!(matches!(iptables.apply(&plan, &changed), Err(Error::IptablesLocked)));
    held.unlock().unwrap();
    assert!(iptables.apply(&plan, &changed).unwrap() > 0);
    assert!(iptables.is_intact());
}

#[test]
fn many_chains_are_written_and_found_again() {
    for variant in variants() {
        let _ns = TestNs::new();
        let mut iptables = Iptables::with(variant);
        let many = || {
            (0..600_u16).map(|i| {
                let one = frontend(Kind::ClusterIp, &i.to_string(), backends(&[2], false));
                (at(&format!("10.96.{}.{}", i / 256, i % 256)), one)
            })
        };
        assert!(apply(&mut iptables, many().collect()) > 1200 && iptables.is_intact());
        iptables.distrust();
        assert_eq!(apply(&mut iptables, many().collect()), 0);
        let saved = run(&iptables, "-save", &["-t", "nat"]);
        assert_eq!(saved.matches("--to-destination 10.244.0.2:8080").count(), 600);
    }
}

#[test]
fn removing_leaves_what_was_there_before() {
    for variant in variants() {
        let _ns = TestNs::new();
        let mut iptables = Iptables::with(variant);
        // Tables appear with the first who asks for them.
        for table in Table::ALL {
            run(&iptables, "", &["-t", table.name(), "-N", "KUBE-KUBELET-CANARY"]);
        }
        run(&iptables, "", &["-A", "FORWARD", "-j", "ACCEPT"]);
        let plain = |text: String| {
            let kept =
                text.lines().filter(|line| !line.starts_with('#')).map(|line| match line.split_once(" [") {
                    Some((chain, _)) => chain.to_owned(),
                    None => line.to_owned(),
                });
            kept.collect::<BTreeSet<_>>()
        };
        let before = plain(run(&iptables, "-save", &[]));
        apply(&mut iptables, shop());
        iptables.remove().unwrap();
        let base = |line: &String| !line.starts_with(':') || before.contains(line) || line.contains("KUBE-");
        let after: BTreeSet<_> = plain(run(&iptables, "-save", &[])).into_iter().filter(base).collect();
        assert_eq!(after, before);
        assert!(apply(&mut iptables, shop()) > 0 && iptables.is_intact());
    }
}

#[test]
fn the_host_s_variant_is_the_one_that_kubelet_used() {
    for variant in variants() {
        let _ns = TestNs::new();
        let kubelet = variant.program(Family::Ip, "");
        let arguments = ["-t", "mangle", "-N", "KUBE-IPTABLES-HINT"];
        assert!(Command::new(kubelet).args(arguments).status().unwrap().success());
        assert_eq!(Iptables::open().unwrap().variant().legacy, variant.legacy);
    }
    let _ns = TestNs::new();
    assert_eq!(Iptables::open().unwrap().variant(), &Variant::find());
}

/// A small cluster at random: for each of four Services its endpoints, whether it has a node port, its affinity,
/// and whether who comes from outside is held to this node.
fn some_plan() -> impl Strategy<Value = Vec<(Vec<u8>, bool, bool, bool)>> {
    let endpoints = proptest::collection::btree_set(2_u8..6, 0..4).prop_map(|set| set.into_iter().collect());
    proptest::collection::vec((endpoints, any::<bool>(), any::<bool>(), any::<bool>()), 0..4)
}

fn frontends(services: &[(Vec<u8>, bool, bool, bool)]) -> Vec<(FrontendKey, Frontend)> {
    let mut out = Vec::new();
    for (index, (endpoints, outer, sticky, local)) in services.iter().enumerate() {
        let affinity = sticky.then_some(60);
        let name = format!("s{index}");
        let inner = Frontend { affinity, ..frontend(Kind::ClusterIp, &name, backends(endpoints, false)) };
        out.push((at(&format!("10.96.0.{}", index + 1)), inner.clone()));
        if *outer {
            let policy = if *local { Policy::Local } else { Policy::Cluster };
            let only = if *local && !endpoints.is_empty() { Choice::Drop } else { inner.all.clone() };
            let outer = Frontend { kind: Kind::NodePort, policy, local: only, ..inner };
            out.push((node_port(30000 + index as u16), outer));
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn history_does_not_matter(steps in proptest::collection::vec(some_plan(), 1..5)) {
        let mut tables = Tables::new(false);
        let mut before = ServicePlan::default();
        for step in &steps {
            let (now, _) = plan(frontends(step));
            let differs = |key: &&FrontendKey| before.frontends.get(key) != now.frontends.get(key);
            let keys: BTreeSet<FrontendKey> = before.frontends.keys().chain(now.frontends.keys()).copied().collect();
            let changed = Changed {
                frontends: keys.iter().filter(differs).copied().collect(),
                cluster_ips: before.cluster_ips.keys().chain(now.cluster_ips.keys()).copied().collect(),
                rest: true,
            };
            tables.update(&now, &changed);
            tables.done(true);
            prop_assert_eq!(tables.script(true), "");
            before = now;
        }
        let mut fresh = Tables::new(false);
        let (last, changed) = plan(frontends(&steps[steps.len() - 1]));
        fresh.update(&last, &changed);
        fresh.done(true);
        prop_assert_eq!(tables.whole(), fresh.whole());
    }
}
