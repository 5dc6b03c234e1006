//! Heads, and the messages that are not UPDATEs.

use super::*;

fn error(kind: u8, body: &[u8]) -> Reason {
    let bytes = message(kind, body);
    let terms = terms(Relation::External);
    match frame(&bytes, false).and_then(|frame| Message::decode(&frame.unwrap(), Some(&terms)).map(|_| ())) {
        Ok(()) => panic!("no error"),
        Err(error) => error.reason,
    }
}

fn open_body(version: u8, asn: u16, hold: u16, id: [u8; 4], parameters: &[u8]) -> Vec<u8> {
    let mut body = vec![version];
    body.extend(asn.to_be_bytes());
    body.extend(hold.to_be_bytes());
    body.extend(id);
    body.extend(parameters);
    body
}

#[test]
fn a_stream_is_cut_wherever_it_is_split() {
    let mut stream = Vec::new();
    keepalive(&mut stream);
    end_of_rib(&mut stream, Family::Ipv6);
    refresh(&mut stream, Family::Ipv4, RefreshKind::Request);
    let whole: Vec<usize> = [19, 19 + 4 + 6, 23].to_vec();
    for cut in 0..stream.len() {
        let (mut seen, mut at) = (Vec::new(), 0);
        for end in [cut, stream.len()] {
            while let Some(frame) = frame(&stream[at..end], false).unwrap() {
                seen.push(frame.length());
                at += frame.length();
            }
        }
        assert_eq!(seen, whole, "cut at {cut}");
    }
}

#[test]
fn bad_heads_are_refused_before_their_bodies_come() {
    let head = |marker: u8, length: u16, kind: u8| {
        let mut head = vec![marker; 16];
        head.extend(length.to_be_bytes());
        head.push(kind);
        head
    };
    let error = |head: &[u8], extended| frame(head, extended).unwrap_err();
    assert_eq!(error(&[0xff, 0xfe], false).reason, Reason::NOT_SYNCHRONISED);
    assert_eq!(error(&head(0, 19, 4), false).reason, Reason::NOT_SYNCHRONISED);
    for (length, kind) in
        [(0, 4), (18, 4), (20, 4), (4097, 2), (65535, 2), (28, 1), (22, 2), (20, 3), (19, 5), (22, 5)]
    {
        let error = error(&head(u8::MAX, length, kind), false);
        assert_eq!((error.reason, &*error.data), (Reason::BAD_LENGTH, &length.to_be_bytes()[..]), "{length}");
    }
    // Even where messages may be long, these may not (RFC 8654).
    for kind in [1, 4] {
        assert_eq!(error(&head(u8::MAX, 4097, kind), true).reason, Reason::BAD_LENGTH);
    }
    assert!(frame(&head(u8::MAX, 65535, 2), true).unwrap().is_none());
    for kind in [0, 6, 255] {
        let error = error(&head(u8::MAX, 19, kind), false);
        assert_eq!((error.reason, &*error.data), (Reason::BAD_TYPE, &[kind][..]));
    }
}

#[test]
fn an_open_survives_the_wire_with_all_its_capabilities() {
    let both = AddPath { receive: true, send: true };
    let full = Open {
        asn: 4_200_000_000,
        hold: 9,
        id: Ipv4Addr::new(10, 0, 0, 7),
        capabilities: Capabilities {
            families: Some(PerFamily { ipv4: true, ipv6: true }),
            four_octet_as: Some(4_200_000_000),
            route_refresh: true,
            enhanced_refresh: true,
            extended_next_hop: true,
            extended_messages: true,
            add_path: PerFamily { ipv4: both, ipv6: AddPath { receive: true, send: false } },
            graceful_restart: Some(GracefulRestart {
                restarted: true,
                notification: true,
                time: 120,
                families: PerFamily { ipv4: Some(true), ipv6: Some(false) },
            }),
            long_lived: PerFamily { ipv4: Some(LongLived { kept: true, time: 86_400 }), ipv6: None },
        },
    };
    let plain = Open { asn: 65000, capabilities: Capabilities::default(), ..full };
    for open in [full, plain] {
        let mut bytes = Vec::new();
        super::open(&mut bytes, &open);
        let frame = frame(&bytes, false).unwrap().unwrap();
        let Ok(Message::Open(read)) = Message::decode(&frame, None) else { panic!() };
        assert_eq!(read, open);
    }
}

#[test]
fn bad_opens_say_what_is_bad() {
    let id = [10, 0, 0, 1];
    let four = |asn: u32| [&[8, 2, 6, 65, 4][..], &asn.to_be_bytes()].concat();
    let cases: [(&str, Reason, Vec<u8>); 22] = [
        ("version 3", Reason::VERSION, open_body(3, 65001, 90, id, &[0])),
        ("version 5", Reason::VERSION, open_body(5, 65001, 90, id, &[0])),
        ("AS 0", Reason::PEER_AS, open_body(4, 0, 90, id, &[0])),
        ("AS_TRANS alone", Reason::PEER_AS, open_body(4, 23456, 90, id, &[0])),
        ("four-octet AS 0", Reason::PEER_AS, open_body(4, 23456, 90, id, &four(0))),
        ("four-octet AS_TRANS", Reason::PEER_AS, open_body(4, 23456, 90, id, &four(23456))),
        ("two numbers", Reason::PEER_AS, open_body(4, 65001, 90, id, &four(65002))),
        ("wide and no AS_TRANS", Reason::PEER_AS, open_body(4, 65001, 90, id, &four(70000))),
        ("hold 1", Reason::HOLD_TIME, open_body(4, 65001, 1, id, &[0])),
        ("hold 2", Reason::HOLD_TIME, open_body(4, 65001, 2, id, &[0])),
        ("id 0", Reason::IDENTIFIER, open_body(4, 65001, 90, [0; 4], &[0])),
        ("parameters overrun", Reason::OPEN, open_body(4, 65001, 90, id, &[4, 2, 2])),
        ("parameters end early", Reason::OPEN, open_body(4, 65001, 90, id, &[0, 2])),
        ("parameter overruns", Reason::OPEN, open_body(4, 65001, 90, id, &[2, 2, 9])),
        ("parameter without length", Reason::OPEN, open_body(4, 65001, 90, id, &[1, 2])),
        ("unknown parameter", Reason::PARAMETER, open_body(4, 65001, 90, id, &[3, 1, 1, 0])),
        ("capability overruns", Reason::OPEN, open_body(4, 65001, 90, id, &[4, 2, 2, 65, 9])),
        ("capability without length", Reason::OPEN, open_body(4, 65001, 90, id, &[3, 2, 1, 65])),
        ("four-octet AS of length 0", Reason::OPEN, open_body(4, 65001, 90, id, &[4, 2, 2, 65, 0])),
        ("families of length 3", Reason::OPEN, open_body(4, 65001, 90, id, &[7, 2, 5, 1, 3, 0, 1, 0])),
        ("restart cut short", Reason::OPEN, open_body(4, 65001, 90, id, &[8, 2, 6, 64, 4, 0, 1, 0, 1])),
        ("extended overrun", Reason::OPEN, open_body(4, 65001, 90, id, &[255, 255, 0, 9, 2, 0, 0])),
    ];
    for (name, reason, body) in cases {
        assert_eq!(error(1, &body), reason, "{name}");
    }
    let version = message(1, &open_body(3, 65001, 90, id, &[0]));
    let version = Message::decode(&frame(&version, false).unwrap().unwrap(), None).unwrap_err();
    assert_eq!(&*version.data, [0, 4]);
}

#[test]
fn what_is_strange_in_an_open_but_harmless_is_taken() {
    let id = [224, 0, 0, 1];
    let read = |parameters: &[u8]| {
        let bytes = message(1, &open_body(4, 65001, 0, id, parameters));
        match Message::decode(&frame(&bytes, false).unwrap().unwrap(), None) {
            Ok(Message::Open(open)) => open.capabilities,
            other => panic!("{other:?}"),
        }
    };
    let refresh = Capabilities { route_refresh: true, ..Capabilities::default() };
    // Twice the same, one that nobody knows, one in a parameter of its own.
    assert_eq!(read(&[6, 2, 4, 2, 0, 2, 0]), refresh);
    assert_eq!(read(&[8, 2, 6, 2, 0, 199, 2, 1, 2]), refresh);
    assert_eq!(
        read(&[8, 2, 2, 2, 0, 2, 2, 6, 0]),
        Capabilities { extended_messages: true, ..refresh.clone() }
    );
    // Parameters of the extended form (RFC 9072), whatever the short length says.
    for length in [255, 1] {
        assert_eq!(read(&[length, 255, 0, 5, 2, 0, 2, 2, 0]), refresh);
    }
    // Families of others alone: none to speak of.
    let none = Capabilities { families: Some(PerFamily::default()), ..Capabilities::default() };
    assert_eq!(read(&[8, 2, 6, 1, 4, 0, 25, 0, 70]), none);
    // A mode of paths that there is not.
    assert_eq!(read(&[8, 2, 6, 69, 4, 0, 1, 1, 4]), Capabilities::default());
}

#[test]
fn terms_are_what_both_can() {
    let of = |capabilities| Open { asn: 65000, hold: 90, id: Ipv4Addr::LOCALHOST, capabilities };
    let all = Capabilities {
        families: Some(PerFamily { ipv4: false, ipv6: true }),
        four_octet_as: Some(65000),
        extended_messages: true,
        add_path: PerFamily::from_fn(|_| AddPath { receive: true, send: false }),
        graceful_restart: Some(GracefulRestart::default()),
        ..Capabilities::default()
    };
    let sends = Capabilities {
        add_path: PerFamily::from_fn(|_| AddPath { receive: true, send: true }),
        extended_messages: false,
        ..all.clone()
    };
    let terms = Negotiated::new(&of(all.clone()), &of(sends.clone()), Relation::Internal);
    assert!(terms.add_path_in.ipv6 && !terms.add_path_out.ipv6);
    assert!(!terms.extended_messages && terms.four_octet_as);
    assert_eq!(terms.families, PerFamily { ipv4: false, ipv6: true });
    assert!(terms.graceful_restart.is_some());
    // Who says nothing of families speaks IPv4 alone.
    let old = Negotiated::new(&of(all), &of(Capabilities::default()), Relation::Internal);
    assert_eq!(old.families, PerFamily::default());
    assert!(!old.four_octet_as && old.graceful_restart.is_none());
}

#[test]
fn a_shutdown_says_why() {
    let why = Notification::with_text(Reason::SHUTDOWN, "new switch\u{7} on rack 4, back at 14:00");
    let mut bytes = Vec::new();
    notification(&mut bytes, &why);
    let frame = frame(&bytes, false).unwrap().unwrap();
    let Ok(Message::Notification(read)) = Message::decode(&frame, None) else { panic!() };
    assert_eq!(read, why);
    assert_eq!(read.text().unwrap(), "new switch on rack 4, back at 14:00");
    assert_eq!(read.to_string(), "administrative shutdown (6/2): new switch on rack 4, back at 14:00");
    // Of two bytes each, 255 bytes are 127 characters.
    let long = Notification::with_text(Reason::ADMINISTRATIVE_RESET, &"é".repeat(300));
    assert_eq!(long.text().unwrap(), "é".repeat(127));
    for data in [&[9, b'a'][..], &[1, 0xff], &[0], &[]] {
        assert_eq!(Notification::new(Reason::SHUTDOWN, data).text(), None, "{data:?}");
    }
    let hard = why.hard();
    assert_eq!((hard.reason, hard.inner()), (Reason::HARD_RESET, why));
    assert_eq!(Notification::from(Reason::HARD_RESET).inner().reason, Reason::HARD_RESET);
}

#[test]
fn a_refresh_is_of_a_family_and_a_kind_or_nothing() {
    let read = |body: &[u8], enhanced| {
        let bytes = message(5, body);
        let terms = Negotiated { enhanced_refresh: enhanced, ..terms(Relation::External) };
        match Message::decode(&frame(&bytes, false).unwrap().unwrap(), Some(&terms)) {
            Ok(Message::Refresh(refresh)) => Ok(refresh),
            Err(error) => Err(error),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(read(&[0, 2, 0, 1], true), Ok(Some((Family::Ipv6, RefreshKind::Request))));
    assert_eq!(read(&[0, 1, 1, 1], true), Ok(Some((Family::Ipv4, RefreshKind::Begin))));
    assert_eq!(read(&[0, 1, 2, 1], true), Ok(Some((Family::Ipv4, RefreshKind::End))));
    for (body, enhanced) in [([0, 1, 1, 1], false), ([0, 1, 3, 1], true), ([0, 25, 0, 70], true)] {
        assert_eq!(read(&body, enhanced), Ok(None), "{body:?}");
    }
    let long = read(&[0, 1, 1, 1, 9], true).unwrap_err();
    assert_eq!((long.reason, &*long.data), (Reason::REFRESH_LENGTH, &message(5, &[0, 1, 1, 1, 9])[..]));
}
