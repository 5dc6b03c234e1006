//! Tracked connections: forgetting those that would keep an old destination.

#[cfg(test)]
use std::net::IpAddr;

use crate::Result;
use crate::nft::wire::{Attributes, Body, F_ACK, F_DUMP};
use crate::nft::{Family, Nft};

/// `NFNL_SUBSYS_CTNETLINK` and its messages.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
/// Attributes of a connection, of a tuple and of its parts (linux/netfilter/nfnetlink_conntrack.h).
const TUPLE_ORIGINAL: u16 = 1;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
#[cfg(test)]
const TUPLE_ADDRESSES: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_DESTINATION: u16 = 3;
/// The kernel compares the protocol's number and the destination port
/// (`CTA_FILTER_F_CTA_PROTO_NUM`, `_DST_PORT`).
const FILTERED: u32 = 1 << 3 | 1 << 5;

/// Forgets the connections of a family to a destination port of any address as their first packet
/// had it, of `protocol` (17: UDP). Their next packet is translated as the rules are by then. Says
/// how many there were.
pub fn forget_port(family: Family, protocol: u8, port: u16) -> Result<usize> {
    let mut nft = Nft::open()?;
    let what = format!("connections of protocol {protocol} to port {port}");
    let found = match nft.request(GET, F_DUMP, family, &question(protocol, port).0, &what) {
        // A kernel before 5.8 does not filter; one that tracks nothing has nothing to forget.
        Err(e) if e.errno() == Some(libc::EOPNOTSUPP) || e.errno() == Some(libc::EINVAL) => {
            nft.request(GET, F_DUMP, family, &[], &what)?
        }
        other => other?,
    };
    let mut count = 0;
    for (_, connection) in &found {
        let connection = Attributes(connection);
        let Some(tuple) = connection.get(TUPLE_ORIGINAL).filter(|tuple| goes_to(tuple, protocol, port))
        else {
            continue;
        };
        let mut body = Body::default();
        body.nest(TUPLE_ORIGINAL, |b| b.0.extend(tuple));
        for kind in [ID, ZONE] {
            if let Some(value) = connection.get(kind) {
                body.bytes(kind, value);
            }
        }
        match nft.request(DELETE, F_ACK, family, &body.0, &what) {
            Ok(_) => count += 1,
            Err(e) if e.not_found() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(count)
}

fn question(protocol: u8, port: u16) -> Body {
    let mut body = Body::default();
    body.nest(TUPLE_ORIGINAL, |tuple| {
        tuple.nest(TUPLE_PROTOCOL, |part| {
            part.bytes(PROTOCOL_NUMBER, &[protocol]).bytes(PROTOCOL_DESTINATION, &port.to_be_bytes());
        });
    });
    // CTA_FILTER_ORIG_FLAGS and CTA_FILTER_REPLY_FLAGS, in the machine's byte order.
    body.nest(FILTER, |filter| {
        filter.bytes(1, &FILTERED.to_ne_bytes()).bytes(2, &0u32.to_ne_bytes());
    });
    body
}

fn goes_to(tuple: &[u8], protocol: u8, port: u16) -> bool {
    let part = Attributes(tuple).nested(TUPLE_PROTOCOL);
    part.get(PROTOCOL_NUMBER) == Some(&[protocol])
        && part.get(PROTOCOL_DESTINATION) == Some(&port.to_be_bytes())
}

/// The destination addresses that the first packets of such connections had; for tests.
#[cfg(test)]
fn destinations(family: Family, protocol: u8, port: u16) -> Vec<IpAddr> {
    let found = Nft::open().unwrap().request(GET, F_DUMP, family, &[], "connections").unwrap();
    let tuples = found.iter().filter_map(|(_, data)| Attributes(data).get(TUPLE_ORIGINAL));
    let ours = tuples.filter(|tuple| goes_to(tuple, protocol, port));
    ours.filter_map(|tuple| crate::wire::ip(Attributes(tuple).nested(TUPLE_ADDRESSES).get(2)?)).collect()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::process::Command;

    use super::*;
    use crate::testing::TestNs;

    #[test]
    fn the_connections_to_a_port_are_forgotten_and_no_others() {
        let _ns = TestNs::new();
        // Connections are tracked where a rule asks for them.
        let rules = "table ip t { chain c { type filter hook output priority 0; ct state new accept; }; }";
        assert!(Command::new("nft").arg(rules).status().unwrap().success());
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for to in ["127.0.0.1:5300", "127.0.0.2:5300", "127.0.0.1:5301"] {
            socket.send_to(b"x", to).unwrap();
        }
        assert_eq!(destinations(Family::Ip, 17, 5300).len(), 2);
        assert_eq!(forget_port(Family::Ip, 6, 5300).unwrap(), 0);
        assert_eq!(forget_port(Family::Ip, 17, 5300).unwrap(), 2);
        assert_eq!(destinations(Family::Ip, 17, 5300), [] as [IpAddr; 0]);
        assert_eq!(destinations(Family::Ip, 17, 5301).len(), 1);
        assert_eq!(forget_port(Family::Ip6, 17, 5301).unwrap(), 0);
    }
}
