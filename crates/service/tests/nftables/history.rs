use proptest::collection::vec;
use proptest::prelude::*;
use weft_kernel::testing::TestNs;
use weft_model::service::Protocol;
use weft_service::nftables::Nftables;
use weft_service::{Changed, Choice, Frontend, FrontendKey, Kind, Policy, ServicePlan};

use super::{changed, choice, dump, frontend, key, plan, run};

fn keys() -> impl Strategy<Value = FrontendKey> {
    let place = prop_oneof![
        Just("10.96.0.1"),
        Just("10.96.0.2"),
        Just("198.51.100.7"),
        Just("fd00:96::1"),
        Just("node"),
        Just("node6"),
    ];
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    (place, protocol, 80u16..82).prop_map(|(place, protocol, port)| key(place, protocol, port))
}

fn choices() -> impl Strategy<Value = Vec<u8>> {
    vec(1u8..7, 0..5)
}

fn frontends() -> impl Strategy<Value = (FrontendKey, Frontend)> {
    let policy = prop_oneof![Just(Policy::Internal), Just(Policy::Cluster), Just(Policy::Local)];
    let sources = prop_oneof![
        2 => Just(None),
        1 => Just(Some(vec!["10.0.0.0/8"])),
        1 => Just(Some(vec!["192.0.2.0/25", "198.51.100.0/24"])),
        1 => Just(Some(vec![])),
    ];
    let affinity = prop_oneof![2 => Just(None), 1 => Just(Some(60)), 1 => Just(Some(600))];
    (keys(), choices(), choices(), policy, affinity, sources).prop_map(
        |(at, all, here, policy, affinity, sources)| {
            let ipv6 = at.place.is_ipv6();
            let text = |list: Vec<u8>| -> Vec<String> {
                let socket = |i: u8| {
                    let here = if i < 4 { "!" } else { "" };
                    if ipv6 {
                        format!("{here}[fd00:244::{i}]:8080")
                    } else {
                        format!("{here}10.244.0.{i}:8080")
                    }
                };
                list.into_iter().map(socket).collect()
            };
            let [all, here] = [text(all), text(here)]
                .map(|list| choice(&list.iter().map(String::as_str).collect::<Vec<_>>()));
            let here = if here == Choice::Reject { Choice::Drop } else { here };
            let kind = if policy == Policy::Internal { Kind::ClusterIp } else { Kind::LoadBalancer };
            let local = if policy == Policy::Local { here } else { all.clone() };
            let address = matches!(at.place, weft_service::Place::Address(_));
            // Ranges are of the frontend's family.
            let sources = sources.filter(|_| address && kind == Kind::LoadBalancer && !ipv6);
            let sources =
                sources.map(|nets: Vec<&str>| nets.iter().map(|net| net.parse().unwrap()).collect());
            (at, Frontend { kind, policy, all, local, affinity, sources, ..frontend(&[]) })
        },
    )
}

fn plans() -> impl Strategy<Value = ServicePlan> {
    vec(frontends(), 0..10).prop_map(plan)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn one_plan_after_others_is_the_plan_from_nothing(history in vec(plans(), 1..4), last in plans()) {
        let test = TestNs::new();
        let mut nftables = Nftables::open().unwrap();
        let mut before = ServicePlan::default();
        for plan in history.into_iter().chain([last]) {
            nftables.apply(&plan, &changed(&before, &plan)).unwrap();
            before = plan;
        }
        let found = dump();
        let listed = run("nft", &["list", "ruleset"]);
        prop_assert!(listed.contains("table ip weft-services"));
        // Another agent has nothing to do.
        prop_assert_eq!(Nftables::open().unwrap().apply(&before, &Changed::default()).unwrap(), 0);
        drop(test);

        let _test = TestNs::new();
        Nftables::open().unwrap().apply(&before, &Changed::default()).unwrap();
        prop_assert_eq!(found, dump());
    }
}
