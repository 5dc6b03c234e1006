//! The rules that are planned do what the plan says: every kind of frontend, walked by every kind of client.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking and is one crate"
)]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use weft_model::NamespacedName;
use weft_model::service::Protocol;
use weft_service::nftables::{Packet, Tables, Verdict};
use weft_service::{Backend, Choice, Frontend, FrontendKey, Kind, Place, Policy, ServicePlan};

const FAMILIES: [bool; 2] = [false, true];

fn ip(ipv6: bool, v4: &str, v6: &str) -> IpAddr {
    if ipv6 { v6.parse().unwrap() } else { v4.parse().unwrap() }
}

/// Backends: two pods of this node, one of another, and this node itself.
fn backends(ipv6: bool) -> [Backend; 4] {
    let at = |v4, v6, here| Backend { address: SocketAddr::new(ip(ipv6, v4, v6), 8080), here };
    [
        at("10.168.0.2", "fd00:168::2", true),
        at("10.244.0.5", "fd00:244::5", true),
        at("10.244.0.6", "fd00:244::6", true),
        at("10.244.1.5", "fd00:244:0:1::5", false),
    ]
}

/// A plan with a frontend for each mixture, on ports of their own.
fn plan(ipv6: bool) -> ServicePlan {
    let mut plan = ServicePlan {
        pods: vec![if ipv6 { "fd00:244::/48" } else { "10.244.0.0/16" }.parse().unwrap()],
        node_addresses: vec![ip(ipv6, "10.168.0.2", "fd00:168::2").into()],
        cluster_ips: [(ip(ipv6, "10.96.0.7", "fd00:10:96::7"), 1)].into(),
        ..ServicePlan::default()
    };
    let some = |count: usize| Choice::Backends(backends(ipv6)[..count].into());
    let choices = [some(1), some(3), some(4), Choice::Reject, Choice::Drop];
    let places = [
        (Kind::ClusterIp, Place::Address(ip(ipv6, "10.96.0.7", "fd00:10:96::7"))),
        (Kind::LoadBalancer, Place::Address(ip(ipv6, "203.0.113.1", "2001:db8::1"))),
        (Kind::NodePort, Place::NodePort { ipv6 }),
    ];
    let mut port = 1000;
    for (kind, place) in places {
        for protocol in Protocol::ALL {
            for affinity in [None, Some(60)] {
                for (all, local) in
                    choices.iter().flat_map(|all| choices.iter().map(move |local| (all, local)))
                {
                    let policies: &[Policy] = match kind {
                        Kind::ClusterIp => &[Policy::Internal],
                        _ => &[Policy::Cluster, Policy::Local],
                    };
                    for policy in policies {
                        port += 1;
                        let local = if *policy == Policy::Local { local } else { all };
                        let sources = (kind == Kind::LoadBalancer && port % 3 == 0)
                            .then(|| Arc::from([ip(ipv6, "192.0.2.9", "2001:db8:9::9").into()]));
                        let frontend = Frontend {
                            service: NamespacedName::new("shop", "web"),
                            port_name: "http".into(),
                            kind,
                            policy: *policy,
                            all: all.clone(),
                            local: local.clone(),
                            affinity,
                            sources,
                        };
                        plan.frontends.insert(FrontendKey { place, protocol, port }, Arc::new(frontend));
                    }
                }
            }
        }
    }
    plan
}

/// What the plan says, in the plainest words: where to, and whether with an address of the node.
fn expected(
    frontend: &Frontend,
    client: IpAddr,
    plan: &ServicePlan,
    own: &BTreeSet<IpAddr>,
) -> BTreeSet<String> {
    if frontend.sources.as_ref().is_some_and(|nets| !nets.iter().any(|net| net.contains(&client))) {
        return ["dropped".to_owned()].into();
    }
    let pod = plan.pods.iter().any(|net| net.contains(&client));
    let here = own.contains(&client);
    let (choice, masqueraded) = match frontend.policy {
        Policy::Internal => (&frontend.all, !pod),
        Policy::Cluster => (&frontend.all, true),
        Policy::Local if pod => (&frontend.all, false),
        Policy::Local if here => (&frontend.all, true),
        Policy::Local => (&frontend.local, false),
    };
    match choice {
        Choice::Reject => ["rejected".to_owned()].into(),
        Choice::Drop => ["dropped".to_owned()].into(),
        Choice::Backends(list) => {
            let one = |backend: &Backend| {
                let to = backend.address;
                // Itself, and what does not leave the node.
                let masqueraded = (masqueraded || to.ip() == client) && !own.contains(&to.ip());
                format!("{to} {masqueraded}")
            };
            list.iter().map(one).collect()
        }
    }
}

#[test]
fn every_frontend_leads_every_client_as_planned() {
    for ipv6 in FAMILIES {
        let plan = plan(ipv6);
        let tables = Tables::new(&plan, ipv6);
        let node = ip(ipv6, "10.168.0.2", "fd00:168::2");
        let own = BTreeSet::from([node, ip(ipv6, "10.244.0.1", "fd00:244::1")]);
        let clients = [
            ip(ipv6, "10.244.0.5", "fd00:244::5"),
            ip(ipv6, "10.244.7.7", "fd00:244:0:7::7"),
            ip(ipv6, "10.168.0.3", "fd00:168::3"),
            ip(ipv6, "192.0.2.9", "2001:db8:9::9"),
            node,
        ];
        let mut walked = 0;
        for (at, frontend) in &plan.frontends {
            for from in clients {
                let to = match at.place {
                    Place::Address(ip) => SocketAddr::new(ip, at.port),
                    Place::NodePort { .. } => SocketAddr::new(node, at.port),
                };
                let packet = Packet { from, to, protocol: at.protocol };
                let walks = tables.walk(&packet, &own).unwrap();
                let found: BTreeSet<String> = walks
                    .iter()
                    .map(|walk| match &walk.verdict {
                        Verdict::Passed => "passed".to_owned(),
                        Verdict::Rejected => "rejected".to_owned(),
                        Verdict::Dropped => "dropped".to_owned(),
                        Verdict::Led { to, masqueraded } => format!("{to} {masqueraded}"),
                    })
                    .collect();
                let expected = expected(frontend, from, &plan, &own);
                assert_eq!(found, expected, "{from} to {at}: {frontend:?}");
                assert_eq!(walks.len(), expected.len(), "each as likely as the others");
                assert!(walks.iter().all(|walk| !walk.steps.is_empty()));
                walked += 1;
            }
        }
        assert!(walked > 2000, "{walked}");
    }
}

#[test]
fn what_is_no_frontend_passes_but_for_other_ports_of_cluster_ips() {
    let plan = plan(false);
    let tables = Tables::new(&plan, false);
    let own = BTreeSet::from(["10.168.0.2".parse().unwrap()]);
    for (to, verdict) in [
        ("10.96.0.7:9", Verdict::Rejected),
        ("10.96.0.8:80", Verdict::Passed),
        ("10.168.0.2:22", Verdict::Passed),
        ("10.168.0.3:2000", Verdict::Passed),
        ("192.0.2.1:443", Verdict::Passed),
    ] {
        let packet =
            Packet { from: "10.244.0.5".parse().unwrap(), to: to.parse().unwrap(), protocol: Protocol::Tcp };
        let walks = tables.walk(&packet, &own).unwrap();
        assert_eq!(walks.iter().map(|walk| walk.verdict.clone()).collect::<Vec<_>>(), [verdict], "{to}");
    }
}
