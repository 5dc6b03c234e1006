//! What flannel keeps in etcd of each host: the key that names its subnet, and the value that says how it is
//! reached.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use weft_model::FlannelAnnotation as A;

/// Bytes of a value; flannel's are some hundred.
const LARGEST: usize = 16 * 1024;
/// The backend of a host of ours that no flannel needs to know yet: flannel leaves out what it does not know.
const WEFT: &str = "weft";

/// The subnets of one host, as the last part of a key says them: `10.5.52.0-24`, or
/// `10.5.52.0-24&fd00:0:0:5::-64` with both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    /// Its IPv4 part.
    pub v4: Ipv4Net,
    /// Its IPv6 part.
    pub v6: Option<Ipv6Net>,
}

impl Subnet {
    /// All of it, IPv4 first.
    pub(super) fn cidrs(&self) -> impl Iterator<Item = IpNet> + use<> {
        [Some(IpNet::V4(self.v4)), self.v6.map(IpNet::V6)].into_iter().flatten()
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.v4.addr(), self.v4.prefix_len())?;
        match self.v6 {
            Some(v6) => write!(f, "&{}-{}", v6.addr(), v6.prefix_len()),
            None => Ok(()),
        }
    }
}

/// A key that names no subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it names no subnet such as 10.5.52.0-24")]
pub struct NoSubnet;

impl FromStr for Subnet {
    type Err = NoSubnet;

    fn from_str(text: &str) -> Result<Self, NoSubnet> {
        fn net<T: FromStr>(text: &str, slashed: impl Fn(&str, &str) -> String) -> Option<T> {
            let (address, length) = text.rsplit_once('-')?;
            slashed(address, length).parse().ok()
        }
        let slash = |address: &str, length: &str| format!("{address}/{length}");
        let (v4, v6) = match text.split_once('&') {
            Some((v4, v6)) => (v4, Some(net::<Ipv6Net>(v6, slash).ok_or(NoSubnet)?)),
            None => (text, None),
        };
        let v4: Ipv4Net = net(v4, slash).ok_or(NoSubnet)?;
        // A subnet with bits of a host in it would be another one to flannel than to us.
        let whole = v4 == v4.trunc() && v6.is_none_or(|v6| v6 == v6.trunc());
        if whole && v4.prefix_len() > 0 { Ok(Subnet { v4, v6 }) } else { Err(NoSubnet) }
    }
}

/// How a host is reached: the value of its key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attributes {
    /// Where IPv4 packets for its pods go.
    #[serde(rename = "PublicIP")]
    pub public_ip: Ipv4Addr,
    /// The same for IPv6.
    #[serde(rename = "PublicIPv6", default)]
    pub public_ipv6: Option<Ipv6Addr>,
    /// `vxlan`, `host-gw`, …; empty for `udp`.
    #[serde(rename = "BackendType", default, skip_serializing_if = "String::is_empty")]
    pub backend: String,
    /// What the backend says for IPv4.
    #[serde(rename = "BackendData", default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// The same for IPv6.
    #[serde(rename = "BackendV6Data", default, skip_serializing_if = "Option::is_none")]
    pub data_v6: Option<Value>,
}

/// Reads a value; the error says what is wrong with it.
pub fn read_attributes(value: &[u8]) -> Result<Attributes, String> {
    if value.len() > LARGEST {
        return Err(format!("its value has {} bytes, more than {LARGEST}", value.len()));
    }
    serde_json::from_slice(value).map_err(|error| format!("its value is not what flannel writes: {error}"))
}

impl Attributes {
    /// Of a host of ours that has told nothing of itself yet.
    pub(super) fn of_weft(public_ip: Ipv4Addr, public_ipv6: Option<Ipv6Addr>) -> Self {
        let data = Some(json!({"Weft": true}));
        Self { public_ip, public_ipv6, backend: WEFT.to_owned(), data, data_v6: None }
    }

    /// Whether a host of ours is reached so, and not one that runs flannel.
    pub fn by_weft(&self) -> bool {
        self.data.iter().chain(&self.data_v6).any(|data| data["Weft"] == true)
    }

    /// The value of the key.
    pub fn text(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The addresses, IPv4 first.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let v6 = self.public_ipv6.filter(|v6| !v6.is_unspecified());
        [Some(IpAddr::V4(self.public_ip)), v6.map(IpAddr::V6)].into_iter().flatten()
    }

    /// The annotations that flannel's Kubernetes mode would have written; null for what it would not.
    pub(super) fn annotations(&self) -> Map<String, Value> {
        let told = self.backend != WEFT;
        let data = |data: &Option<Value>| data.as_ref().map_or_else(|| "null".to_owned(), Value::to_string);
        let v6 = self.public_ipv6.filter(|v6| told && !v6.is_unspecified());
        let all = [
            (A::KubeSubnetManager, told.then(|| "true".to_owned())),
            (A::BackendType, told.then(|| self.backend.clone())),
            (A::BackendData, told.then(|| data(&self.data))),
            (A::PublicIp, told.then(|| self.public_ip.to_string())),
            (A::BackendV6Data, v6.map(|_| data(&self.data_v6))),
            (A::PublicIpv6, v6.map(|v6| v6.to_string())),
        ];
        all.into_iter().map(|(annotation, text)| (annotation.to_string(), json!(text))).collect()
    }

    /// What a node's annotations say; nothing where they are not whole.
    pub(super) fn of(annotations: &Value) -> Option<Self> {
        let text = |annotation: A| annotations[annotation.to_string()].as_str();
        let data = |annotation| text(annotation).and_then(|text| serde_json::from_str(text).ok()?);
        if text(A::KubeSubnetManager) != Some("true") {
            return None;
        }
        Some(Attributes {
            public_ip: text(A::PublicIp)?.parse().ok()?,
            public_ipv6: text(A::PublicIpv6).and_then(|text| text.parse().ok()),
            backend: text(A::BackendType)?.to_owned(),
            data: data(A::BackendData),
            data_v6: data(A::BackendV6Data),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_as_flannel_writes_them() {
        for text in ["10.5.52.0-24", "10.5.52.0-24&fd00:0:0:5::-64"] {
            assert_eq!(text.parse::<Subnet>().unwrap().to_string(), text);
        }
        for bad in ["", "10.5.52.0", "10.5.52.0/24", "10.5.52.1-24", "10.5.52.0-33", "0.0.0.0-0", "fd00::-64"]
        {
            assert_eq!(bad.parse::<Subnet>(), Err(NoSubnet), "{bad}");
        }
        for bad in
            ["10.5.52.0-24&", "10.5.52.0-24&fd00::1-64", "10.5.52.0-24&10.5.52.0-24", "../10.5.52.0-24"]
        {
            assert_eq!(bad.parse::<Subnet>(), Err(NoSubnet), "{bad}");
        }
    }

    #[test]
    fn values_as_flannel_writes_them() {
        let vxlan = br#"{"PublicIP":"192.168.7.2","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"3a:0f:2e:0c:9d:51"}}"#;
        let read = read_attributes(vxlan).unwrap();
        assert!(!read.by_weft());
        assert_eq!(read_attributes(&read.text()).unwrap(), read);
        let annotations = read.annotations();
        assert_eq!(
            annotations["flannel.alpha.coreos.com/backend-data"],
            r#"{"VNI":1,"VtepMAC":"3a:0f:2e:0c:9d:51"}"#
        );
        assert_eq!(annotations["flannel.alpha.coreos.com/public-ipv6"], Value::Null);
        assert_eq!(Attributes::of(&Value::Object(annotations)), Some(read));

        let udp = read_attributes(br#"{"PublicIP":"192.168.7.2","PublicIPv6":null}"#).unwrap();
        assert_eq!(udp.annotations()["flannel.alpha.coreos.com/backend-type"], "");
        assert_eq!(Attributes::of(&Value::Object(udp.annotations())), Some(udp));
    }

    #[test]
    fn what_is_no_value_is_refused_with_a_reason() {
        let long = vec![b' '; LARGEST + 1];
        for bad in [
            &b""[..],
            b"{",
            b"[]",
            b"{}",
            br#"{"PublicIP":"x"}"#,
            br#"{"PublicIP":"1.2.3.4","BackendType":1}"#,
            &long,
        ] {
            let told = read_attributes(bad).unwrap_err();
            assert!(told.contains("its value"), "{told}");
        }
    }

    #[test]
    fn a_host_of_ours_that_told_nothing_yet_is_nobody_to_flannel() {
        let ours = Attributes::of_weft("192.168.7.2".parse().unwrap(), None);
        assert!(ours.by_weft());
        assert!(ours.annotations().values().all(Value::is_null));
        assert_eq!(read_attributes(&ours.text()), Ok(ours));
    }
}
