//! Each of them as a peer.

use weft_bgp::speaker::{End, Filter, Neighbour, Password, Ttl};

use crate::judge::{self, Judge, Kind};
use crate::world::{World, neighbour, originate, settings, start, until_learnt, until_told};

/// Our address, the judge's, and what each of us originates.
struct Case {
    name: &'static str,
    ours: &'static str,
    theirs: &'static str,
    our_as: u32,
    their_as: u32,
    ours_told: &'static [&'static str],
    theirs_told: &'static [&'static str],
    /// What is special: ours of it, and theirs.
    also: fn(&mut Neighbour, &mut judge::Neighbour),
}

const V4: Case = Case {
    name: "outside, IPv4",
    ours: "10.0.1.1",
    theirs: "10.0.1.2",
    our_as: 65001,
    their_as: 65002,
    ours_told: &["10.10.0.0/16", "10.11.0.0/24"],
    theirs_told: &["10.20.0.0/16", "10.21.1.0/24"],
    also: |_, _| {},
};

fn sign(ours: &mut Neighbour, theirs: &mut judge::Neighbour) {
    ours.password = Password::new("correct-horse");
    theirs.password = Some("correct-horse");
}

fn near(ours: &mut Neighbour, theirs: &mut judge::Neighbour) {
    ours.ttl = Ttl::Security(1);
    theirs.ttl_security = true;
}

const V6: Case = Case {
    name: "outside, IPv6",
    ours: "fd00:1::1",
    theirs: "fd00:1::2",
    ours_told: &["fd10::/32", "fd11::/48"],
    theirs_told: &["fd20::/32", "fd21::/48"],
    ..V4
};

const CASES: [Case; 11] = [
    V4,
    V6,
    Case { name: "inside, IPv4", their_as: 65001, ..V4 },
    Case { name: "inside, IPv6", their_as: 65001, ..V6 },
    Case { name: "large numbers", our_as: 4_200_000_001, their_as: 4_200_000_002, ..V4 },
    Case { name: "they wait for us", also: |_, theirs| theirs.passive = true, ..V4 },
    Case { name: "we wait for them", also: |ours, _| ours.passive = true, ..V6 },
    Case { name: "signed, IPv4", also: sign, ..V4 },
    Case { name: "signed, IPv6", also: sign, ..V6 },
    Case { name: "near, IPv4", also: near, ..V4 },
    Case { name: "near, IPv6", also: near, ..V6 },
];

fn exchange(kind: Kind, case: &Case) {
    eprintln!("{kind:?}: {}", case.name);
    let world = World::new();
    let mut ours = settings(case.our_as, "10.0.1.1");
    let mut theirs = judge::Neighbour::new(case.theirs, case.ours, case.our_as);
    let mut peer = neighbour(case.theirs, case.their_as);
    (case.also)(&mut peer, &mut theirs);
    ours.neighbours.insert("judge".into(), peer);
    originate(&mut ours, case.ours_told);
    let speaker = start(&world.first, ours);
    let config = judge::Config::new(case.their_as, "10.0.1.2", vec![theirs], case.theirs_told);
    let judge = Judge::start(kind, &world.middle, world.folder("judge"), &config);
    until_learnt(&speaker, "judge", case.theirs_told);
    let routes = speaker.routes(Filter::default());
    let of_theirs = routes.iter().filter(|route| route.neighbour.is_some());
    assert!(of_theirs.clone().all(|route| route.next_hop.to_string() == case.theirs), "{routes:?}");
    until_told(&judge, case.ours_told);
    let path = if case.our_as == case.their_as { String::new() } else { case.our_as.to_string() };
    assert!(judge.routes().iter().all(|route| (&*route.next_hop, &route.as_path) == (case.ours, &path)));
    let status = speaker.status();
    let of = &status.neighbours["judge"];
    assert_eq!((of.state.as_str(), of.established, of.malformed.len()), ("established", 1, 0), "{of:?}");
    // They are told why.
    speaker.stop(End::Cease("until the café opens".to_owned()));
    until_told(&judge, &[]);
    let said = judge.log() + &judge.sessions();
    assert!(says_why(kind, &said), "{said}");
}

/// Whether a judge has told the people at its end why the session ended.
fn says_why(kind: Kind, said: &str) -> bool {
    match kind {
        Kind::Bird => said.contains("Administrative shutdown: \"until the café opens\""),
        // Its log has ASCII alone.
        Kind::Frr => said.contains(r#"(Cease/Administrative Shutdown) "until the caf\xc3\xa9 opens""#),
        Kind::Gobgp => said.contains("\"Communicated-Reason\":\"until the café opens\""),
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
