use std::time::Duration;

use weft_kernel::nft::{Nft, NftMonitor};
use weft_kernel::testing::{TestNs, eventually};
use weft_model::service::Protocol;
use weft_service::nftables::Nftables;
use weft_service::{Changed, Frontend, Kind, Policy, ServicePlan};

use super::{changed, dump, frontend, key, plan, run};

fn some() -> ServicePlan {
    let sticky = Frontend { affinity: Some(600), ..frontend(&["!10.244.0.5:8080", "10.244.1.5:8080"]) };
    let guarded = Frontend {
        kind: Kind::LoadBalancer,
        policy: Policy::Local,
        local: super::choice(&["!10.244.0.5:8080"]),
        sources: Some(["10.0.0.0/8".parse().unwrap()].into()),
        ..frontend(&["!10.244.0.5:8080", "10.244.1.5:8080"])
    };
    plan([
        (key("10.96.0.1", Protocol::Tcp, 80), frontend(&["!10.244.0.5:8080", "10.244.1.5:8080"])),
        (key("10.96.0.2", Protocol::Udp, 53), sticky),
        (key("198.51.100.7", Protocol::Tcp, 443), guarded),
        (key("node", Protocol::Tcp, 30080), frontend(&["10.244.1.5:8080"])),
        (key("fd00:96::1", Protocol::Tcp, 80), frontend(&["[fd00:244::5]:8080"])),
        (key("10.96.0.3", Protocol::Tcp, 80), frontend(&[])),
    ])
}

#[test]
fn what_another_program_does_to_the_tables_is_put_back() {
    let _test = TestNs::new();
    let mut nftables = Nftables::open().unwrap();
    let mut monitor = NftMonitor::open().unwrap();
    let plan = some();
    assert!(nftables.apply(&plan, &Changed::default()).unwrap() > 0);
    let whole = dump();
    assert!(whole.iter().all(Option::is_some));
    for (program, writes) in [
        ("flush ruleset", None),
        ("delete table ip6 weft-services", None),
        ("delete element ip weft-services endpoints { 10.96.0.1 . tcp . 80 . 0x00000000 }", Some(1)),
        // The listing has the bytes of a number the other way round.
        ("delete element ip weft-services hairpin { 10.244.0.5 . 10.244.0.5 }", Some(1)),
        ("add element ip weft-services cluster-ips { 10.96.0.99 }", Some(1)),
        ("delete element ip weft-services pods { 10.244.0.0/16 }", Some(1)),
        ("flush chain ip weft-services postrouting", Some(1)),
        ("flush map ip weft-services services", Some(4)),
        ("add rule ip weft-services forward drop", Some(1)),
        ("add chain ip weft-services another", Some(1)),
        ("add chain ip weft-services another { type filter hook input priority 0; }", None),
        ("add set ip weft-services another { type ipv4_addr; }", Some(1)),
        (
            "flush chain ip weft-services prerouting; flush chain ip weft-services output; \
             flush chain ip weft-services services; delete chain ip weft-services services",
            None,
        ),
    ] {
        while monitor.try_next().unwrap().is_some() {}
        run("nft", &[program]);
        let mut noticed = false;
        eventually(Duration::from_secs(5), "the change is noticed", || {
            let events = monitor.try_next().unwrap().unwrap_or_default();
            noticed |= events.iter().any(|event| nftables.notice(event));
            noticed
        });
        let found = nftables.apply(&plan, &Changed::default()).unwrap();
        assert!(writes.is_none_or(|writes| found == writes), "{program}: {found}");
        assert_eq!(dump(), whole, "{program}");
    }
    // Its own changes are none of another's.
    while let Some(events) = monitor.try_next().unwrap() {
        assert!(!events.iter().any(|event| nftables.notice(event)), "{events:?}");
    }
}

#[test]
fn a_change_that_meets_what_another_program_did_is_made_all_the_same() {
    let _test = TestNs::new();
    let mut nftables = Nftables::open().unwrap();
    let before = some();
    nftables.apply(&before, &Changed::default()).unwrap();
    run("nft", &["delete element ip weft-services services { 10.96.0.1 . tcp . 80 }"]);
    let at = key("10.96.0.1", Protocol::Tcp, 80);
    let mut after = before.clone();
    after.frontends.remove(&at);
    nftables.apply(&after, &changed(&before, &after)).unwrap();
    let found = dump();
    run("nft", &["flush ruleset"]);
    Nftables::open().unwrap().apply(&after, &Changed::default()).unwrap();
    assert_eq!(found, dump());
    nftables.remove().unwrap();
    assert_eq!(dump(), [None, None]);
}

#[test]
fn what_an_agent_before_left_is_taken_over_with_what_clients_taught_it() {
    let _test = TestNs::new();
    let plan = some();
    Nftables::open().unwrap().apply(&plan, &Changed::default()).unwrap();
    let whole = dump();
    let learned = "add element ip weft-services affinity-600 \
                   { 10.244.0.9 . 10.96.0.2 . udp . 53 : 53 . 10.244.1.5 . 8080 }";
    run("nft", &[learned]);
    // Another version had other rules, and one chain and one map more.
    run("nft", &["add rule ip weft-services cluster-2 counter accept"]);
    run("nft", &["add chain ip weft-services old; add rule ip weft-services old jump cluster-2"]);
    run("nft", &["add map ip weft-services old { type ipv4_addr : verdict; }"]);
    run("nft", &["add element ip weft-services old { 10.0.0.1 : goto old }"]);
    run("nft", &["add rule ip weft-services services ip daddr vmap @old"]);
    let generation = Nft::open().unwrap().generation().unwrap();
    let mut nftables = Nftables::open().unwrap();
    nftables.apply(&plan, &Changed::default()).unwrap();
    assert_eq!(Nft::open().unwrap().generation().unwrap(), generation + 1, "in one transaction");
    assert_eq!(dump(), whole);
    assert!(run("nft", &["list", "map", "ip", "weft-services", "affinity-600"]).contains("10.244.0.9"));

    // Yet another kept other things in a map of the same name.
    run("nft", &["delete table ip weft-services"]);
    run(
        "nft",
        &["table ip weft-services { map services { type ipv4_addr : verdict; }; chain c { accept; }; }"],
    );
    Nftables::open().unwrap().apply(&plan, &Changed::default()).unwrap();
    assert_eq!(dump(), whole);
}

#[test]
fn what_is_doubted_is_looked_at_only_where_something_changed() {
    let _test = TestNs::new();
    let mut nftables = Nftables::open().unwrap();
    let mut before = ServicePlan::default();
    let mut step = |plan: &ServicePlan| {
        let writes = nftables.apply(plan, &changed(&before, plan)).unwrap();
        before = plan.clone();
        nftables.distrust();
        writes
    };
    let plan = some();
    assert!(step(&plan) > 0);
    assert_eq!(step(&plan), 0);
    let mut less = plan.clone();
    less.frontends.remove(&key("node", Protocol::Tcp, 30080));
    assert_eq!(step(&less), 4, "a frontend, its slot, and its way with its chain");
    run("nft", &["delete element ip weft-services pods { 10.244.0.0/16 }"]);
    assert_eq!(step(&less), 1);
    run("nft", &["add table ip other"]);
    assert_eq!(step(&less), 0);
    run("nft", &["flush chain ip weft-services forward"]);
    assert!(step(&plan) > 2, "a change and a repair at once");
    run("nft", &["delete table ip other"]);
    assert_eq!(step(&plan), 0);
}
