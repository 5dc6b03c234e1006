//! The runtime's `portMappings`, checked.

use std::net::IpAddr;

use serde::Deserialize;

use crate::protocol::config::invalid;
use crate::protocol::error::CniError;

/// One mapping as the runtime writes it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PortMapping {
    host_port: i64,
    container_port: i64,
    protocol: String,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Protocol {
    pub(super) name: &'static str,
    pub(super) number: u8,
}

const PROTOCOLS: [Protocol; 3] = [
    Protocol { name: "sctp", number: 132 },
    Protocol { name: "tcp", number: 6 },
    Protocol { name: "udp", number: 17 },
];

/// One published port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) protocol: Protocol,
    pub(super) host_port: u16,
    pub(super) container_port: u16,
    /// The only address of the node that it is published on; an unspecified one is every address
    /// of its family.
    pub(super) host_ip: Option<IpAddr>,
}

impl Mapping {
    /// Whether it is for containers' addresses of this family.
    pub(super) fn is_for(&self, container: IpAddr) -> bool {
        self.host_ip.is_none_or(|ip| ip.is_ipv4() == container.is_ipv4())
    }

    /// The address that a packet must be for.
    pub(super) fn destination(&self) -> Option<IpAddr> {
        self.host_ip.filter(|ip| !ip.is_unspecified())
    }

    /// Whether packets to `port` of `protocol` at `destination` (none: any address) are for this.
    pub(super) fn meets(&self, protocol: u8, port: u16, destination: Option<IpAddr>) -> bool {
        let addresses = match (self.destination(), destination) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => true,
        };
        self.protocol.number == protocol && self.host_port == port && addresses
    }
}

/// All mappings, in their order.
pub(super) fn mappings(written: Vec<PortMapping>) -> Result<Vec<Mapping>, CniError> {
    let mut out: Vec<Mapping> = Vec::with_capacity(written.len());
    for (at, one) in written.iter().enumerate() {
        let mapping = mapping(at, one)?;
        let same = |other: &&Mapping| {
            let families = match (mapping.host_ip, other.host_ip) {
                (Some(a), Some(b)) => a.is_ipv4() == b.is_ipv4(),
                _ => true,
            };
            families && other.meets(mapping.protocol.number, mapping.host_port, mapping.destination())
        };
        if out.iter().find(same).is_some() {
            let shown = format!("{}/{}", mapping.host_port, mapping.protocol.name);
            return Err(invalid(&format!("portMappings[{at}].hostPort: {shown} is published twice")));
        }
        out.push(mapping);
    }
    Ok(out)
}

fn mapping(at: usize, written: &PortMapping) -> Result<Mapping, CniError> {
    let port = |key: &str, value: i64| match u16::try_from(value) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(invalid(&format!("portMappings[{at}].{key}: {value} is no port from 1 to 65535"))),
    };
    let name = written.protocol.to_ascii_lowercase();
    let unknown = || {
        let shown: String = written.protocol.chars().take(32).collect();
        invalid(&format!("portMappings[{at}].protocol: {shown:?} is not supported: use tcp, udp or sctp"))
    };
    let host_ip = written.host_ip.as_deref().filter(|text| !text.is_empty()).map(|text| {
        let no_ip = |_| invalid(&format!("portMappings[{at}].hostIP: {text:?} is no IP address"));
        text.parse::<IpAddr>().map(|ip| ip.to_canonical()).map_err(no_ip)
    });
    Ok(Mapping {
        protocol: PROTOCOLS.into_iter().find(|p| p.name == name).ok_or_else(unknown)?,
        host_port: port("hostPort", written.host_port)?,
        container_port: port("containerPort", written.container_port)?,
        host_ip: host_ip.transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(value: Value) -> Result<Vec<Mapping>, CniError> {
        mappings(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn bad_input_53_names_the_key() {
        let one = |host: i64, container: i64, protocol: &str, ip: &str| json!({"hostPort": host, "containerPort": container, "protocol": protocol, "hostIP": ip});
        for (bad, key) in [
            (json!([one(0, 80, "tcp", "")]), "[0].hostPort"),
            (json!([one(8080, 80, "tcp", ""), one(70_000, 80, "tcp", "")]), "[1].hostPort"),
            (json!([one(-1, 80, "tcp", "")]), "[0].hostPort"),
            (json!([one(80, 0, "tcp", "")]), "[0].containerPort"),
            (json!([one(80, 80, "foo", "")]), "[0].protocol"),
            (json!([one(80, 80, "", "")]), "[0].protocol"),
            (json!([one(80, 80, "tcp", "10.0.0.0/8")]), "[0].hostIP"),
            (json!([one(80, 80, "tcp", ""), one(80, 81, "TCP", "")]), "[1].hostPort"),
            (json!([one(80, 80, "tcp", "10.0.0.1"), one(80, 81, "tcp", "")]), "[1].hostPort"),
        ] {
            let error = read(bad.clone()).unwrap_err();
            assert!(error.code == 7 && error.message.contains(key), "{bad}: {error}");
        }
        let fine = json!([
            one(80, 80, "tcp", ""),
            one(80, 80, "udp", ""),
            one(81, 80, "tcp", "10.0.0.1"),
            one(81, 80, "tcp", "10.0.0.2"),
            one(81, 80, "tcp", "fd00::1"),
        ]);
        assert_eq!(read(fine).unwrap().len(), 5);
    }
}
