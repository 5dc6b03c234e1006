use ipnet::IpNet;
use weft_model::bgp::CommunityValue;
use weft_model::pools::IpPool;
use weft_model::service::{EXCLUDE_LABEL, Endpoint, EndpointSlice, Service, ServiceType};

use super::*;
use crate::message::{Attributes, Community, NextHop};

fn told(cluster: &Cluster, node: &str) -> Vec<String> {
    let settings = planned(cluster, node).settings.unwrap();
    settings.originated.keys().map(ToString::to_string).collect()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn speaking() -> Speaking {
    Speaking {
        cluster_ips: vec![net("10.96.0.0/16")],
        external_ips: vec![net("198.51.100.0/24")],
        load_balancer_ips: vec![net("192.0.2.0/24")],
        ..Speaking::default()
    }
}

/// A Service with an address of each kind, after its number.
fn service(number: u8, local: bool) -> Service {
    Service {
        namespace: "shop".into(),
        name: format!("s{number}").into(),
        kind: ServiceType::LoadBalancer,
        cluster_ips: vec![IpAddr::from([10, 96, 0, number])],
        external_ips: vec![IpAddr::from([198, 51, 100, number]), IpAddr::from([203, 0, 113, number])],
        load_balancer_ips: vec![IpAddr::from([192, 0, 2, number])],
        external_local: local,
        ..Service::default()
    }
}

fn with_service(mut cluster: Cluster, service: Service, endpoints: &[(&str, bool, bool)]) -> Cluster {
    let endpoint = |(node, ready, terminating): &(&str, bool, bool)| Endpoint {
        address: "10.244.1.9".parse().unwrap(),
        ready: *ready,
        serving: *ready,
        terminating: *terminating,
        node: Some((*node).into()),
        hints: None,
    };
    let slice = EndpointSlice {
        namespace: service.namespace.clone(),
        name: format!("{}-x", service.name).into(),
        service: service.name.clone(),
        ports: Vec::new(),
        endpoints: endpoints.iter().map(endpoint).collect(),
    };
    cluster.slices.insert(slice.key(), slice.into());
    cluster.services.insert(service.key(), service.into());
    cluster
}

#[test]
fn a_node_tells_where_its_pods_are_and_no_more() {
    let mut one = node(1, "a");
    one.pod_cidrs.push(net("fd00:1::/64"));
    one.loans = vec![net("10.244.2.7/32")];
    let all = with_service(cluster([one, node(2, "a")]), service(1, false), &[("n1", true, false)]);
    assert_eq!(told(&all, "n1"), ["10.244.1.0/24", "10.244.2.7/32", "fd00:1::/64"]);
    assert_eq!(told(&all, "n2"), ["10.244.2.0/24"]);
    let settings = planned(&all, "n1").settings.unwrap();
    let next_hop = |prefix: &str| settings.originated[&net(prefix)].next_hop;
    assert_eq!(next_hop("10.244.1.0/24"), NextHop::V4([0, 0, 0, 0].into()));
    assert_eq!(next_hop("fd00:1::/64"), NextHop::V6("::".parse().unwrap()));
}

#[test]
fn addresses_of_services_are_told_by_who_serves_them() {
    let all = with_configuration(cluster([node(1, "a"), node(2, "a")]), speaking());
    let all = with_service(all, service(1, false), &[("n1", true, false)]);
    let both = ["10.96.0.0/16", "192.0.2.1/32", "198.51.100.1/32"];
    for name in ["n1", "n2"] {
        let services: Vec<String> = told(&all, name).split_off(0);
        let services: Vec<&String> = services.iter().filter(|one| !one.starts_with("10.244")).collect();
        assert_eq!(services, both, "{name}");
    }
    for (endpoint, there) in [((true, false), true), ((false, false), false), ((true, true), false)] {
        let with = with_service(all.clone(), service(2, true), &[("n1", endpoint.0, endpoint.1)]);
        for address in ["10.96.0.2/32", "192.0.2.2/32", "198.51.100.2/32"] {
            assert_eq!(told(&with, "n1").contains(&address.to_owned()), there, "{endpoint:?}");
            assert!(!told(&with, "n2").contains(&address.to_owned()), "no endpoint is there");
        }
        assert!(!told(&with, "n1").iter().any(|one| one.starts_with("203.")), "that network is not told");
    }
    let gone = with_service(all.clone(), service(1, false), &[("n1", false, false)]);
    assert!(!told(&gone, "n2").contains(&"192.0.2.1/32".to_owned()), "nobody serves it");
    let excluded = Node { labels: [(EXCLUDE_LABEL.into(), "".into())].into(), ..node(2, "a") };
    let leaving = Node { leaving: true, ..node(2, "a") };
    for node in [excluded, leaving] {
        let mut all = all.clone();
        all.nodes.insert("n2".into(), node.into());
        assert_eq!(told(&all, "n2"), ["10.244.2.0/24"]);
    }
    let others = Service { proxy: Some("x".into()), ..service(1, false) };
    let others = with_service(all, others, &[("n1", true, false)]);
    assert!(!told(&others, "n1").contains(&"192.0.2.1/32".to_owned()), "another proxy's");
}

#[test]
fn communities_are_those_of_the_network() {
    let speaking = Speaking {
        communities: vec![(
            net("10.244.0.0/16"),
            vec![CommunityValue::Standard(7), CommunityValue::Large(1, 2, 3)],
        )],
        ..Speaking::default()
    };
    let mut one = node(1, "a");
    one.pod_cidrs.push(net("fd00:1::/64"));
    let all = with_configuration(cluster([one]), speaking);
    let settings = planned(&all, "n1").settings.unwrap();
    let of = |prefix: &str| -> &Attributes { &settings.originated[&net(prefix)] };
    assert_eq!(*of("10.244.1.0/24").communities, [Community(7)]);
    assert_eq!(of("10.244.1.0/24").large_communities.len(), of("fd00:1::/64").large_communities.len() + 1);
    assert!(of("fd00:1::/64").communities.is_empty());
}

#[test]
fn a_pool_may_stay_inside() {
    let mut all = cluster([node(1, "a")]);
    let pool = IpPool {
        name: "p".into(),
        uid: "u".into(),
        created: "".into(),
        cidr: net("10.244.0.0/16"),
        block_size: 24,
        disabled: false,
        nat_outgoing: false,
        manual: false,
        disable_bgp_export: true,
        node_selector: LabelSelector::default(),
        namespace_selector: LabelSelector::default(),
    };
    all.pools.insert("p".into(), pool.into());
    let mut tor = peering(Speakers::All, router("10.0.0.254", 65_001));
    tor.filters = vec!["all".into()];
    let all = with_filter(with_peer(all, "tor", tor), "all", Rules::default());
    let settings = planned(&all, "n1").settings.unwrap();
    let export = settings.neighbours["router/tor"].export.clone().unwrap();
    let (prefix, attributes) = settings.originated.first_key_value().unwrap();
    assert_eq!(export.apply(prefix, attributes), None);
}
