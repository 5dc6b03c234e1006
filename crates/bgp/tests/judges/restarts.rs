//! Graceful restart (RFC 4724) with each of them: whoever is killed, the other keeps its routes and sweeps what does
//! not come again.

use std::time::Duration;

use weft_bgp::speaker::{End, Settings};
use weft_kernel::testing::eventually;

use crate::judge::{self, Judge, Kind};
use crate::world::{
    PATIENCE, World, learnt, neighbour, originate, settings, start, until, until_learnt, until_told,
};

const TIME: u16 = 60;

fn ours(prefixes: &[&str]) -> Settings {
    let mut ours = settings(65001, "10.0.1.1");
    let mut peer = neighbour("10.0.1.2", 65002);
    peer.graceful_restart = Some(Duration::from_secs(TIME.into()));
    ours.neighbours.insert("judge".into(), peer);
    originate(&mut ours, prefixes);
    ours
}

fn theirs(prefixes: &[&str]) -> judge::Config {
    let mut theirs = judge::Neighbour::new("10.0.1.2", "10.0.1.1", 65001);
    theirs.graceful = Some(TIME);
    judge::Config::new(65002, "10.0.1.2", vec![theirs], prefixes)
}

/// They are killed and come back without one of their routes.
fn they_restart(kind: Kind) {
    let world = World::new();
    let speaker = start(&world.first, ours(&["10.10.0.0/16"]));
    let before = theirs(&["10.20.0.0/16", "10.21.0.0/16"]);
    let mut judge = Judge::start(kind, &world.middle, world.folder("judge"), &before);
    until_learnt(&speaker, "judge", &["10.20.0.0/16", "10.21.0.0/16"]);
    until_told(&judge, &["10.10.0.0/16"]);
    let after = judge::Config { restarted: true, ..theirs(&["10.20.0.0/16"]) };
    judge.restart(&after, || {
        until(&speaker, "their routes are stale", |status| status.neighbours["judge"].stale.ipv4);
        let kept = learnt(&speaker, "judge");
        assert_eq!(kept.len(), 2, "{kept:?}");
        assert!(kept.iter().all(|(_, stale)| *stale), "{kept:?}");
    });
    let mut least = 2;
    until(&speaker, "they have told their routes again", |status| {
        least = least.min(learnt(&speaker, "judge").len());
        status.neighbours["judge"].established == 2 && !status.neighbours["judge"].stale.ipv4
    });
    until_learnt(&speaker, "judge", &["10.20.0.0/16"]);
    assert!(!learnt(&speaker, "judge")[0].1);
    assert!(least > 0, "no route was there for a moment");
}

/// We end without a word, as a killed process does, and come back without one of our routes.
fn we_restart(kind: Kind) {
    let world = World::new();
    let speaker = start(&world.first, ours(&["10.10.0.0/16", "10.11.0.0/16"]));
    let judge = Judge::start(kind, &world.middle, world.folder("judge"), &theirs(&["10.20.0.0/16"]));
    until_learnt(&speaker, "judge", &["10.20.0.0/16"]);
    until_told(&judge, &["10.10.0.0/16", "10.11.0.0/16"]);
    speaker.stop(End::Restart);
    let fallen = |said: String| !said.contains("Established") && !said.contains("Establ ");
    eventually(PATIENCE, "they have lost the session", || fallen(judge.sessions()));
    assert_eq!(judge.prefixes(), ["10.10.0.0/16", "10.11.0.0/16"]);
    let after = Settings { restarted: Some(Duration::from_secs(30)), ..ours(&["10.10.0.0/16"]) };
    let speaker = start(&world.first, after);
    until_learnt(&speaker, "judge", &["10.20.0.0/16"]);
    until(&speaker, "we have heard them", |status| !status.held_back);
    let mut least = 2;
    eventually(PATIENCE, "they have swept what we do not tell", || {
        let prefixes = judge.prefixes();
        least = least.min(prefixes.len());
        prefixes == ["10.10.0.0/16"]
    });
    assert_eq!(least, 1);
}

#[test]
fn bird_restarts_and_waits_for_us() {
    they_restart(Kind::Bird);
    we_restart(Kind::Bird);
}

#[test]
fn frr_restarts_and_waits_for_us() {
    they_restart(Kind::Frr);
    we_restart(Kind::Frr);
}

#[test]
fn gobgp_restarts_and_waits_for_us() {
    they_restart(Kind::Gobgp);
    we_restart(Kind::Gobgp);
}
