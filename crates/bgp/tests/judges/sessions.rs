//! Each of them as a peer.

use weft_kernel::testing::eventually;

use crate::judge::{self, Judge, Kind};
use crate::world::{PATIENCE, World, learnt, neighbour, originate, settings, start, until};

/// Our address, the judge's, and what each of us originates.
struct Case {
    name: &'static str,
    ours: &'static str,
    theirs: &'static str,
    our_as: u32,
    their_as: u32,
    ours_told: &'static [&'static str],
    theirs_told: &'static [&'static str],
}

const V4: Case = Case {
    name: "outside, IPv4",
    ours: "10.0.1.1",
    theirs: "10.0.1.2",
    our_as: 65001,
    their_as: 65002,
    ours_told: &["10.10.0.0/16", "10.11.0.0/24"],
    theirs_told: &["10.20.0.0/16", "10.21.1.0/24"],
};

const CASES: [Case; 4] = [
    V4,
    Case { name: "inside, IPv4", their_as: 65001, ..V4 },
    Case { name: "outside, IPv4, large numbers", our_as: 4_200_000_001, their_as: 4_200_000_002, ..V4 },
    Case {
        name: "outside, IPv6",
        ours: "fd00:1::1",
        theirs: "fd00:1::2",
        ours_told: &["fd10::/32", "fd11::/48"],
        theirs_told: &["fd20::/32", "fd21::/48"],
        ..V4
    },
];

fn exchange(kind: Kind, case: &Case) {
    eprintln!("{kind:?}: {}", case.name);
    let mut world = World::new();
    let mut ours = settings(case.our_as, "10.0.1.1");
    ours.neighbours.insert("judge".into(), neighbour(case.theirs, case.their_as));
    originate(&mut ours, case.ours_told);
    let speaker = start(world.test.ns(), ours);
    let config = judge::Config {
        asn: case.their_as,
        id: "10.0.1.2",
        neighbours: vec![judge::Neighbour::new(case.theirs, case.ours, case.our_as)],
        originated: case.theirs_told.iter().map(ToString::to_string).collect(),
        restarted: false,
    };
    let judge = Judge::start(kind, &world.judge(), world.folder("judge"), &config);
    until(&speaker, "they tell their routes", |_| learnt(&speaker, "judge").len() == case.theirs_told.len());
    let told: Vec<String> = learnt(&speaker, "judge").into_iter().map(|(prefix, _)| prefix).collect();
    assert_eq!(told, case.theirs_told);
    let next_hops: Vec<_> =
        speaker.routes(Default::default()).into_iter().filter(|r| r.neighbour.is_some()).collect();
    assert!(next_hops.iter().all(|route| route.next_hop.to_string() == case.theirs), "{next_hops:?}");
    eventually(PATIENCE, "they have our routes", || judge.routes().len() == case.ours_told.len());
    for (route, prefix) in judge.routes().iter().zip(case.ours_told) {
        let path = if case.our_as == case.their_as { String::new() } else { case.our_as.to_string() };
        assert_eq!((&*route.prefix, &*route.next_hop, &route.as_path), (*prefix, case.ours, &path));
    }
}

#[test]
fn bird_and_we_tell_each_other_our_routes() {
    CASES.iter().for_each(|case| exchange(Kind::Bird, case));
}

#[test]
fn frr_and_we_tell_each_other_our_routes() {
    CASES.iter().for_each(|case| exchange(Kind::Frr, case));
}

#[test]
fn gobgp_and_we_tell_each_other_our_routes() {
    CASES.iter().for_each(|case| exchange(Kind::Gobgp, case));
}
