//! What neighbours should not send, at a real socket: each gets the NOTIFICATION that it earns, and nobody else
//! notices.

use std::time::Duration;

use weft_bgp::session::PeerAs;
use weft_bgp::speaker::{Neighbour, Remote, Settings, Speaker};

use crate::raw::{Raw, message, open};
use crate::world::{World, add_address, learnt, neighbour, originate, settings, start, until};

/// What is written first, or once the session stands, and what comes of it.
struct Case {
    name: &'static str,
    established: bool,
    bytes: Vec<u8>,
    ends: Option<(u8, u8)>,
}

fn first(name: &'static str, bytes: Vec<u8>, ends: (u8, u8)) -> Case {
    Case { name, established: false, bytes, ends: Some(ends) }
}

fn later(name: &'static str, bytes: Vec<u8>, ends: Option<(u8, u8)>) -> Case {
    Case { name, established: true, bytes, ends }
}

/// An OPEN of ours with one octet of its body changed.
fn changed(at: usize, to: &[u8]) -> Vec<u8> {
    let mut bytes = open(65002, "10.0.1.2");
    bytes[19 + at..19 + at + to.len()].copy_from_slice(to);
    bytes
}

fn update(withdrawn: &[u8], attributes: &[u8], routes: &[u8]) -> Vec<u8> {
    let length = |part: &[u8]| (part.len() as u16).to_be_bytes();
    let body = [&length(withdrawn), withdrawn, &length(attributes), attributes, routes].concat();
    message(19 + body.len() as u16, 2, &body)
}

/// ORIGIN, AS_PATH and NEXT_HOP of a good route.
const GOOD: [u8; 20] = [0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xea, 0x40, 3, 4, 10, 0, 1, 2];

fn cases() -> Vec<Case> {
    let with = |more: &[u8]| update(&[], &[&GOOD[..], more].concat(), &[16, 10, 20]);
    vec![
        first("no marker", vec![0; 19], (1, 1)),
        first("of 18 bytes", message(18, 1, &[]), (1, 2)),
        first("of 4097 bytes", message(4097, 1, &[]), (1, 2)),
        first("of no type", message(19, 0, &[]), (1, 3)),
        first("of an unknown type", message(19, 6, &[]), (1, 3)),
        first("KEEPALIVE of 20 bytes", message(20, 4, &[0]), (1, 2)),
        first("KEEPALIVE first", message(19, 4, &[]), (5, 1)),
        first("UPDATE first", update(&[], &[], &[]), (5, 1)),
        first("of version 3", changed(0, &[3]), (2, 1)),
        first("of another AS", open(65003, "10.0.1.2"), (2, 2)),
        first("of hold time 1", changed(3, &[0, 1]), (2, 6)),
        first("of hold time 2", changed(3, &[0, 2]), (2, 6)),
        first("of identifier 0", changed(5, &[0; 4]), (2, 3)),
        first("parameters that run over", changed(9, &[255]), (2, 0)),
        first("a capability that runs over", changed(13, &[255]), (2, 0)),
        later("OPEN again", open(65002, "10.0.1.2"), Some((5, 3))),
        later("of 4097 bytes later", message(4097, 2, &[]), Some((1, 2))),
        later("withdrawn over the end", message(23, 2, &[0xff, 0xff, 0, 0]), Some((3, 1))),
        later("attributes over the end", message(23, 2, &[0, 0, 0xff, 0xff]), Some((3, 1))),
        later("a prefix of 33 bits", update(&[], &GOOD, &[33, 10, 20, 0, 0, 0]), Some((3, 10))),
        later("no attributes", update(&[], &[], &[16, 10, 20]), None),
        later("ORIGIN twice", with(&GOOD[..4]), None),
        later("ORIGIN of 3", update(&[], &[&[0x40, 1, 1, 3], &GOOD[4..]].concat(), &[16, 10, 20]), None),
        later("a segment of no numbers", with(&[0x40, 2, 2, 2, 0]), None),
        later("an attribute over the end", with(&[0xc0, 8, 200, 0]), None),
        later("a next hop of 0.0.0.0", update(&[], &[&GOOD[..16], &[0; 4]].concat(), &[16, 10, 20]), None),
        later("a well-known attribute that there is not", with(&[0x40, 99, 0]), Some((3, 2))),
        later("ROUTE-REFRESH of 5 bytes", message(24, 5, &[0, 1, 0, 1, 0]), Some((7, 1))),
    ]
}

fn speaker(world: &World) -> Speaker {
    let mut ours: Settings = settings(65001, "10.0.1.1");
    let waits = |of: Neighbour| Neighbour { passive: true, ..of };
    ours.neighbours.insert("rubbish".into(), waits(neighbour("10.0.1.2", 65002)));
    ours.neighbours.insert("other".into(), waits(neighbour("10.0.1.1", 65003)));
    originate(&mut ours, &["10.10.0.0/16"]);
    start(&world.first, ours)
}

#[test]
fn rubbish_ends_its_own_session_with_the_right_word_or_none() {
    for case in cases() {
        eprintln!("{}", case.name);
        let world = World::new();
        let speaker = speaker(&world);
        let mut other = Raw::dial("10.0.1.1", "10.0.1.1");
        other.establish(65003, "10.0.3.1");
        let mut rubbish = world.middle.run(|| Raw::dial("10.0.1.2", "10.0.1.1")).unwrap();
        if case.established {
            rubbish.establish(65002, "10.0.1.2");
            until(&speaker, "it stands", |status| status.neighbours["rubbish"].state == "established");
        }
        rubbish.write(&case.bytes);
        match case.ends {
            Some(ends) => assert_eq!(rubbish.end(), Some(ends), "{}", case.name),
            None => {
                // What comes after it is heard still.
                rubbish.write(&update(&[], &GOOD, &[24, 10, 99, 0]));
                until(&speaker, "the sentinel is there", |_| {
                    learnt(&speaker, "rubbish").iter().any(|(prefix, _)| prefix == "10.99.0.0/24")
                });
                assert_eq!(speaker.status().neighbours["rubbish"].established, 1);
            }
        }
        assert_eq!(speaker.status().neighbours["other"].state, "established", "{}", case.name);
    }
}

#[test]
fn who_is_nobodys_neighbour_is_told_nothing() {
    let world = World::new();
    let speaker = speaker(&world);
    let mut stranger = Raw::dial("127.0.0.1", "127.0.0.1");
    assert_eq!(stranger.next(), None);
    until(&speaker, "it is counted", |status| status.strangers == 1);
}

#[test]
fn a_network_has_room_for_so_many() {
    let world = World::new();
    let mut ours = settings(65001, "10.0.1.1");
    let network = Neighbour {
        remote: Remote::Prefix { net: "127.0.0.0/8".parse().unwrap(), limit: 2 },
        ..neighbour("127.0.0.1", 65002)
    };
    ours.neighbours.insert("network".into(), network);
    let speaker = start(&world.first, ours);
    let mut both = ["127.0.0.2", "127.0.0.3"].map(|from| Raw::dial(from, "127.0.0.1"));
    both[0].establish(65002, "10.0.0.2");
    until(&speaker, "both are there", |status| status.neighbours.len() == 2);
    assert_eq!(Raw::dial("127.0.0.4", "127.0.0.1").next(), None);
    let status = speaker.status();
    assert_eq!(status.neighbours["network/127.0.0.2"].state, "established");
    assert_eq!(status.neighbours["network/127.0.0.3"].state, "openSent");
    // Who is gone gives way.
    let [first, second] = both;
    drop(second);
    until(&speaker, "one is gone", |status| status.neighbours["network/127.0.0.3"].state == "active");
    let mut third = Raw::dial("127.0.0.4", "127.0.0.1");
    third.establish(65002, "10.0.0.4");
    until(&speaker, "the third is there", |status| {
        status.neighbours.get("network/127.0.0.4").is_some_and(|of| of.state == "established")
    });
    drop(first);
}

#[test]
fn one_byte_after_the_other_is_a_session_too() {
    let world = World::new();
    let speaker = speaker(&world);
    let mut slow = world.middle.run(|| Raw::dial("10.0.1.2", "10.0.1.1")).unwrap();
    slow.stream.set_nodelay(true).unwrap();
    let mut bytes = open(65002, "10.0.1.2");
    bytes.extend(message(19, 4, &[]));
    bytes.extend(update(&[], &GOOD, &[16, 10, 20]));
    bytes.iter().for_each(|byte| slow.write(&[*byte]));
    until(&speaker, "its route is there", |_| learnt(&speaker, "rubbish").len() == 1);
    assert!(slow.stands_for(Duration::from_millis(1)));
}

#[test]
fn who_connects_and_goes_all_the_time_disturbs_nobody() {
    let world = World::new();
    let speaker = speaker(&world);
    let mut other = Raw::dial("10.0.1.1", "10.0.1.1");
    other.establish(65003, "10.0.3.1");
    world
        .middle
        .run(|| {
            for i in 0..300 {
                let mut flapping = Raw::dial("10.0.1.2", "10.0.1.1");
                // It may be made to rest, and be closed at once.
                if i % 2 == 0 {
                    let _ = std::io::Write::write_all(&mut flapping.stream, &open(65002, "10.0.1.2"));
                }
            }
        })
        .unwrap();
    let status = speaker.status();
    assert_eq!(status.neighbours["other"].state, "established");
    assert_eq!(status.neighbours["other"].established, 1);
    assert_eq!(status.neighbours.len(), 2);
    // It is heard when it has come to its senses.
    until(&speaker, "it is heard again", |status| {
        let mut again = world.middle.run(|| Raw::dial("10.0.1.2", "10.0.1.1")).unwrap();
        let _ = std::io::Write::write_all(&mut again.stream, &open(65002, "10.0.1.2"));
        let _ = status;
        again.next().is_some()
    });
}

/// So many /24, with as many attributes.
fn many(count: u32) -> Vec<u8> {
    let updates = (0..count).flat_map(|i| {
        let community = [&[0xc0, 8, 4][..], &(1 + i).to_be_bytes()].concat();
        let [_, a, b, c] = ((20 << 16) + i).to_be_bytes();
        update(&[], &[&GOOD[..], &community].concat(), &[24, a, b, c])
    });
    updates.collect()
}

#[test]
fn who_never_reads_holds_up_nobody() {
    const MANY: usize = 100_000;
    let world = World::new();
    // Nobody takes a next hop of the loopback network, which those there would be told.
    add_address(&world.first, "lo", "10.9.0.1/24");
    let mut ours: Settings = settings(65001, "10.0.1.1");
    let network = Neighbour {
        remote: Remote::Prefix { net: "10.9.0.0/24".parse().unwrap(), limit: 3 },
        ..neighbour("10.9.0.1", 65002)
    };
    ours.neighbours.insert("network".into(), Neighbour { peer_as: PeerAs::External, ..network });
    let speaker = start(&world.first, ours);
    let mut deaf = Raw::dial("10.9.0.2", "10.9.0.1");
    deaf.establish(65002, "10.0.0.2");
    let mut reads = Raw::dial("10.9.0.3", "10.9.0.1");
    reads.establish(65003, "10.0.0.3");
    let mut tells = Raw::dial("10.9.0.4", "10.9.0.1");
    tells.establish(65002, "10.0.0.4");
    until(&speaker, "all are there", |status| {
        status.neighbours.values().filter(|of| of.state == "established").count() == 3
    });
    tells.write(&many(MANY as u32));
    let mut told = 0;
    while told < MANY {
        let came = reads.next().unwrap();
        assert_ne!(came.kind, 3, "{came:?}");
        if came.kind == 2 {
            let length = |at: usize| usize::from(u16::from_be_bytes([came.body[at], came.body[at + 1]]));
            let attributes = 2 + length(0);
            told += (came.body.len() - attributes - 2 - length(attributes)) / 4;
        }
    }
    let status = speaker.status();
    assert_eq!(status.neighbours["network/10.9.0.2"].state, "established");
    assert_eq!(status.prefixes, MANY);
}
