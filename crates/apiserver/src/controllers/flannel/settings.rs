//! Flannel's configuration in etcd, and whether this cluster's own fits to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};
use serde::Deserialize;
use serde_json::{Value, json};
use weft_ipam::node_cidr;

use super::text::Subnet;

/// Bytes of a configuration.
const LARGEST: usize = 64 * 1024;
const VXLAN_PORT: u16 = 8472;
const UDP_PORT: u16 = 8285;

/// Flannel's configuration, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    v4: Range,
    v6: Option<Range>,
    backend: Backend,
}

/// Where hosts' subnets of one family come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    network: IpNet,
    /// Prefix length of a host's.
    length: u8,
    /// The first and the last address that a subnet begins with.
    first: IpAddr,
    last: IpAddr,
}

/// How hosts reach one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backend {
    Vxlan { vni: u32, port: u16 },
    HostGw,
    Udp { port: u16 },
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Raw {
    #[serde(rename = "EnableIPv4", default = "yes")]
    enable_ipv4: bool,
    #[serde(rename = "EnableIPv6", default)]
    enable_ipv6: bool,
    network: Option<Ipv4Net>,
    #[serde(rename = "IPv6Network")]
    ipv6_network: Option<Ipv6Net>,
    #[serde(default)]
    subnet_len: u8,
    #[serde(rename = "IPv6SubnetLen", default)]
    ipv6_subnet_len: u8,
    subnet_min: Option<Ipv4Addr>,
    subnet_max: Option<Ipv4Addr>,
    #[serde(rename = "IPv6SubnetMin")]
    ipv6_subnet_min: Option<Ipv6Addr>,
    #[serde(rename = "IPv6SubnetMax")]
    ipv6_subnet_max: Option<Ipv6Addr>,
    backend: Option<RawBackend>,
}

#[derive(Deserialize)]
struct RawBackend {
    #[serde(rename = "Type", default)]
    kind: String,
    #[serde(rename = "VNI")]
    vni: Option<u32>,
    #[serde(rename = "Port")]
    port: Option<u16>,
}

fn yes() -> bool {
    true
}

/// Reads flannel's configuration with its defaults; the error says what is wrong and what to do.
pub fn read_settings(text: &[u8]) -> Result<Settings, String> {
    if text.len() > LARGEST {
        return Err(format!("it has {} bytes, more than {LARGEST}", text.len()));
    }
    let raw: Raw =
        serde_json::from_slice(text).map_err(|error| format!("it is not what flannel reads: {error}"))?;
    if !raw.enable_ipv4 {
        return Err("EnableIPv4 is false, and flannel's keys in etcd have no form for IPv6 alone".to_owned());
    }
    let network = raw.network.ok_or("it has no Network")?;
    let (min, max) = (raw.subnet_min.map(IpAddr::V4), raw.subnet_max.map(IpAddr::V4));
    let v4 = Range::new(network.into(), raw.subnet_len, [min, max])?;
    let v6 = if raw.enable_ipv6 {
        let network = raw.ipv6_network.ok_or("it has no IPv6Network")?;
        let (min, max) = (raw.ipv6_subnet_min.map(IpAddr::V6), raw.ipv6_subnet_max.map(IpAddr::V6));
        Some(Range::new(network.into(), raw.ipv6_subnet_len, [min, max])?)
    } else {
        None
    };
    Ok(Settings { v4, v6, backend: Backend::new(raw.backend)? })
}

impl Backend {
    fn new(raw: Option<RawBackend>) -> Result<Self, String> {
        // Without any flannel takes its first one.
        let Some(raw) = raw else { return Ok(Backend::Udp { port: UDP_PORT }) };
        let port = |usual| raw.port.filter(|port| *port > 0).unwrap_or(usual);
        match raw.kind.as_str() {
            "vxlan" => {
                let vni = raw.vni.unwrap_or(1);
                if vni >= 1 << 24 {
                    return Err(format!("its VNI {vni} has more than 24 bits"));
                }
                Ok(Backend::Vxlan { vni, port: port(VXLAN_PORT) })
            }
            "host-gw" => Ok(Backend::HostGw),
            "udp" => Ok(Backend::Udp { port: port(UDP_PORT) }),
            other => Err(format!("its backend is {other:?}; hosts of ours can have vxlan, host-gw and udp")),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Backend::Vxlan { .. } => "vxlan",
            Backend::HostGw => "host-gw",
            Backend::Udp { .. } => "udp",
        }
    }

    /// The fields of a Network object that say the same.
    fn spec(self) -> Value {
        match self {
            Backend::Vxlan { vni, port } => json!({"backend": "vxlan", "vxlan": {"vni": vni, "port": port}}),
            Backend::HostGw => json!({"backend": "host-gw"}),
            Backend::Udp { port } => json!({"backend": "udp", "udpPort": port}),
        }
    }
}

impl Range {
    /// `length` 0 and no ends are flannel's defaults.
    fn new(network: IpNet, length: u8, [first, last]: [Option<IpAddr>; 2]) -> Result<Self, String> {
        let network = network.trunc();
        let (bits, longest) = if network.addr().is_ipv4() { (32, 30) } else { (128, 126) };
        let usual = if network.addr().is_ipv4() { 24 } else { 64 };
        let least = network.prefix_len().saturating_add(2);
        let length = if length > 0 { length } else { least.max(usual) };
        if length < least || length > longest {
            return Err(format!(
                "subnets of /{length} do not fit the network {network}: choose /{least} to /{longest}"
            ));
        }
        let size = 1u128 << (bits - u32::from(length));
        let (from, to) = (number(network.network()), number(network.broadcast()));
        let end = |given: Option<IpAddr>, usual: u128| {
            let address = given.filter(|address| !address.is_unspecified()).map_or(usual, number);
            let fits = (from..=to).contains(&address) && address.is_multiple_of(size);
            fits.then_some(address).ok_or_else(|| {
                let given = given.map(|address| address.to_string()).unwrap_or_default();
                format!("the end {given} of the range of subnets is not the first address of a /{length} in {network}")
            })
        };
        // Its first subnet has the network's own address, which flannel leaves out.
        let (first, last) = (end(first, from + size)?, end(last, to - (size - 1))?);
        if first > last {
            return Err(format!("the range of subnets of {network} ends before it begins"));
        }
        let address = |number| address(network, number);
        Ok(Range { network, length, first: address(first), last: address(last) })
    }

    /// The lowest subnet that shares no address with `taken`.
    fn free(&self, taken: &[IpNet]) -> Result<IpNet, String> {
        let mut taken = taken.to_vec();
        taken.extend(self.outside());
        node_cidr::allocate(&self.network, self.length, &taken).map_err(|error| error.to_string())
    }

    /// The parts of the network before and after the range.
    fn outside(&self) -> Vec<IpNet> {
        let size = 1u128 << (u32::from(self.network.max_prefix_len()) - u32::from(self.length));
        let (from, to) = (number(self.network.network()), number(self.network.broadcast()));
        let (first, end) = (number(self.first), number(self.last) + (size - 1));
        let mut parts = Vec::new();
        let mut part = |from: u128, to: u128| match (address(self.network, from), address(self.network, to)) {
            (IpAddr::V4(from), IpAddr::V4(to)) => parts.extend(Ipv4Subnets::new(from, to, 0).map(IpNet::V4)),
            (IpAddr::V6(from), IpAddr::V6(to)) => parts.extend(Ipv6Subnets::new(from, to, 0).map(IpNet::V6)),
            _ => {}
        };
        if first > from {
            part(from, first - 1);
        }
        if end < to {
            part(end + 1, to);
        }
        parts
    }

    fn fits(&self, subnet: IpNet) -> bool {
        let starts = number(self.first)..=number(self.last);
        subnet.prefix_len() == self.length
            && self.network.contains(&subnet)
            && starts.contains(&number(subnet.addr()))
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// The address with a number, of the family of `like`.
fn address(like: IpNet, number: u128) -> IpAddr {
    match like {
        IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
        IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

impl Settings {
    /// Whether a host could have this subnet.
    pub fn fits(&self, subnet: &Subnet) -> bool {
        let v6 = match (&self.v6, subnet.v6) {
            (Some(range), Some(v6)) => range.fits(v6.into()),
            (None, None) => true,
            _ => false,
        };
        v6 && self.v4.fits(subnet.v4.into())
    }

    /// A subnet that shares no address with `taken`.
    pub fn free(&self, taken: &[IpNet]) -> Result<Subnet, String> {
        let v6 = self.v6.as_ref().map(|range| range.free(taken)).transpose()?;
        match (self.v4.free(taken)?, v6) {
            (IpNet::V4(v4), None) => Ok(Subnet { v4, v6: None }),
            (IpNet::V4(v4), Some(IpNet::V6(v6))) => Ok(Subnet { v4, v6: Some(v6) }),
            _ => Err("the families of the networks are mixed up".to_owned()),
        }
    }

    /// The Network object that says the same.
    pub(super) fn network(&self) -> Value {
        json!({"apiVersion": "weft.dev/v1", "kind": "Network",
            "metadata": {"name": "default"}, "spec": self.backend.spec()})
    }

    /// Whether the cluster's own pod CIDRs (none are as good as the same) and its Network object fit.
    pub(super) fn agree(&self, cluster: &[IpNet], network: Option<&Value>) -> Result<(), String> {
        let own: Vec<IpNet> =
            [Some(self.v4), self.v6].into_iter().flatten().map(|range| range.network).collect();
        if !cluster.is_empty()
            && (cluster.len() != own.len() || !cluster.iter().all(|c| own.contains(&c.trunc())))
        {
            let list = |all: &[IpNet]| all.iter().map(IpNet::to_string).collect::<Vec<_>>().join(",");
            return Err(format!(
                "its networks are {} and this server's --cluster-cidr {}: give it flannel's",
                list(&own),
                list(cluster)
            ));
        }
        let Some(spec) = network.map(|network| &network["spec"]) else { return Ok(()) };
        let wanted = self.backend.spec();
        let named = spec["backend"].as_str().unwrap_or(self.backend.name());
        let alike = match self.backend {
            Backend::Vxlan { .. } => matches!(named, "vxlan" | "vxlan-cross-subnet" | "auto"),
            Backend::HostGw => named == "host-gw",
            Backend::Udp { .. } => matches!(named, "udp" | "udp-cross-subnet"),
        };
        let vxlan = json!({"vni": spec["vxlan"]["vni"].as_u64().unwrap_or(1),
            "port": spec["vxlan"]["port"].as_u64().unwrap_or(u64::from(VXLAN_PORT))});
        let port = spec["udpPort"].as_u64().unwrap_or(u64::from(UDP_PORT));
        let numbers = match self.backend {
            Backend::Vxlan { .. } => vxlan == wanted["vxlan"],
            Backend::HostGw => true,
            Backend::Udp { .. } => wanted["udpPort"] == port,
        };
        if alike && numbers {
            return Ok(());
        }
        Err(format!("it asks for {wanted} and the Network object default for {spec}: make them the same"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        read_settings(text.as_bytes())
    }

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn the_lowest_free_subnet_of_the_range_is_given() {
        let all = read(r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#).unwrap();
        assert_eq!(all.free(&[]), Ok(subnet("10.5.1.0-24")), "the first has the network's address");
        assert_eq!(all.free(&["10.5.0.0/23".parse().unwrap()]), Ok(subnet("10.5.2.0-24")));
        let some =
            r#"{"Network":"10.5.0.0/16","SubnetLen":26,"SubnetMin":"10.5.9.64","SubnetMax":"10.5.9.128"}"#;
        let some = read(some).unwrap();
        let mut taken: Vec<IpNet> = Vec::new();
        for wanted in ["10.5.9.64-26", "10.5.9.128-26"] {
            let given = some.free(&taken).unwrap();
            assert_eq!((given, some.fits(&given)), (subnet(wanted), true));
            taken.extend(given.cidrs());
        }
        assert!(some.free(&taken).unwrap_err().contains("no free /26"));
        assert!(!some.fits(&subnet("10.5.9.192-26")) && !some.fits(&subnet("10.5.9.0-24")));
        let both = r#"{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48"}"#;
        assert_eq!(read(both).unwrap().free(&[]), Ok(subnet("10.5.1.0-24&fd00:5:0:1::-64")));
        assert!(!read(both).unwrap().fits(&subnet("10.5.1.0-24")));
        let small = read(r#"{"Network":"10.5.0.0/24"}"#).unwrap();
        assert_eq!(small.free(&[]), Ok(subnet("10.5.0.64-26")));
        let whole = read(r#"{"Network":"10.5.0.0/16","SubnetLen":20,"SubnetMax":"10.5.240.0"}"#).unwrap();
        assert_eq!(whole.free(&["10.5.0.0/17".parse().unwrap()]), Ok(subnet("10.5.128.0-20")));
    }

    #[test]
    fn what_flannel_refuses_or_we_have_no_like_of_is_refused() {
        for (text, told) in [
            ("", "not what flannel reads"),
            ("{}", "no Network"),
            (r#"{"Network":"10.5.0.0/16","EnableIPv4":false}"#, "IPv6 alone"),
            (r#"{"Network":"10.5.0.0/29"}"#, "do not fit"),
            (r#"{"Network":"10.5.0.0/16","SubnetLen":31}"#, "do not fit"),
            (r#"{"Network":"10.5.0.0/16","SubnetLen":17}"#, "do not fit"),
            (r#"{"Network":"10.5.0.0/16","SubnetMin":"10.5.1.1"}"#, "first address"),
            (r#"{"Network":"10.5.0.0/16","SubnetMax":"10.6.0.0"}"#, "first address"),
            (
                r#"{"Network":"10.5.0.0/16","SubnetMin":"10.5.9.0","SubnetMax":"10.5.1.0"}"#,
                "before it begins",
            ),
            (r#"{"Network":"10.5.0.0/16","EnableIPv6":true}"#, "no IPv6Network"),
            (r#"{"Network":"10.5.0.0/16","Backend":{"Type":"ipsec"}}"#, "ipsec"),
            (r#"{"Network":"10.5.0.0/16","Backend":{}}"#, "vxlan, host-gw and udp"),
            (r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":16777216}}"#, "24 bits"),
            (r#"{"Network":"0.0.0.0/0","SubnetLen":1}"#, "do not fit"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(told), "{text}: {refused}");
        }
        assert!(read(&format!("{}{{}}", " ".repeat(LARGEST))).unwrap_err().contains("bytes"));
    }

    #[test]
    fn a_network_object_that_says_otherwise_is_a_conflict() {
        let vxlan = read(r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":7}}"#).unwrap();
        assert_eq!(vxlan.agree(&[], Some(&vxlan.network())), Ok(()));
        assert_eq!(vxlan.agree(&["10.5.0.0/16".parse().unwrap()], None), Ok(()));
        let refused = vxlan.agree(&["10.244.0.0/16".parse().unwrap()], None).unwrap_err();
        assert!(refused.contains("--cluster-cidr 10.244.0.0/16"), "{refused}");
        for spec in [
            json!({"backend": "vxlan"}),
            json!({"backend": "host-gw", "vxlan": {"vni": 7}}),
            json!({"backend": "vxlan", "vxlan": {"vni": 7, "port": 4789}}),
        ] {
            let refused = vxlan.agree(&[], Some(&json!({"spec": spec}))).unwrap_err();
            assert!(refused.contains("Network object default"), "{refused}");
        }
        let auto = json!({"spec": {"backend": "auto", "vxlan": {"vni": 7}}});
        assert_eq!(vxlan.agree(&[], Some(&auto)), Ok(()));
        let udp = read(r#"{"Network":"10.5.0.0/16"}"#).unwrap();
        assert_eq!(udp.agree(&[], Some(&json!({"spec": {"backend": "udp"}}))), Ok(()));
        assert!(udp.agree(&[], Some(&json!({"spec": {"backend": "udp", "udpPort": 1}}))).is_err());
        let host_gw = read(r#"{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw"}}"#).unwrap();
        assert!(host_gw.agree(&[], Some(&json!({"spec": {"backend": "auto"}}))).is_err());
    }
}
