//! Peers that come and go, and come again.

use super::*;
use crate::message::{Community, LongLived};
use Relation::Internal;

const A: &str = "10.1.0.0/16";
const B: &str = "10.2.0.0/16";
const BOTH: PerFamily<bool> = PerFamily { ipv4: true, ipv6: true };

/// Two clients, of which the first has told two routes.
fn world() -> World {
    let mut world = World::new();
    for _ in 0..2 {
        world.peer(Internal, |peer, terms| {
            peer.client = true;
            terms.long_lived.ipv4 = Some(LongLived { kept: true, time: 60 });
        });
    }
    world.announce(0, A, &route(1, Internal));
    world.announce(0, B, &route(1, Internal));
    world.drain();
    world
}

fn seen(world: &mut World) -> [bool; 2] {
    world.drain();
    [A, B].map(|prefix| world.sees(1, prefix).is_some())
}

#[test]
fn who_goes_takes_its_routes_along() {
    let mut world = world();
    let id = world.peers[0].id;
    world.rib.down(id, PerFamily::default());
    assert_eq!(seen(&mut world), [false, false]);
    assert!(world.rib.is_empty());
    world.rib.remove_peer(id);
    assert_eq!(world.rib.add_peer(Peer::new([10, 0, 0, 9].into())), id);
}

#[test]
fn who_restarts_keeps_what_it_tells_again() {
    let mut world = world();
    let (id, terms) = (world.peers[0].id, world.peers[0].terms.clone());
    let messages = world.peers[1].messages;
    world.rib.down(id, BOTH);
    assert_eq!(seen(&mut world), [true, true]);
    world.rib.up(id, &terms);
    world.announce(0, A, &route(1, Internal));
    world.rib.sweep(id, Family::Ipv4);
    assert_eq!(seen(&mut world), [true, false]);
    assert_eq!(world.peers[1].messages, messages + 1, "nothing but that one is gone");
    // Whoever falls twice loses what was stale already.
    world.rib.down(id, BOTH);
    assert_eq!(seen(&mut world), [true, false]);
    world.rib.down(id, BOTH);
    assert_eq!(seen(&mut world), [false, false]);
}

#[test]
fn long_lived_stale_routes_are_the_last_to_be_taken() {
    let mut world = world();
    let mut shy = route(1, Internal);
    shy.communities = [Community::NO_LLGR].into();
    world.announce(0, B, &shy);
    let third = world.peer(Internal, |_, _| {});
    let id = world.peers[0].id;
    world.rib.down(id, BOTH);
    world.rib.long_lived(id, Family::Ipv4);
    assert_eq!(seen(&mut world), [true, false]);
    assert!(world.sees(1, A).unwrap().has(Community::LLGR_STALE));
    // Who knows nothing of it is not told.
    assert_eq!(world.sees(third, A), None);
    let mut worse = route(3, Internal);
    worse.local_pref = Some(1);
    world.announce(third, A, &worse);
    assert_eq!(world.best(A), Some(third));
}

#[test]
fn what_is_not_sent_again_after_a_refresh_is_gone() {
    let mut world = world();
    let id = world.peers[0].id;
    world.rib.handle_refresh(id, Family::Ipv4, RefreshKind::Begin);
    world.announce(0, B, &route(1, Internal));
    assert_eq!(seen(&mut world), [true, true]);
    world.rib.handle_refresh(id, Family::Ipv4, RefreshKind::End);
    assert_eq!(seen(&mut world), [false, true]);
}

#[test]
fn while_held_back_nothing_is_told() {
    let mut world = World::new();
    world.rib.hold_back(true);
    world.peer(Internal, |peer, _| peer.client = true);
    world.peer(Internal, |peer, _| peer.client = true);
    world.announce(0, A, &route(1, Internal));
    world.drain();
    assert_eq!((world.peers[1].messages, world.rib.flush(9)), (0, Flushed::default()));
    world.rib.hold_back(false);
    assert_eq!(seen(&mut world), [true, false]);
    assert_eq!(world.peers[1].ends, Family::ALL);
}
