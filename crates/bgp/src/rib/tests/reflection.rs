//! Who is told of which route, and what of it.

use super::*;
use crate::message::{Community, ExtendedCommunity};
use Relation::{Confederation, External, Internal};

const PREFIX: &str = "10.1.0.0/16";

fn client(peer: &mut Peer, _: &mut Negotiated) {
    peer.client = true;
}

#[test]
fn clients_hear_all_and_others_hear_clients() {
    let mut world = World::new();
    let kinds = [(Internal, true), (Internal, true), (Internal, false), (Internal, false), (External, false)];
    for (relation, is_client) in kinds {
        world.peer(relation, |peer, _| peer.client = is_client);
    }
    let heard =
        |world: &World| -> Vec<usize> { (0..5).filter(|peer| world.sees(*peer, PREFIX).is_some()).collect() };
    for (from, to) in [(0, vec![1, 2, 3, 4]), (2, vec![0, 1, 4]), (4, vec![0, 1, 2, 3])] {
        world.announce(from, PREFIX, &route(from as u8 + 1, kinds[from].0));
        world.drain();
        assert_eq!(heard(&world), to, "from {from}");
        world.withdraw(from, PREFIX, 0);
        world.drain();
        assert!(heard(&world).is_empty() && world.rib.is_empty());
    }
    world.rib.originate(net(PREFIX), route(100, Internal));
    world.drain();
    assert_eq!(heard(&world), [0, 1, 2, 3, 4]);
}

#[test]
fn what_is_reflected_is_marked_and_nothing_else() {
    let mut world = World::new();
    world.peer(Internal, client);
    world.peer(Internal, client);
    let outside = world.peer(External, |_, _| {});
    let mut attributes = route(1, Internal);
    (attributes.med, attributes.local_pref) = (Some(7), Some(300));
    attributes.cluster_list = [[9, 9, 9, 9].into()].into();
    attributes.originator = Some([8, 8, 8, 8].into());
    world.announce(0, PREFIX, &attributes);
    world.announce(0, "10.2.0.0/16", &route(1, Internal));
    world.drain();
    let reflected =
        Attributes { cluster_list: [config().id, [9, 9, 9, 9].into()].into(), ..attributes.clone() };
    assert_eq!(world.sees(1, PREFIX), Some(&reflected));
    let first = world.sees(1, "10.2.0.0/16").unwrap();
    assert_eq!((first.originator, first.local_pref), (Some([10, 0, 0, 1].into()), Some(LOCAL_PREF)));
    let told = world.sees(outside, PREFIX).unwrap();
    assert_eq!(told.as_path, AsPath::sequence(&[OURS]));
    assert_eq!(told.next_hop, NextHop::V4(config().id));
    assert_eq!((told.med, told.local_pref, told.originator, told.cluster_list.len()), (None, None, None, 0));
    // From outside nothing is reflected: it is told with its own next hop.
    world.announce(outside, "10.3.0.0/16", &route(3, External));
    world.drain();
    let told = world.sees(0, "10.3.0.0/16").unwrap();
    assert_eq!((told.originator, told.next_hop), (None, route(3, External).next_hop));
}

#[test]
fn two_reflectors_of_a_cluster_make_no_loop() {
    let mut world = World::new();
    world.peer(Internal, client);
    world.peer(Internal, |_, _| {});
    // The other reflector tells the client's route back.
    let mut back = route(2, Internal);
    back.originator = Some([10, 0, 0, 1].into());
    back.cluster_list = [config().id].into();
    world.announce(1, PREFIX, &back);
    world.drain();
    assert_eq!(world.best(PREFIX), None);
    assert_eq!(world.sees(0, PREFIX), None);
}

#[test]
fn next_hop_self_is_for_routes_from_outside() {
    let mut world = World::new();
    let inside = world.peer(Internal, |peer, _| {
        (peer.next_hop_self, peer.client) = (true, true);
        peer.next_hop.ipv4 = Some(NextHop::V4([10, 0, 0, 101].into()));
    });
    let outside = world.peer(External, |_, _| {});
    let other = world.peer(Internal, |_, _| {});
    world.announce(outside, PREFIX, &route(2, External));
    world.announce(other, "10.2.0.0/16", &route(3, Internal));
    world.drain();
    assert_eq!(world.sees(inside, PREFIX).unwrap().next_hop, NextHop::V4([10, 0, 0, 101].into()));
    assert_eq!(world.sees(inside, "10.2.0.0/16").unwrap().next_hop, route(3, Internal).next_hop);
}

#[test]
fn communities_say_how_far_a_route_goes() {
    let cases = [
        (Community::NO_ADVERTISE, [false, false, false]),
        (Community::NO_EXPORT, [true, true, false]),
        (Community::NO_EXPORT_SUBCONFED, [true, false, false]),
        (Community(1), [true, true, true]),
        (Community::LLGR_STALE, [false, false, false]),
    ];
    for (community, heard) in cases {
        let mut world = World::new();
        world.peer(Internal, client);
        world.peer(Internal, |_, _| {});
        world.peer(Confederation, |_, _| {});
        world.peer(External, |_, _| {});
        let mut attributes = route(1, Internal);
        attributes.communities = [community].into();
        world.announce(0, PREFIX, &attributes);
        world.drain();
        assert_eq!([1, 2, 3].map(|peer| world.sees(peer, PREFIX).is_some()), heard, "{community}");
    }
}

#[test]
fn a_confederation_looks_like_one_as_from_outside() {
    let mut world = World::new();
    world.rib = Rib::new(Config { confederation: Some(64000), ..config() });
    let member = world.peer(Confederation, |_, _| {});
    let outside = world.peer(External, |_, _| {});
    let mut attributes = route(1, Internal);
    attributes.as_path = AsPath::sequence(&[7]).prepend_member(OURS + 1);
    attributes.extended_communities = [ExtendedCommunity([0x40; 8]), ExtendedCommunity([0; 8])].into();
    attributes.local_pref = Some(200);
    world.announce(member, PREFIX, &attributes);
    world.announce(outside, "10.2.0.0/16", &route(2, External));
    world.drain();
    let told = world.sees(outside, PREFIX).unwrap();
    assert_eq!(told.as_path, AsPath::sequence(&[64000, 7]));
    assert_eq!(*told.extended_communities, [ExtendedCommunity([0; 8])]);
    let told = world.sees(member, "10.2.0.0/16").unwrap();
    assert_eq!(told.as_path, AsPath::sequence(&[OURS + 2]).prepend_member(OURS));
    assert_eq!((told.local_pref, told.next_hop), (Some(LOCAL_PREF), route(2, External).next_hop));
    // Neither member nor confederation may come back.
    for asn in [OURS, 64000] {
        let mut looped = route(2, External);
        looped.as_path = AsPath::sequence(&[OURS + 2, asn]);
        world.announce(outside, "10.2.0.0/16", &looped);
        assert_eq!(world.best("10.2.0.0/16"), None);
    }
}

#[test]
fn policies_choose_and_change_what_is_told() {
    let mut world = World::new();
    world.peer(Internal, client);
    let rule = |inside: &str, set, then| policy::Rule {
        matches: vec![policy::Match::Prefix(vec![policy::Prefixes::within(net(inside))])],
        set,
        then,
    };
    let rules = vec![
        rule("10.9.0.0/16", vec![], policy::Verdict::Reject),
        rule(
            "10.1.0.0/16",
            vec![policy::Set::Med(Some(5)), policy::Set::NextHop(NextHop::V4([10, 7, 7, 7].into()))],
            policy::Verdict::Accept,
        ),
    ];
    let outside = world.peer(External, |peer, _| {
        peer.export = Some(Arc::new(policy::Policy { rules, otherwise: policy::Verdict::Accept }));
    });
    for prefix in [PREFIX, "10.9.0.0/24", "10.2.0.0/16"] {
        world.announce(0, prefix, &route(1, Internal));
    }
    world.drain();
    let told = world.sees(outside, PREFIX).unwrap();
    assert_eq!((told.med, told.next_hop), (Some(5), NextHop::V4([10, 7, 7, 7].into())));
    assert_eq!(world.sees(outside, "10.9.0.0/24"), None);
    assert_eq!(world.sees(outside, "10.2.0.0/16").unwrap().next_hop, NextHop::V4(config().id));
}

#[test]
fn ipv4_over_ipv6_goes_to_who_can_use_it() {
    let mut world = World::new();
    let extended = |peer: &mut Peer, terms: &mut Negotiated| {
        (peer.client, terms.extended_next_hop) = (true, true);
    };
    world.peer(Internal, extended);
    world.peer(Internal, extended);
    world.peer(Internal, client);
    let v6 = Attributes { next_hop: NextHop::V6("2001:db8::1".parse().unwrap()), ..route(1, Internal) };
    world.announce(0, PREFIX, &v6);
    world.announce(0, "2001:db8::/32", &v6);
    world.drain();
    assert_eq!([1, 2].map(|peer| world.sees(peer, PREFIX).is_some()), [true, false]);
    assert_eq!([1, 2].map(|peer| world.sees(peer, "2001:db8::/32").is_some()), [true, true]);
}
