//! The calls of the DHCP daemon: Go's net/rpc over a Unix socket, as the reference plugin and
//! daemon speak it, so that either can be replaced without the other.
//!
//! The client says CONNECT as to an HTTP proxy; from then on each call is two gob values (which
//! method, its argument) and each answer two (which call, its result or an error).

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use crate::ipam::dhcp::gob::{BYTES, Decoder, Encoder, Fields, INT, TEXT, Type, UINT, Value};
use crate::protocol::config::Dns;
use crate::protocol::result::{CniResult, Ip, Route};

/// Gets or confirms a lease.
pub(crate) const ALLOCATE: &str = "DHCP.Allocate";
/// Gives it back.
pub(crate) const RELEASE: &str = "DHCP.Release";
/// Gives back those of no valid attachment. The reference daemon has no such method.
pub(crate) const COLLECT: &str = "DHCP.GC";

pub(crate) const CONNECT: &[u8] = b"CONNECT /_goRPC_ HTTP/1.0\n\n";
pub(crate) const CONNECTED: &[u8] = b"HTTP/1.0 200 Connected to Go RPC\n\n";
/// More than any head of HTTP here has.
pub(crate) const LONGEST_HEAD: usize = 4096;
/// A daemon tries for 208 s unless it is told otherwise.
const PATIENCE: Duration = Duration::from_secs(600);
/// Whether a daemon is there is known sooner.
const HANDSHAKE: Duration = Duration::from_secs(10);

pub(crate) const REQUEST: i64 = 65;
pub(crate) const RESPONSE: i64 = 66;
pub(crate) const ARGS: i64 = 67;
pub(crate) const EMPTY: i64 = 68;
pub(crate) const RESULT: i64 = 69;

/// The types of both directions, by the names that net/rpc and the CNI library give their fields.
pub(crate) const TYPES: &[Type] = &[
    Type { id: REQUEST, fields: Fields::Struct(&[("ServiceMethod", TEXT), ("Seq", UINT)]) },
    Type { id: RESPONSE, fields: Fields::Struct(&[("ServiceMethod", TEXT), ("Seq", UINT), ("Error", TEXT)]) },
    Type {
        id: ARGS,
        fields: Fields::Struct(&[
            ("ContainerID", TEXT),
            ("Netns", TEXT),
            ("IfName", TEXT),
            ("Args", TEXT),
            ("Path", TEXT),
            ("NetnsOverride", TEXT),
            ("StdinData", BYTES),
        ]),
    },
    Type { id: EMPTY, fields: Fields::Struct(&[]) },
    Type { id: RESULT, fields: Fields::Struct(&[("IPs", 70), ("Routes", 71), ("DNS", 72)]) },
    Type { id: 70, fields: Fields::List(73) },
    Type { id: 71, fields: Fields::List(74) },
    Type {
        id: 72,
        fields: Fields::Struct(&[("Nameservers", 75), ("Domain", TEXT), ("Search", 75), ("Options", 75)]),
    },
    Type { id: 73, fields: Fields::Struct(&[("Address", 76), ("Gateway", BYTES)]) },
    Type {
        id: 74,
        fields: Fields::Struct(&[
            ("Dst", 76),
            ("GW", BYTES),
            ("MTU", INT),
            ("AdvMSS", INT),
            ("Priority", INT),
            ("Table", INT),
            ("Scope", INT),
        ]),
    },
    Type { id: 75, fields: Fields::List(TEXT) },
    Type { id: 76, fields: Fields::Struct(&[("IP", BYTES), ("Mask", BYTES)]) },
];

/// What a call is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    pub(crate) container_id: String,
    pub(crate) netns: String,
    pub(crate) ifname: String,
    /// CNI_ARGS.
    pub(crate) args: String,
    /// The configuration.
    pub(crate) config: Vec<u8>,
}

impl Arguments {
    pub(crate) fn value(&self) -> Value {
        structure([
            ("ContainerID", text(&self.container_id)),
            ("Netns", text(&self.netns)),
            ("IfName", text(&self.ifname)),
            ("Args", text(&self.args)),
            ("StdinData", Value::Bytes(self.config.clone())),
        ])
    }

    pub(crate) fn of(value: &Value) -> Arguments {
        let text = |name: &str| value.text(name).to_owned();
        Arguments {
            container_id: text("ContainerID"),
            netns: text("Netns"),
            ifname: text("IfName"),
            args: text("Args"),
            config: value.bytes("StdinData").to_vec(),
        }
    }
}

/// A struct with these fields.
pub(crate) fn structure<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Struct(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

pub(crate) fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

/// A result as the daemon answers it.
pub(crate) fn result_value(result: &CniResult) -> Value {
    let number = |number: Option<u32>| Value::Int(number.unwrap_or(0).into());
    let gateway = |ip: Option<IpAddr>| Value::Bytes(ip.map(octets).unwrap_or_default());
    let ip = |ip: &Ip| structure([("Address", net_value(ip.address)), ("Gateway", gateway(ip.gateway))]);
    let route = |route: &Route| {
        structure([
            ("Dst", net_value(route.dst)),
            ("GW", gateway(route.gw)),
            ("MTU", number(route.mtu)),
            ("Priority", number(route.priority)),
            ("Scope", number(route.scope.map(u32::from))),
        ])
    };
    let list = |texts: &[String]| Value::List(texts.iter().map(|one| text(one)).collect());
    let dns = structure([
        ("Nameservers", list(&result.dns.nameservers)),
        ("Domain", text(result.dns.domain.as_deref().unwrap_or_default())),
        ("Search", list(&result.dns.search)),
        ("Options", list(&result.dns.options)),
    ]);
    // Without a version, as from the reference: the plugin knows its own.
    structure([
        ("IPs", Value::List(result.ips.iter().map(ip).collect())),
        ("Routes", Value::List(result.routes.iter().map(route).collect())),
        ("DNS", dns),
    ])
}

/// A result as a daemon answered it; none when its parts are no addresses.
pub(crate) fn result_of(value: &Value) -> Option<CniResult> {
    let number = |value: &Value, name: &str| u32::try_from(value.int(name)).ok().filter(|n| *n != 0);
    let gateway = |value: &Value, name: &str| match value.bytes(name) {
        [] => Some(None),
        bytes => address(bytes).map(Some),
    };
    let ip = |ip: &Value| {
        let address = net(ip.field("Address")?)?;
        Some(Ip { address, gateway: gateway(ip, "Gateway")?, interface: None })
    };
    let route = |route: &Value| {
        Some(Route {
            dst: net(route.field("Dst")?)?,
            gw: gateway(route, "GW")?,
            mtu: number(route, "MTU"),
            advmss: number(route, "AdvMSS"),
            priority: number(route, "Priority"),
            table: number(route, "Table"),
            scope: number(route, "Scope").and_then(|scope| scope.try_into().ok()),
        })
    };
    let texts = |value: &Value, name: &str| {
        let list = value.list(name).iter();
        list.filter_map(|one| if let Value::Text(text) = one { Some(text.clone()) } else { None }).collect()
    };
    let dns = value.field("DNS").map(|dns| Dns {
        nameservers: texts(dns, "Nameservers"),
        domain: Some(dns.text("Domain").to_owned()).filter(|domain| !domain.is_empty()),
        search: texts(dns, "Search"),
        options: texts(dns, "Options"),
    });
    Some(CniResult {
        interfaces: Vec::new(),
        ips: value.list("IPs").iter().map(ip).collect::<Option<_>>()?,
        routes: value.list("Routes").iter().map(route).collect::<Option<_>>()?,
        dns: dns.unwrap_or_default(),
    })
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn net_value(net: IpNet) -> Value {
    structure([("IP", Value::Bytes(octets(net.addr()))), ("Mask", Value::Bytes(octets(net.netmask())))])
}

/// Go may write an IPv4 address in sixteen bytes.
fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|octets| IpAddr::from(octets).to_canonical()),
        _ => None,
    }
}

fn net(value: &Value) -> Option<IpNet> {
    let (ip, mut mask) = (address(value.bytes("IP"))?, value.bytes("Mask"));
    if ip.is_ipv4() && mask.len() == 16 {
        mask = mask.strip_prefix(&[0xff; 12])?;
    }
    let mask = match ip {
        IpAddr::V4(_) => IpAddr::from(<[u8; 4]>::try_from(mask).ok()?),
        IpAddr::V6(_) => IpAddr::from(<[u8; 16]>::try_from(mask).ok()?),
    };
    IpNet::with_netmask(ip, mask).ok()
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// No daemon listens.
    #[error("{0}")]
    Away(io::Error),
    /// The daemon was there, but did not answer.
    #[error("it stopped answering: {0}")]
    Broken(io::Error),
    /// The daemon says so.
    #[error("{0}")]
    Refused(String),
    /// The daemon speaks of something else.
    #[error("its answer has no addresses that could be read")]
    Unreadable,
}

/// A client that is connected.
#[derive(Debug)]
pub(crate) struct Client(UnixStream);

impl Client {
    pub(crate) fn connect(socket: &Path) -> Result<Client, CallError> {
        let mut stream = UnixStream::connect(socket).map_err(CallError::Away)?;
        let mut greet = || {
            stream.set_read_timeout(Some(HANDSHAKE))?;
            stream.write_all(CONNECT)?;
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\n\n") && !head.ends_with(b"\r\n\r\n") {
                if head.len() > LONGEST_HEAD || stream.read(&mut byte)? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                head.push(byte[0]);
            }
            let accepted = head.split(|b| *b == b' ').nth(1) == Some(b"200");
            if accepted { Ok(()) } else { Err(io::Error::other("it is no DHCP daemon of CNI")) }
        };
        greet().map_err(CallError::Away)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(CallError::Broken)?;
        Ok(Client(stream))
    }

    /// Makes the one call of this connection.
    pub(crate) fn call(mut self, method: &str, arguments: &Arguments) -> Result<Value, CallError> {
        let mut encoder = Encoder::new(TYPES);
        let mut request = encoder.encode(REQUEST, &structure([("ServiceMethod", text(method))]));
        request.extend(encoder.encode(ARGS, &arguments.value()));
        self.0.write_all(&request).map_err(CallError::Broken)?;
        let (mut decoder, mut stream) = (Decoder::new(), Vec::new());
        let response = self.next(&mut decoder, &mut stream)?;
        let body = self.next(&mut decoder, &mut stream)?;
        match response.text("Error") {
            "" => Ok(body),
            error => Err(CallError::Refused(error.to_owned())),
        }
    }

    fn next(&mut self, decoder: &mut Decoder, stream: &mut Vec<u8>) -> Result<Value, CallError> {
        let mut buffer = [0; 4096];
        loop {
            let wrong = |error| CallError::Broken(io::Error::other(error));
            if let Some(value) = decoder.next(stream).map_err(wrong)? {
                return Ok(value);
            }
            match self.0.read(&mut buffer).map_err(CallError::Broken)? {
                0 => return Err(CallError::Broken(io::ErrorKind::UnexpectedEof.into())),
                length => stream.extend(&buffer[..length]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_and_results_survive_the_way() {
        let arguments = Arguments {
            container_id: "pod".into(),
            netns: "/run/netns/a".into(),
            ifname: "eth0".into(),
            args: "A=b".into(),
            config: b"{}".to_vec(),
        };
        let route = |dst: &str, gw: &str| Route {
            dst: dst.parse().unwrap(),
            gw: gw.parse().ok(),
            mtu: Some(1400),
            advmss: None,
            priority: Some(7),
            table: None,
            scope: Some(253),
        };
        let result = CniResult {
            interfaces: Vec::new(),
            ips: vec![
                Ip {
                    address: "10.1.0.9/24".parse().unwrap(),
                    gateway: "10.1.0.1".parse().ok(),
                    interface: None,
                },
                Ip { address: "fd00::9/128".parse().unwrap(), gateway: None, interface: None },
            ],
            routes: vec![route("0.0.0.0/0", "10.1.0.1"), route("192.0.2.0/25", "0.0.0.0")],
            dns: Dns { nameservers: vec!["10.1.0.1".into()], domain: Some("a.b".into()), ..Dns::default() },
        };
        let mut encoder = Encoder::new(TYPES);
        let mut stream = encoder.encode(ARGS, &arguments.value());
        stream.extend(encoder.encode(RESULT, &result_value(&result)));
        stream.extend(encoder.encode(EMPTY, &structure([])));
        let mut decoder = Decoder::new();
        assert_eq!(Arguments::of(&decoder.next(&mut stream).unwrap().unwrap()), arguments);
        assert_eq!(result_of(&decoder.next(&mut stream).unwrap().unwrap()), Some(result));
        assert_eq!(decoder.next(&mut stream).unwrap(), Some(structure([])));
    }

    #[test]
    fn go_may_write_four_bytes_in_sixteen() {
        let ip = [&[0; 10][..], &[0xff, 0xff, 10, 1, 0, 9]].concat();
        let mask = vec![255, 255, 0, 0];
        let value = structure([("IP", Value::Bytes(ip)), ("Mask", Value::Bytes(mask))]);
        assert_eq!(net(&value), "10.1.0.9/16".parse().ok());
        assert_eq!(net(&structure([("IP", Value::Bytes(vec![1, 2])), ("Mask", Value::Bytes(vec![]))])), None);
    }
}
