//! More prefixes than may be, from each of them and to each of them.

use weft_bgp::PerFamily;
use weft_bgp::speaker::Settings;
use weft_kernel::testing::eventually;

use crate::judge::{self, Judge, Kind};
use crate::world::{
    PATIENCE, World, learnt, neighbour, originate, settings, start, until, until_learnt, until_told,
};

fn ours(prefixes: &[&str], most: Option<usize>) -> Settings {
    let mut ours = settings(65001, "10.0.1.1");
    let mut peer = neighbour("10.0.1.2", 65002);
    peer.max_prefixes = PerFamily { ipv4: most, ipv6: None };
    ours.neighbours.insert("judge".into(), peer);
    originate(&mut ours, prefixes);
    ours
}

const THREE: [&str; 3] = ["10.20.0.0/16", "10.21.0.0/16", "10.22.0.0/16"];

/// They tell more than we take: the session ends until people have it begin again.
fn they_tell_too_much(kind: Kind) {
    let world = World::new();
    let speaker = start(&world.first, ours(&["10.10.0.0/16"], Some(2)));
    let theirs = judge::Neighbour::new("10.0.1.2", "10.0.1.1", 65001);
    let config = judge::Config::new(65002, "10.0.1.2", vec![theirs], &THREE);
    let judge = Judge::start(kind, &world.middle, world.folder("judge"), &config);
    until(&speaker, "there are too many", |status| {
        status.neighbours["judge"].last_fall.as_deref() == Some("more than 2 prefixes")
    });
    let of = speaker.status().neighbours["judge"].clone();
    assert_eq!((of.state.as_str(), of.established), ("idle", 1));
    assert_eq!(learnt(&speaker, "judge"), []);
    eventually(PATIENCE, "they have heard why", || {
        let said = (judge.log() + &judge.sessions()).to_lowercase();
        match kind {
            Kind::Bird => said.contains("maximum number of prefixes reached"),
            Kind::Frr => said.contains("cease/maximum number of prefixes reached"),
            Kind::Gobgp => said.contains("subcode 1(maximum number of prefixes reached)"),
        }
    });
    // With room for them it begins again.
    speaker.set(ours(&["10.10.0.0/16"], Some(3))).unwrap();
    until_learnt(&speaker, "judge", &THREE);
    until_told(&judge, &["10.10.0.0/16"]);
}

/// We tell more than they take.
fn we_tell_too_much(kind: Kind) {
    let world = World::new();
    let speaker = start(&world.first, ours(&["10.10.0.0/16"], None));
    let theirs =
        judge::Neighbour { max_prefixes: Some(1), ..judge::Neighbour::new("10.0.1.2", "10.0.1.1", 65001) };
    let config = judge::Config::new(65002, "10.0.1.2", vec![theirs], &[]);
    let judge = Judge::start(kind, &world.middle, world.folder("judge"), &config);
    until_told(&judge, &["10.10.0.0/16"]);
    speaker.set(ours(&["10.10.0.0/16", "10.11.0.0/16"], None)).unwrap();
    if kind == Kind::Frr {
        // 8.4 takes one more, and looks when the next comes.
        until_told(&judge, &["10.10.0.0/16", "10.11.0.0/16"]);
        speaker.set(ours(&["10.10.0.0/16", "10.11.0.0/16", "10.12.0.0/16"], None)).unwrap();
    }
    let why = "the neighbour ended it: maximum number of prefixes reached (6/1)";
    until(&speaker, "they say why", |status| status.neighbours["judge"].last_fall.as_deref() == Some(why));
}

fn both(kind: Kind) {
    they_tell_too_much(kind);
    we_tell_too_much(kind);
}

#[test]
fn bird_and_we_end_a_session_of_too_many_prefixes() {
    both(Kind::Bird);
}

#[test]
fn frr_and_we_end_a_session_of_too_many_prefixes() {
    both(Kind::Frr);
}

#[test]
fn gobgp_and_we_end_a_session_of_too_many_prefixes() {
    both(Kind::Gobgp);
}
