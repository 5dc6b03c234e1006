//! What we send, as tshark reads it.

use std::process::Command;
use std::time::Duration;

use weft_bgp::message::{Aggregator, AsPath, Attributes, Community, LargeCommunity, NextHop, Origin};
use weft_bgp::speaker::End;
use weft_kernel::testing::eventually;

use crate::judge::Program;
use crate::world::{PATIENCE, World, neighbour, originate, settings, start, until, until_learnt};

fn tshark(arguments: &[&str]) -> String {
    let output = Command::new("tshark").args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn tshark_reads_all_that_we_send() {
    let world = World::new();
    let file = world.folder("capture.pcapng").to_str().unwrap().to_owned();
    let log = world.folder("tshark.log");
    let arguments = ["-q", "-i", "left1", "-f", "tcp port 179", "-w", &file];
    let capture = Program::start(&world.first, &log, "tshark", &arguments);
    eventually(PATIENCE, "tshark captures", || {
        std::fs::read_to_string(&log).unwrap_or_default().contains("Capturing on")
            && std::fs::metadata(&file).is_ok_and(|file| file.len() > 0)
    });
    let everything = Attributes {
        origin: Origin::Incomplete,
        as_path: AsPath::sequence(&[4_200_000_000, 65010]),
        med: Some(7),
        local_pref: Some(300),
        atomic_aggregate: true,
        aggregator: Some(Aggregator { asn: 4_200_000_000, id: [10, 0, 0, 9].into() }),
        communities: [Community::NO_ADVERTISE, Community(65001 << 16 | 5)][1..].into(),
        large_communities: [LargeCommunity(65001, 87, 2)].into(),
        ..Attributes::new(NextHop::V4([10, 0, 1, 1].into()))
    };
    let mut first = settings(65001, "10.0.1.1");
    originate(&mut first, &["10.10.0.0/16", "fd10::/32"]);
    first.originated.insert("10.11.0.0/24".parse().unwrap(), everything.clone());
    let both = |ip, asn| {
        let mut both = neighbour(ip, asn);
        both.families.ipv4 = true;
        both.families.ipv6 = true;
        both.graceful_restart = Some(Duration::from_secs(60));
        both.long_lived = Some(Duration::from_secs(3600));
        both.add_path.ipv4.send = true;
        both.add_path.ipv4.receive = true;
        both
    };
    // Over IPv6, so that IPv4's routes have IPv6 next hops; outside with all that outsiders are told.
    first.neighbours.insert("middle".into(), both("fd00:1::2", 65002));
    let mut middle = settings(65002, "10.0.1.2");
    middle.neighbours.insert("first".into(), both("fd00:1::1", 65001));
    originate(&mut middle, &["10.20.0.0/16"]);
    let (first, middle_speaker) = (start(&world.first, first), start(&world.middle, middle.clone()));
    until_learnt(&middle_speaker, "first", &["10.10.0.0/16", "10.11.0.0/24", "fd10::/32"]);
    // It withdraws one, wants all again, and ends with a word.
    middle.originated.clear();
    middle.neighbours.get_mut("first").unwrap().max_prefixes.ipv4 = Some(100);
    middle_speaker.set(middle).unwrap();
    until(&middle_speaker, "all is told again", |status| status.neighbours["first"].updates > 6);
    until_learnt(&first, "middle", &[]);
    middle_speaker.stop(End::Cease("until tomorrow".to_owned()));
    until(&first, "it is down", |status| status.neighbours["middle"].state != "established");
    let of = |filter: &str| tshark(&["-r", &file, "-Y", filter, "-T", "fields", "-e", "bgp.type"]);
    eventually(PATIENCE, "the last word is captured", || of("bgp.notify.major_error == 6").contains('3'));
    drop(capture);
    let seen = of("bgp");
    for kind in ["1", "2", "3", "4", "5"] {
        assert!(seen.split([',', '\n', '\t']).any(|one| one == kind), "{kind}: {seen}");
    }
    let malformed =
        tshark(&["-r", &file, "-V", "-Y", "_ws.malformed || (bgp && _ws.expert.severity >= 0x600000)"]);
    assert_eq!(malformed, "");
    let text = tshark(&["-r", &file, "-V", "-Y", "bgp.type == 2"]);
    for wanted in ["10.11.0.0/24", "4200000000", "65001:5", "65001:87:2", "fd10::/32"] {
        assert!(text.contains(wanted), "{wanted}");
    }
}
