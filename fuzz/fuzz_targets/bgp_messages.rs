//! A stream of BGP messages, by any terms: it is cut and read without a panic, and what is believed can be told
//! to another speaker and reads the same there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_bgp::message::{self, Capabilities, Message, Negotiated, Open, Relation};
use weft_bgp::{Family, PerFamily};

fn terms(bits: u8) -> Negotiated {
    let open = Open { asn: 65001, hold: 90, id: [10, 0, 0, 1].into(), capabilities: Capabilities::default() };
    let relations = [Relation::External, Relation::Internal, Relation::Confederation];
    let paths = PerFamily { ipv4: bits & 1 != 0, ipv6: bits & 2 != 0 };
    Negotiated {
        families: PerFamily { ipv4: true, ipv6: true },
        four_octet_as: bits & 4 != 0,
        extended_messages: bits & 8 != 0,
        extended_next_hop: bits & 16 != 0,
        enhanced_refresh: true,
        add_path_in: paths,
        ..Negotiated::new(&open, &open, relations[usize::from(bits >> 5) % 3])
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&bits, mut stream)) = data.split_first() else { return };
    let terms = terms(bits);
    // A speaker inside, of four octets and long messages: nothing is lost on the way to it.
    let inside = Negotiated {
        relation: Relation::Internal,
        four_octet_as: true,
        extended_messages: true,
        extended_next_hop: true,
        add_path_out: terms.add_path_in,
        ..terms.clone()
    };
    while let Ok(Some(frame)) = message::frame(stream, terms.extended_messages) {
        stream = &stream[frame.length()..];
        let Ok(Message::Update(update)) = Message::decode(&frame, Some(&terms)) else { continue };
        for list in update.withdrawn() {
            assert!(list.iter().all(|route| Family::of(&route.prefix) == list.family()));
        }
        for (attributes, list) in update.into_announced() {
            let mut out = Vec::new();
            if message::announce(&mut out, &inside, &attributes, list.family(), list.iter()).is_err() {
                continue;
            }
            let mut told = list.iter();
            let mut rest = &out[..];
            while let Some(frame) = message::frame(rest, true).expect("our own message") {
                rest = &rest[frame.length()..];
                let Ok(Message::Update(update)) = Message::decode(&frame, Some(&inside)) else { panic!() };
                assert!(update.malformed.is_empty());
                for (again, list) in update.into_announced() {
                    assert_eq!(again, attributes);
                    assert!(list.iter().all(|route| told.next() == Some(route)));
                }
            }
            assert!(rest.is_empty() && told.next().is_none());
        }
    }
});
