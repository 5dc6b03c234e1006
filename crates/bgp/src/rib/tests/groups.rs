//! Groups of peers that are alike.

use super::*;
use Relation::{External, Internal};

fn client(peer: &mut Peer, _: &mut Negotiated) {
    peer.client = true;
}

fn prefix(i: u32) -> String {
    format!("10.{}.{}.0/24", i / 256, i % 256)
}

#[test]
fn alike_peers_are_sent_the_same_bytes() {
    let mut world = World::new();
    for _ in 0..5 {
        world.peer(Internal, client);
    }
    for i in 0..200 {
        world.announce(0, &prefix(i), &route(1, Internal));
    }
    world.rib.flush(usize::MAX);
    let chunks: Vec<Arc<[u8]>> =
        (1..5).filter_map(|peer| world.rib.poll_transmit(world.peers[peer].id)).collect();
    assert_eq!(chunks.len(), 4);
    assert!(chunks.iter().all(|chunk| Arc::ptr_eq(chunk, &chunks[0])));
    // One UPDATE for all of them, and nothing for who told them.
    let frame = message::frame(&chunks[0], false).unwrap().unwrap();
    assert_eq!(frame.length(), chunks[0].len());
    assert_eq!(world.rib.poll_transmit(world.peers[0].id), None);
    assert_eq!(world.rib.groups.iter().flatten().count(), 1);
}

#[test]
fn a_route_that_moves_is_withdrawn_from_who_has_it_now() {
    let mut world = World::new();
    for _ in 0..3 {
        world.peer(Internal, client);
    }
    let better = |number| Attributes { local_pref: Some(200), ..route(number, Internal) };
    world.announce(0, &prefix(1), &route(1, Internal));
    world.drain();
    assert!(world.sees(0, &prefix(1)).is_none() && world.sees(1, &prefix(1)).is_some());
    world.announce(1, &prefix(1), &better(2));
    world.drain();
    assert!(world.sees(0, &prefix(1)).is_some() && world.sees(1, &prefix(1)).is_none());
    assert_eq!(world.sees(2, &prefix(1)).unwrap().originator, Some([10, 0, 0, 2].into()));
}

#[test]
fn who_comes_later_hears_all_and_its_end() {
    let mut world = World::new();
    world.peer(Internal, client);
    for i in 0..5000 {
        world.announce(0, &prefix(i), &route(1, Internal));
    }
    while world.rib.flush(1000).more {}
    let late = world.peer(Internal, client);
    assert_eq!((world.peers[late].routes.len(), &world.peers[late].ends[..]), (5000, &Family::ALL[..]));
    // What changes while it hears is not lost, wherever it is.
    let mut later = World::new();
    later.peer(Internal, client);
    later.peer(Internal, client);
    for i in 0..5000 {
        later.announce(0, &prefix(i), &route(1, Internal));
    }
    while later.rib.flush(1000).more {}
    let id = later.peers[1].id;
    let terms = later.peers[1].terms.clone();
    later.rib.up(id, &terms);
    assert!(later.read_one(1));
    for i in [0, 1, 4998, 4999] {
        later.withdraw(0, &prefix(i), 0);
    }
    later.announce(0, &prefix(7), &Attributes { med: Some(1), ..route(1, Internal) });
    later.announce(0, &prefix(6000), &route(1, Internal));
    later.drain();
    assert_eq!(later.peers[1].routes.len(), 4997);
    assert_eq!(later.sees(1, &prefix(7)).unwrap().med, Some(1));
}

#[test]
fn routes_are_sent_again_when_asked_for_and_marked() {
    let mut world = World::new();
    world.peer(Internal, client);
    world.peer(Internal, client);
    for i in 0..3000 {
        world.announce(0, &prefix(i), &route(1, Internal));
    }
    world.drain();
    world.peers[1].ends.clear();
    let before = std::mem::take(&mut world.peers[1].routes);
    let id = world.peers[1].id;
    world.rib.handle_refresh(id, Family::Ipv4, RefreshKind::Request);
    world.drain();
    assert_eq!(world.peers[1].routes, before);
    assert_eq!(world.peers[1].marks, [(Family::Ipv4, RefreshKind::Begin), (Family::Ipv4, RefreshKind::End)]);
    assert!(world.peers[1].ends.is_empty());
    // And goes on as before.
    world.withdraw(0, &prefix(5), 0);
    world.drain();
    assert_eq!(world.peers[1].routes.len(), 2999);
}

#[test]
fn who_does_not_read_holds_no_more_than_a_bound_and_ends_up_right() {
    let mut world = World::new();
    for _ in 0..3 {
        world.peer(Internal, client);
    }
    // 4000 prefixes, which change over and over: far more than the log holds.
    let mut attributes = route(1, Internal);
    attributes.communities = (0..900).map(message::Community).collect();
    for round in 0..30 {
        for i in 0..400 {
            attributes.med = Some(round * 1000 + i);
            if (i + round) % 7 == 0 {
                world.withdraw(0, &prefix(i), 0);
            } else {
                world.announce(0, &prefix(i), &attributes);
            }
        }
        while world.rib.flush(100).more {}
        world.read(1);
    }
    let before = world.peers[2].messages;
    world.drain();
    assert_eq!(world.peers[1].routes, world.peers[2].routes);
    let caught_up = world.peers[2].messages - before;
    assert!(caught_up < 3000, "{caught_up} messages, not one for each of 12,000 changes");
}

#[test]
fn another_policy_takes_back_what_it_does_not_tell() {
    let mut world = World::new();
    let inside = world.peer(Internal, client);
    let outside = world.peer(External, |_, _| {});
    for i in 0..10 {
        world.announce(inside, &prefix(i), &route(1, Internal));
    }
    world.drain();
    assert_eq!(world.peers[outside].routes.len(), 10);
    let mut config = Peer::new([10, 0, 0, 2].into());
    config.next_hop.ipv4 = Some(NextHop::V4([10, 0, 0, 100].into()));
    let some = policy::Prefixes { inside: net("10.0.0.0/22"), lengths: 24..=24 };
    config.export = Some(Arc::new(policy::Policy::only(vec![some])));
    let id = world.peers[outside].id;
    world.rib.configure(id, config);
    world.drain();
    let left: Vec<String> = world.peers[outside].routes.keys().map(|nlri| nlri.prefix.to_string()).collect();
    assert_eq!(left, (0..4).map(prefix).collect::<Vec<_>>());
}

#[test]
fn several_paths_go_to_who_takes_them() {
    let mut world = World::new();
    let several = |peer: &mut Peer, terms: &mut Negotiated| {
        peer.client = true;
        (terms.add_path_in.ipv4, terms.add_path_out.ipv4) = (true, true);
    };
    let from = world.peer(Internal, several);
    let other = world.peer(Internal, client);
    let to = world.peer(Internal, several);
    let with = |med| Attributes { med: Some(med), ..route(1, Internal) };
    for path in [7, 8, 9] {
        world.announce_path(from, &prefix(1), path, &with(path)).unwrap();
    }
    world.announce(other, &prefix(1), &route(2, Internal));
    world.drain();
    let meds = |world: &World| -> Vec<Option<u32>> {
        let mut meds: Vec<_> = world.peers[to].routes.values().map(|attributes| attributes.med).collect();
        meds.sort();
        meds
    };
    assert_eq!(meds(&world), [None, Some(7), Some(8), Some(9)]);
    assert_eq!(world.peers[from].routes.len(), 1, "it is not told its own");
    world.withdraw(from, &prefix(1), 8);
    world.drain();
    assert_eq!(meds(&world), [None, Some(7), Some(9)]);
    assert_eq!(world.peers[other].routes.len(), 0, "its own is the best");
}
