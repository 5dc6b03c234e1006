//! Tracked connections: forgetting those that would keep an old destination, and whether there is room for more.

use std::net::{IpAddr, SocketAddr};

use crate::nft::wire::{Attributes, Body, F_ACK, F_DUMP};
use crate::nft::{Family, Nft};
use crate::{Result, sysctl, wire};

/// `NFNL_SUBSYS_CTNETLINK` and its messages.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const GET_STATISTICS: u16 = 1 << 8 | 4;
/// `CTA_STATS_DROP`.
const DROPPED: u16 = 10;
/// Attributes of a connection, of a tuple and of its parts (linux/netfilter/nfnetlink_conntrack.h).
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
const TUPLE_ADDRESSES: u16 = 1;
const SOURCE_V4: u16 = 1;
const DESTINATION_V4: u16 = 2;
const SOURCE_V6: u16 = 3;
const DESTINATION_V6: u16 = 4;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_SOURCE: u16 = 2;
const PROTOCOL_DESTINATION: u16 = 3;
/// What the kernel compares (`CTA_FILTER_F_CTA_*`): the source address; the protocol's number and
/// the destination port; the number alone.
const BY_SOURCE: u32 = 1;
const BY_PORT: u32 = 1 << 3 | 1 << 5;
const BY_PROTOCOL: u32 = 1 << 3;

/// As many connections are rather looked through here than asked for twice.
const FEW: usize = 1000;

/// How full the table of tracked connections is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// How many the calling thread's namespace has.
    pub tracked: u64,
    /// How many each may have (`nf_conntrack_max`); 0 is any number.
    pub limit: u64,
    /// Packets of new connections that could not be tracked and were dropped, since the namespace was made.
    pub dropped: u64,
}

/// How full it is; none where nothing is tracked.
pub fn room() -> Result<Option<Room>> {
    let number = |name: &str| sysctl::get(&format!("net/netfilter/{name}")).ok()?.parse::<u64>().ok();
    let (Some(tracked), Some(limit)) = (number("nf_conntrack_count"), number("nf_conntrack_max")) else {
        return Ok(None);
    };
    let what = "the statistics of connections";
    let processors = Nft::open()?.request(GET_STATISTICS, F_DUMP, Family::Other(0), &[], what)?;
    let dropped = processors.iter().filter_map(|(_, data)| Attributes(data).be32(DROPPED));
    Ok(Some(Room { tracked, limit, dropped: dropped.map(u64::from).sum() }))
}

/// Forgets the connections of a family to a destination port of any address as their first packet
/// had it, of `protocol` (17: UDP). Their next packet is translated as the rules are by then. Says
/// how many there were.
pub fn forget_port(family: Family, protocol: u8, port: u16) -> Result<usize> {
    let what = format!("connections of protocol {protocol} to port {port}");
    let asked = question(TUPLE_ORIGINAL, BY_PORT, |tuple| {
        tuple.nest(TUPLE_PROTOCOL, |part| {
            part.bytes(PROTOCOL_NUMBER, &[protocol]).bytes(PROTOCOL_DESTINATION, &port.to_be_bytes());
        });
    });
    let is_meant = |connection: Attributes<'_>| {
        connection.get(TUPLE_ORIGINAL).is_some_and(|tuple| goes_to(tuple, protocol, port))
    };
    forget(&mut Nft::open()?, family, &what, &asked, &is_meant)
}

/// Forgets those connections of a family and a protocol (17: UDP), to one destination port or to any, that
/// `is_stale` says: from where their first packet went to, and from where the answers come. Their next
/// packet is translated as the rules are by then. Says how many there were.
pub fn forget_flows(
    family: Family,
    protocol: u8,
    port: Option<u16>,
    is_stale: &dyn Fn(SocketAddr, SocketAddr) -> bool,
) -> Result<usize> {
    let what = format!("connections of protocol {protocol}");
    let compared = if port.is_some() { BY_PORT } else { BY_PROTOCOL };
    let asked = question(TUPLE_ORIGINAL, compared, |tuple| {
        tuple.nest(TUPLE_PROTOCOL, |part| {
            part.bytes(PROTOCOL_NUMBER, &[protocol]);
            if let Some(port) = port {
                part.bytes(PROTOCOL_DESTINATION, &port.to_be_bytes());
            }
        });
    });
    let is_meant = |connection: Attributes<'_>| {
        let part = |direction: u16, address: [u16; 2], port: u16| -> Option<SocketAddr> {
            let tuple = connection.nested(direction);
            let (addresses, numbers) = (tuple.nested(TUPLE_ADDRESSES), tuple.nested(TUPLE_PROTOCOL));
            (numbers.get(PROTOCOL_NUMBER)? == [protocol]).then_some(())?;
            let ip = address.iter().find_map(|kind| addresses.get(*kind))?;
            let port = u16::from_be_bytes(numbers.get(port)?.try_into().ok()?);
            Some(SocketAddr::new(wire::ip(ip)?, port))
        };
        let to = part(TUPLE_ORIGINAL, [DESTINATION_V4, DESTINATION_V6], PROTOCOL_DESTINATION);
        let from = part(TUPLE_REPLY, [SOURCE_V4, SOURCE_V6], PROTOCOL_SOURCE);
        to.zip(from).is_some_and(|(to, from)| port.is_none_or(|p| p == to.port()) && is_stale(to, from))
    };
    forget(&mut Nft::open()?, family, &what, &asked, &is_meant)
}

/// Forgets the connections that the owner of one of these addresses opened, or that lead to it,
/// translated or not: whoever gets the address next gets no packet of them. Says how many there
/// were; a namespace that tracks none costs the reading of one counter.
pub fn forget_addresses(addresses: &[IpAddr]) -> Result<usize> {
    let tracked = sysctl::get("net/netfilter/nf_conntrack_count").unwrap_or_default();
    if addresses.is_empty() || matches!(tracked.as_str(), "" | "0") {
        return Ok(0);
    }
    forget_each(addresses, tracked.parse::<usize>().is_ok_and(|tracked| tracked <= FEW))
}

fn forget_each(addresses: &[IpAddr], few: bool) -> Result<usize> {
    let mut nft = Nft::open()?;
    let mut count = 0;
    for address in addresses {
        let what = format!("connections of {address}");
        // What it opened has it as the first source, what was sent to it as the answers'.
        let is_meant = |connection: Attributes<'_>| {
            [TUPLE_ORIGINAL, TUPLE_REPLY].iter().any(|direction| {
                let part = connection.nested(*direction).nested(TUPLE_ADDRESSES);
                [SOURCE_V4, SOURCE_V6].iter().any(|kind| part.get(*kind).and_then(wire::ip) == Some(*address))
            })
        };
        count += match address {
            // The kernel walks a table of hundreds of thousands of places for each question.
            IpAddr::V4(_) if few => forget(&mut nft, Family::Ip, &what, &Body::default(), &is_meant)?,
            IpAddr::V4(ip) => {
                let asked = |direction| {
                    question(direction, BY_SOURCE, |tuple| {
                        tuple.nest(TUPLE_ADDRESSES, |part| {
                            part.bytes(SOURCE_V4, &ip.octets());
                        });
                    })
                };
                forget(&mut nft, Family::Ip, &what, &asked(TUPLE_ORIGINAL), &is_meant)?
                    + forget(&mut nft, Family::Ip, &what, &asked(TUPLE_REPLY), &is_meant)?
            }
            // Asked for an IPv6 address, the kernel (6.18 too) gives those that have another.
            IpAddr::V6(_) => forget(&mut nft, Family::Ip6, &what, &Body::default(), &is_meant)?,
        };
    }
    Ok(count)
}

/// Forgets those of the connections that the kernel is asked for that are meant. The others, of which
/// there may be hundreds of thousands, are not kept.
fn forget(
    nft: &mut Nft,
    family: Family,
    what: &str,
    asked: &Body,
    is_meant: &dyn Fn(Attributes<'_>) -> bool,
) -> Result<usize> {
    let mut found: Vec<Vec<u8>> = Vec::new();
    let mut ask = |asked: &[u8]| {
        nft.request_each(GET, F_DUMP, family, asked, what, |_, connection| {
            if is_meant(Attributes(connection)) {
                found.push(connection.to_vec());
            }
            true
        })
    };
    match ask(&asked.0) {
        // A kernel before 5.8 does not filter; one that tracks nothing has nothing to forget.
        Err(e) if e.errno() == Some(libc::EOPNOTSUPP) || e.errno() == Some(libc::EINVAL) => ask(&[])?,
        other => other?,
    }
    let mut count = 0;
    for connection in &found {
        let connection = Attributes(connection);
        let Some(tuple) = connection.get(TUPLE_ORIGINAL) else { continue };
        let mut body = Body::default();
        body.nest(TUPLE_ORIGINAL, |b| b.0.extend(tuple));
        for kind in [ID, ZONE] {
            if let Some(value) = connection.get(kind) {
                body.bytes(kind, value);
            }
        }
        match nft.request(DELETE, F_ACK, family, &body.0, what) {
            Ok(_) => count += 1,
            Err(e) if e.not_found() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(count)
}

/// Asks for the connections of which what is compared of the tuple of one direction is as given.
fn question(direction: u16, compared: u32, tuple: impl FnOnce(&mut Body)) -> Body {
    let mut body = Body::default();
    body.nest(direction, tuple);
    let of = |of: u16| if of == direction { compared } else { 0 };
    // CTA_FILTER_ORIG_FLAGS and CTA_FILTER_REPLY_FLAGS, in the machine's byte order.
    body.nest(FILTER, |filter| {
        filter.bytes(1, &of(TUPLE_ORIGINAL).to_ne_bytes()).bytes(2, &of(TUPLE_REPLY).to_ne_bytes());
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
    ours.filter_map(|tuple| wire::ip(Attributes(tuple).nested(TUPLE_ADDRESSES).get(2)?)).collect()
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

    #[test]
    fn flows_are_forgotten_by_where_they_went_and_who_answers() {
        let _ns = TestNs::new();
        let rules = "table inet t { chain n { type nat hook output priority -100; \
            ip daddr 127.0.0.9 udp dport 53 dnat ip to 127.0.0.2:5300; \
            ip daddr 127.0.0.8 udp dport 53 dnat ip to 127.0.0.3:5300; }; }";
        assert!(Command::new("nft").arg(rules).status().unwrap().success());
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let tracked = || destinations(Family::Ip, 17, 53).len() + destinations(Family::Ip, 17, 54).len();
        for port in [Some(53), None] {
            for to in ["127.0.0.9:53", "127.0.0.8:53", "127.0.0.9:54"] {
                socket.send_to(b"x", to).unwrap();
            }
            assert_eq!(tracked(), 3);
            let (gone, of): (SocketAddr, SocketAddr) =
                ("127.0.0.2:5300".parse().unwrap(), "127.0.0.9:53".parse().unwrap());
            let stale = |to: SocketAddr, from: SocketAddr| to == of && from == gone;
            assert_eq!(forget_flows(Family::Ip, 6, port, &stale).unwrap(), 0, "another protocol");
            assert_eq!(forget_flows(Family::Ip6, 17, port, &stale).unwrap(), 0, "another family");
            assert_eq!(forget_flows(Family::Ip, 17, port, &stale).unwrap(), 1);
            assert_eq!(tracked(), 2);
        }
        let all = |_, _| true;
        assert_eq!(forget_flows(Family::Ip, 17, Some(54), &all).unwrap(), 1, "to that port alone");
    }

    #[test]
    fn the_connections_of_an_address_are_forgotten_in_both_directions_and_no_others() {
        let _ns = TestNs::new();
        assert_eq!(forget_addresses(&["127.0.0.2".parse().unwrap()]).unwrap(), 0, "nothing is tracked");
        let rules = "table inet t { chain c { type filter hook output priority 0; ct state new accept; }; \
            chain n { type nat hook output priority -100; ip daddr 127.0.0.9 dnat ip to 127.0.0.2; }; }";
        assert!(Command::new("nft").arg(rules).status().unwrap().success());
        let send = |from: &str, to: &str| UdpSocket::bind(from).unwrap().send_to(b"x", to).unwrap();
        send("127.0.0.1:0", "127.0.0.3:5300");
        send("127.0.0.1:0", "127.0.0.22:5300");
        send("[::1]:0", "[::1]:5300");
        for few in [true, false] {
            // To it, to what is translated to it, from it; two before that are not its own.
            send("127.0.0.1:0", "127.0.0.2:5300");
            send("127.0.0.1:0", "127.0.0.9:5300");
            send("127.0.0.2:0", "127.0.0.3:5300");
            assert_eq!(forget_each(&["127.0.0.2".parse().unwrap()], few).unwrap(), 3);
            assert_eq!(destinations(Family::Ip, 17, 5300).len(), 2);
        }
        assert_eq!(forget_addresses(&["127.0.0.2".parse().unwrap(), "::1".parse().unwrap()]).unwrap(), 1);
        assert_eq!(destinations(Family::Ip6, 17, 5300), [] as [IpAddr; 0]);
    }
}
