//! What comes to who announces addresses: ARP, neighbours' packets, datagrams and beats; and an election that
//! the beats are thrown at, which never has to be asked twice and knows what it has.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use weft_announce::arp::Arp;
use weft_announce::datagram::Datagram;
use weft_announce::ndp::Neighbour;
use weft_announce::{Beat, Election, Word};

fn parse(data: &[u8]) {
    if let Some(arp) = Arp::decode(data) {
        assert_eq!(Arp::decode(&arp.encode()), Some(arp));
    }
    for summed in [false, true] {
        let _ = Neighbour::decode(data, summed);
        let _ = Datagram::decode(data, summed);
    }
    if let Ok(beat) = Beat::decode(data) {
        assert_eq!(beat.encode(), [data]);
    }
}

fuzz_target!(|data: &[u8]| {
    parse(data);
    let node = |i: u8| -> Arc<str> { format!("node{}", i % 4).into() };
    let address = |i: u8| IpAddr::from([10, 0, 0, 200 + i % 3]);
    let candidates: BTreeSet<Arc<str>> = (0..4).map(node).collect();
    let wanted: BTreeMap<IpAddr, BTreeSet<Arc<str>>> =
        (0..3).map(|i| (address(i), candidates.clone())).collect();
    let mut election = Election::new(node(0), 1);
    election.set_wanted(wanted);
    let mut now = Duration::ZERO;
    election.set_able(true, now);
    // What happens, of whom or what, and how much later.
    for step in data.chunks_exact(3) {
        now += Duration::from_millis(u64::from(step[2]) * 4);
        let word = match step[0] % 5 {
            0 => Word::Has,
            1 => Word::Restarts(Duration::from_secs(u64::from(step[2] % 31))),
            2 => Word::LetsGo,
            _ => {
                election.set_able(step[0] % 5 == 3, now);
                election.set_current(step[1] % 2 == 0);
                continue;
            }
        };
        let current = step[1] & 0x40 != 0;
        let beat = Beat { node: node(step[1]), run: 2, word, current, addresses: vec![address(step[1] / 4)] };
        for payload in beat.encode() {
            let beat = Beat::decode(&payload).expect("what was encoded");
            if step[1] & 0x80 == 0 {
                election.hear(&beat, now);
                continue;
            }
            for address in election.hear_unknown(&beat, now) {
                election.contested(address, now);
            }
        }
        election.poll(now);
        assert!(election.poll(now).is_empty(), "once is enough");
        assert!(election.wakes(now).is_none_or(|at| at > now), "nothing is due that was just done");
        for i in 0..3 {
            let owner = election.owner(address(i));
            assert_eq!(election.has(address(i)), owner.is_some_and(|owner| owner.node == node(0)));
        }
    }
});
