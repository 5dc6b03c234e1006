use std::time::Duration;

use weft_model::bgp::{NodeBgp, SecretKey};

use super::*;
use crate::policy::Policy;
use crate::session::PeerAs;
use crate::speaker::{self, Ttl};

fn reflector(node: Node, id: &str) -> Node {
    let bgp = NodeBgp { cluster_id: Some(id.parse().unwrap()), ..NodeBgp::default() };
    Node { bgp, ..node }
}

#[test]
fn nodes_speak_with_one_another_unless_told_otherwise() {
    let all = cluster([node(1, "a"), node(2, "a"), node(3, "b")]);
    assert_eq!(neighbours(&all, "n1"), ["node/n2", "node/n3"]);
    let plan = planned(&all, "n1");
    assert_eq!(plan.problems, Default::default());
    let settings = plan.settings.unwrap();
    assert_eq!((settings.local_as, settings.id.to_string()), (64_512, "10.0.0.1".to_owned()));
    assert_eq!(settings.listen, ["0.0.0.0:179".parse().unwrap()]);
    let two = &settings.neighbours["node/n2"];
    assert_eq!(two.remote, speaker::Remote::Address { ip: address(2), port: 179 });
    assert_eq!((two.peer_as, two.local_address, two.passive), (PeerAs::Is(64_512), Some(address(1)), true));
    assert_eq!(two.graceful_restart, Some(Duration::from_secs(120)));
    let other = planned(&all, "n2").settings.unwrap();
    assert!(!other.neighbours["node/n1"].passive, "one of both dials");
    let none = with_configuration(all, Speaking { mesh: false, ..Speaking::default() });
    assert_eq!(neighbours(&none, "n1"), [""; 0]);
}

#[test]
fn a_reflector_has_clients_and_no_part_in_the_mesh() {
    let (rr, like, other) = (
        reflector(node(1, "rr"), "244.0.0.1"),
        reflector(node(2, "rr"), "244.0.0.1"),
        reflector(node(3, "rr"), "244.0.0.2"),
    );
    let all = cluster([rr, like, other, node(4, "a"), node(5, "a")]);
    let with = || Remote::Nodes(labelled("rack", "rr"));
    let all = with_peer(all, "rr", peering(Speakers::All, with()));
    assert_eq!(neighbours(&all, "n4"), ["node/n1", "node/n2", "node/n3", "node/n5"], "and the mesh");
    let quiet = with_configuration(all, Speaking { mesh: false, ..Speaking::default() });
    assert_eq!(neighbours(&quiet, "n4"), ["node/n1", "node/n2", "node/n3"]);
    assert_eq!(neighbours(&quiet, "n1"), ["node/n2", "node/n3", "node/n4", "node/n5"], "from either end");
    let settings = planned(&quiet, "n1").settings.unwrap();
    assert_eq!(settings.cluster_id, Some("244.0.0.1".parse().unwrap()));
    let client = |name: &str| settings.neighbours[name].reflector_client;
    assert!(!client("node/n2") && client("node/n3") && client("node/n4"), "those of its cluster are not");
    let from_client = planned(&quiet, "n4").settings.unwrap();
    assert!(from_client.neighbours.values().all(|neighbour| !neighbour.reflector_client));
}

#[test]
fn a_router_is_spoken_with_by_those_that_are_to_and_by_a_filter() {
    let all = cluster([node(1, "a"), node(2, "b")]);
    let mut tor = peering(Speakers::Labelled(labelled("rack", "a")), router("10.0.0.254", 65_001));
    let bare = with_peer(all.clone(), "tor", tor.clone());
    let plan = planned(&bare, "n1");
    assert!(plan.problems.first().is_some_and(|why| why.contains("RFC 8212")), "{:?}", plan.problems);
    assert_eq!(neighbours(&bare, "n1"), ["node/n2"]);
    tor.filters = vec!["all".into()];
    tor.ttl_security = Some(1);
    tor.reachable_by = Some("10.0.0.253".parse().unwrap());
    let missing = with_peer(all, "tor", tor);
    assert!(planned(&missing, "n1").problems.first().unwrap().contains("no BGPFilter all"));
    let whole = with_filter(missing, "all", Rules::default());
    let plan = planned(&whole, "n1");
    assert_eq!(plan.problems, Default::default());
    assert_eq!(plan.gateways, [("10.0.0.254".parse().unwrap(), "10.0.0.253".parse().unwrap())].into());
    let neighbour = &plan.settings.unwrap().neighbours["router/tor"];
    assert_eq!((neighbour.peer_as, neighbour.ttl), (PeerAs::Is(65_001), Ttl::Security(1)));
    assert!(!neighbour.families.ipv6 && !neighbour.passive);
    assert_eq!(neighbours(&whole, "n2"), ["node/n1"], "it is in another rack");
    let inside = peering(Speakers::All, Remote::Router { ip: address(200), port: 1790, asn: None });
    let inside = planned(&with_peer(whole, "own", inside), "n2").settings.unwrap();
    let own = &inside.neighbours["router/own"];
    assert_eq!((own.peer_as, own.import.is_some()), (PeerAs::Is(64_512), true), "inside no filter is needed");
}

#[test]
fn of_two_that_name_one_router_the_older_has_it() {
    let with = |cluster, name: &str, created: &str| {
        let mut cluster = with_peer(cluster, name, peering(Speakers::All, router("10.0.0.254", 64_512)));
        let spec = cluster.bgp_peers[name].spec.clone();
        let peer = BgpPeer { name: name.into(), created: created.into(), spec };
        cluster.bgp_peers.insert(name.into(), peer.into());
        cluster
    };
    let all = with(with(cluster([node(1, "a")]), "a", "2026-02-01T00:00:00Z"), "b", "2026-01-01T00:00:00Z");
    assert_eq!(neighbours(&all, "n1"), ["router/b"]);
    assert!(planned(&all, "n1").problems.first().unwrap().starts_with("BGPPeer a: the older BGPPeer b"));
}

#[test]
fn without_its_password_there_is_no_session() {
    let key = SecretKey { namespace: "weft-system".into(), name: "s".into(), key: "k".into() };
    let mut speaking = Speaking { mesh_password: Some(key.clone()), ..Speaking::default() };
    let all = with_configuration(cluster([node(1, "a"), node(2, "a")]), speaking.clone());
    let without = planned(&all, "n1");
    assert_eq!(without.secrets, [key.clone()].into());
    assert!(without.settings.unwrap().neighbours.is_empty());
    assert!(without.problems.first().unwrap().contains("k of the Secret weft-system/s is not known"));
    let with = plan(&all, "n1", &[(key.clone(), "geheim".into())].into());
    assert!(with.settings.unwrap().neighbours["node/n2"].password.is_some());
    let long = plan(&all, "n1", &[(key, "x".repeat(1000).into())].into());
    assert!(long.problems.first().unwrap().contains("too long"));
    speaking.mesh_password = None;
    assert_eq!(neighbours(&with_configuration(all, speaking), "n1"), ["node/n2"]);
}

#[test]
fn nodes_of_two_families_speak_by_the_one_they_share() {
    let dual = |number: u8| {
        let mut node = node(number, "a");
        node.addresses.push(format!("fd01::{number}").parse().unwrap());
        node
    };
    let six = |number: u8| Node { addresses: dual(number).addresses.split_off(1), ..node(number, "a") };
    let all = cluster([dual(1), dual(2), node(3, "a"), six(4)]);
    let settings = planned(&all, "n1").settings.unwrap();
    assert_eq!(settings.listen.len(), 2);
    let families = |name: &str| {
        let neighbour = &settings.neighbours[name];
        (neighbour.local_address.unwrap().is_ipv4(), neighbour.families.ipv4, neighbour.families.ipv6)
    };
    assert_eq!(families("node/n2"), (true, true, true));
    assert_eq!(families("node/n3"), (true, true, false));
    assert_eq!(families("node/n4"), (false, true, true));
    let plan = planned(&all, "n3");
    assert!(plan.problems.first().unwrap().contains("n3 and n4 have no addresses of one family"));
    assert_ne!(planned(&all, "n4").settings.unwrap().id, std::net::Ipv4Addr::UNSPECIFIED);
}

#[test]
fn what_makes_no_sense_is_told_and_the_rest_holds() {
    let mut all = cluster([node(1, "a"), node(2, "a")]);
    let peer = BgpPeer { name: "bad".into(), created: "".into(), spec: Err("why".into()) };
    all.bgp_peers.insert("bad".into(), peer.into());
    for name in ["default", "other"] {
        let object = BgpConfiguration { name: name.into(), spec: Err("because".into()) };
        all.bgp_configurations.insert(name.into(), object.into());
    }
    let mut odd = node(1, "a");
    odd.bgp.nonsense.push("x".into());
    all.nodes.insert("n1".into(), odd.into());
    let plan = planned(&all, "n1");
    let problems: Vec<&str> = plan.problems.iter().map(String::as_str).collect();
    assert_eq!(problems.len(), 4, "{problems:?}");
    assert_eq!(plan.settings.unwrap().neighbours.len(), 1);
    assert_eq!(planned(&all, "n9"), Plan::default());
    let nowhere = Node { addresses: Vec::new(), ..node(1, "a") };
    assert_eq!(planned(&cluster([nowhere]), "n1").problems.len(), 1);
}

#[test]
fn policies_of_nodes_are_alike_and_do_not_grow() {
    let all = cluster((1..50).map(|number| node(number, "a")));
    let settings = planned(&all, "n1").settings.unwrap();
    let mut policies = settings.neighbours.values().map(|one| one.export.as_deref().unwrap());
    let first: &Policy = policies.next().unwrap();
    assert!(policies.all(|one| one == first) && !first.asks_for_prefix());
}
