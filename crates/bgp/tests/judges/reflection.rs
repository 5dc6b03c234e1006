//! Each of them as a reflector's client, and as the reflector.

use weft_bgp::speaker::Filter;

use crate::judge::{self, Judge, Kind};
use crate::world::{World, neighbour, originate, settings, start, until_learnt, until_told};

const AS: u32 = 65001;

/// Addresses of the first, of the middle towards both, and of the last, and a prefix of each of the outer ones.
struct Case {
    first: &'static str,
    middle: [&'static str; 2],
    last: &'static str,
    firsts: &'static [&'static str],
    lasts: &'static [&'static str],
}

const CASES: [Case; 2] = [
    Case {
        first: "10.0.1.1",
        middle: ["10.0.1.2", "10.0.2.1"],
        last: "10.0.2.2",
        firsts: &["10.10.0.0/16"],
        lasts: &["10.30.0.0/16", "10.31.0.0/16"],
    },
    Case {
        first: "fd00:1::1",
        middle: ["fd00:1::2", "fd00:2::1"],
        last: "fd00:2::2",
        firsts: &["fd10::/32"],
        lasts: &["fd30::/32", "fd31::/32"],
    },
];

/// Ours is the reflector of a judge and one more of ours.
fn client(kind: Kind, case: &Case) {
    let world = World::new();
    let mut reflector = settings(AS, "10.0.1.2");
    for (name, ip) in [("first", case.first), ("last", case.last)] {
        let mut client = neighbour(ip, AS);
        client.reflector_client = true;
        reflector.neighbours.insert(name.into(), client);
    }
    let reflector = start(&world.middle, reflector);
    let mut far = settings(AS, "10.0.2.2");
    far.neighbours.insert("reflector".into(), neighbour(case.middle[1], AS));
    originate(&mut far, case.lasts);
    let far = start(&world.last, far);
    let theirs = judge::Neighbour::new(case.first, case.middle[0], AS);
    let config = judge::Config::new(AS, "10.0.1.1", vec![theirs], case.firsts);
    let judge = Judge::start(kind, &world.first, world.folder("judge"), &config);
    until_learnt(&reflector, "first", case.firsts);
    until_told(&judge, case.lasts);
    assert!(judge.routes().iter().all(|route| route.next_hop == case.last), "{:?}", judge.routes());
    until_learnt(&far, "reflector", case.firsts);
    for route in far.routes(Filter { neighbour: Some("reflector".into()), ..Filter::default() }) {
        assert_eq!(route.next_hop.to_string(), case.first);
        assert_eq!(route.originator.unwrap().to_string(), "10.0.1.1");
        assert_eq!(route.cluster_list, ["10.0.1.2".parse::<std::net::Ipv4Addr>().unwrap()]);
    }
}

/// A judge is the reflector of two of ours.
fn reflector(kind: Kind, case: &Case) {
    let world = World::new();
    let ours = |id, reflector, prefixes| {
        let mut ours = settings(AS, id);
        ours.neighbours.insert("reflector".into(), neighbour(reflector, AS));
        originate(&mut ours, prefixes);
        ours
    };
    let first = start(&world.first, ours("10.0.1.1", case.middle[0], case.firsts));
    let last = start(&world.last, ours("10.0.2.2", case.middle[1], case.lasts));
    let of = |local, address| judge::Neighbour { client: true, ..judge::Neighbour::new(local, address, AS) };
    let neighbours = vec![of(case.middle[0], case.first), of(case.middle[1], case.last)];
    let config = judge::Config::new(AS, "10.0.1.2", neighbours, &[]);
    let _judge = Judge::start(kind, &world.middle, world.folder("judge"), &config);
    until_learnt(&first, "reflector", case.lasts);
    until_learnt(&last, "reflector", case.firsts);
    for (speaker, next_hop, originator) in [(&first, case.last, "10.0.2.2"), (&last, case.first, "10.0.1.1")]
    {
        for route in speaker.routes(Filter { neighbour: Some("reflector".into()), ..Filter::default() }) {
            assert_eq!(route.next_hop.to_string(), next_hop);
            assert_eq!(route.originator.unwrap().to_string(), originator);
            assert_eq!(route.cluster_list.len(), 1);
        }
    }
    // What comes back from the reflector is not taken for the other's.
    assert!(first.status().neighbours["reflector"].malformed.is_empty());
}

fn both(kind: Kind) {
    CASES.iter().for_each(|case| client(kind, case));
    CASES.iter().for_each(|case| reflector(kind, case));
}

#[test]
fn bird_is_reflected_and_reflects() {
    both(Kind::Bird);
}

#[test]
fn frr_is_reflected_and_reflects() {
    both(Kind::Frr);
}

#[test]
fn gobgp_is_reflected_and_reflects() {
    both(Kind::Gobgp);
}
