//! The kernel's own listing, `/proc/net/ip_vs`: every virtual server with its destinations in one reading,
//! where netlink has to be asked for each.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::ServerKey;

/// A destination as it is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Its share of new connections; 0: none.
    pub weight: u32,
    /// How many connections it has.
    pub connections: u64,
}

/// Destinations by virtual server.
pub type Listed = BTreeMap<ServerKey, BTreeMap<SocketAddr, Destination>>;

/// Reads a listing. Virtual servers that marks lead to are left out, and what is not understood.
pub(super) fn parse(text: &str) -> Listed {
    let mut found = Listed::new();
    let mut current = None;
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("->") => {
                let Some(list) = current.and_then(|key| found.get_mut(&key)) else { continue };
                list.extend(destination(words));
            }
            Some(name) => {
                let protocol = match name {
                    "TCP" => Some(6),
                    "UDP" => Some(17),
                    "SCTP" => Some(132),
                    _ => None,
                };
                let at = protocol.zip(words.next().and_then(socket));
                current = at.map(|(protocol, at)| ServerKey { at, protocol });
                current.iter().for_each(|key| _ = found.entry(*key).or_default());
            }
            None => {}
        }
    }
    found
}

fn destination<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<(SocketAddr, Destination)> {
    let at = socket(words.next()?)?;
    let _method = words.next()?;
    let weight = words.next()?.parse().ok()?;
    let connections = words.next()?.parse::<u64>().ok()?.saturating_add(words.next()?.parse().ok()?);
    Some((at, Destination { weight, connections }))
}

/// `0A600001:0050` or `[fd00:…]:0050`.
fn socket(word: &str) -> Option<SocketAddr> {
    let (address, port) = word.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let ip: IpAddr = match address.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.into(),
        None => Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?).into(),
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A600001:0050 rr persistent 2700000 FFFFFFFF
  -> 0AF40106:1F90      Masq    1      3          4
  -> 0AF40006:1F90      Masq    0      0          1
FWM  00000001 rr
  -> 0AF40006:1F90      Masq    1      0          0
UDP  [fd00:0096:0000:0000:0000:0000:0000:0001]:0035 wlc
  -> [fd00:0244:0000:000a:0000:0000:0000:0002]:14E9      Masq    1      0          0
SCTP 0A600002:0050 rr
";

    #[test]
    fn what_the_kernel_lists() {
        let found = parse(TEXT);
        let show = |key: &ServerKey, to: &SocketAddr, d: &Destination| {
            format!("{key} {to} {} {}", d.weight, d.connections)
        };
        let all: Vec<String> =
            found.iter().flat_map(|(key, list)| list.iter().map(move |(to, d)| show(key, to, d))).collect();
        assert_eq!(
            all,
            [
                "TCP 10.96.0.1:80 10.244.0.6:8080 0 1",
                "TCP 10.96.0.1:80 10.244.1.6:8080 1 7",
                "UDP [fd00:96::1]:53 [fd00:244:0:a::2]:5353 1 0",
            ]
        );
        assert_eq!(found.len(), 3);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "(TCP|UDP|  ->|[ 0-9A-F:\\[\\]\n]|.){0,60}") {
            parse(&text);
        }
    }
}
