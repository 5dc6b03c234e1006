mod heads;
mod malformed;
mod properties;
mod updates;

use std::net::Ipv4Addr;

use super::*;

/// Terms with an AS 65001 outside, or with 65000 inside; both families, four octets.
fn terms(relation: Relation) -> Negotiated {
    let peer_as = if relation == Relation::Internal { 65000 } else { 65001 };
    let open = |asn| Open {
        asn,
        hold: 90,
        id: Ipv4Addr::new(10, 0, 0, 1),
        capabilities: Capabilities {
            families: Some(PerFamily { ipv4: true, ipv6: true }),
            four_octet_as: Some(asn),
            route_refresh: true,
            enhanced_refresh: true,
            ..Capabilities::default()
        },
    };
    Negotiated::new(&open(65000), &open(peer_as), relation)
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![u8::MAX; 16];
    bytes.extend((19 + body.len() as u16).to_be_bytes());
    bytes.push(kind);
    bytes.extend(body);
    bytes
}

/// The messages of a stream.
fn messages<'a>(mut stream: &'a [u8], terms: &Negotiated) -> Vec<Message<'a>> {
    let mut messages = Vec::new();
    while let Some(frame) = frame(stream, terms.extended_messages).unwrap() {
        messages.push(Message::decode(&frame, Some(terms)).unwrap());
        stream = &stream[frame.length()..];
    }
    assert!(stream.is_empty());
    messages
}

fn updates<'a>(stream: &'a [u8], terms: &Negotiated) -> Vec<Update<'a>> {
    let update = |message| match message {
        Message::Update(update) => update,
        other => panic!("{other:?}"),
    };
    messages(stream, terms).into_iter().map(update).collect()
}

fn v4(prefix: &str) -> Nlri {
    Nlri { prefix: prefix.parse().unwrap(), path: 0 }
}
