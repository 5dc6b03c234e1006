//! Flannel next door: what its nodes say of themselves in annotations, and what a node of ours
//! says so that they know it.
//!
//! Facts of flannel 0.28: its `udp` writes an empty type; JSON `null` stands for no data; a family
//! that is off has the address 0.0.0.0 or none; nodes of another type are ignored. At its start
//! flannel takes the MAC of its device from its annotation: the text between the only `:"` and the
//! end. So our mark, a member that flannel overlooks, goes before the MAC and is no string.

mod announce;
mod peer;
mod problem;
mod subnet_env;

use std::fmt;
use std::net::IpAddr;

use serde::Deserialize;
use weft_model::{FlannelAnnotation, FlannelAnnotations, Mac, Node};

pub(crate) use announce::ours;
pub use announce::{Ours, announcement};
pub(crate) use peer::path;
pub use problem::Problem;
pub use subnet_env::{BadSubnetEnv, networks_of, subnet_env};

/// A backend of flannel that has its like here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlannelBackend {
    /// One VXLAN device for each family, `flannel.1` and `flannel-v6.1`.
    Vxlan,
    /// Plain routes.
    HostGw,
    /// Packets in UDP by a proxy, IPv4 only.
    Udp,
}

impl FlannelBackend {
    /// The text of the annotation `backend-type`.
    pub fn annotation(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::HostGw => "host-gw",
            Self::Udp => "",
        }
    }
}

impl fmt::Display for FlannelBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            named => named.annotation(),
        })
    }
}

/// What a node's annotations say, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// How its pods are reached.
    pub backend: FlannelBackend,
    /// Where their IPv4 packets go; none where it announces no IPv4.
    pub v4: Option<End>,
    /// The same for IPv6.
    pub v6: Option<End>,
    /// Whether a node of ours wrote them.
    pub by_weft: bool,
}

/// One family's end of the paths to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Its address on the underlay.
    pub address: IpAddr,
    /// Its VXLAN device, of the backend `vxlan`.
    pub vtep: Option<Vtep>,
}

/// A VXLAN device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vtep {
    /// Network identifier.
    pub vni: u32,
    /// Hardware address.
    pub mac: Mac,
}

impl Announced {
    /// The end for packets of the family of `like`.
    pub fn end(&self, like: IpAddr) -> Option<&End> {
        if like.is_ipv4() { self.v4.as_ref() } else { self.v6.as_ref() }
    }

    /// All ends.
    pub fn ends(&self) -> impl Iterator<Item = &End> {
        self.v4.iter().chain(&self.v6)
    }
}

/// The JSON of `backend-data`, with what no backend of ours reads left out.
#[derive(Default, Deserialize)]
struct Data {
    #[serde(rename = "VNI")]
    vni: Option<u32>,
    #[serde(rename = "VtepMAC")]
    vtep_mac: Option<String>,
    /// Our mark.
    #[serde(rename = "Weft", default)]
    weft: bool,
}

/// Reads the annotations of `node`; none where flannel does not manage it.
pub fn read(node: &str, texts: &FlannelAnnotations) -> Result<Option<Announced>, Problem> {
    use FlannelAnnotation as A;
    let reader = Reader { node, texts };
    match reader.text(A::KubeSubnetManager) {
        None | Some("false") => return Ok(None),
        Some("true") => {}
        Some(_) => return Err(reader.problem(A::KubeSubnetManager, "is neither true nor false")),
    }
    let backend = reader.backend()?;
    let (v4, v6) = (reader.data(A::BackendData)?, reader.data(A::BackendV6Data)?);
    let by_weft = v4.iter().chain(&v6).any(|data| data.weft);
    Ok(Some(Announced {
        backend,
        v4: reader.end(backend, A::PublicIp, A::BackendData, v4)?,
        v6: reader.end(backend, A::PublicIpv6, A::BackendV6Data, v6)?,
        by_weft,
    }))
}

/// What `node` says where flannel runs on it; none where it does not, our own nodes among them.
pub(crate) fn neighbour(node: &Node) -> Option<Result<Announced, Problem>> {
    match read(&node.name, &node.flannel) {
        Ok(announced) => announced.filter(|announced| !announced.by_weft).map(Ok),
        Err(problem) => Some(Err(problem)),
    }
}

struct Reader<'a> {
    node: &'a str,
    texts: &'a FlannelAnnotations,
}

impl Reader<'_> {
    fn text(&self, annotation: FlannelAnnotation) -> Option<&str> {
        self.texts.get(&annotation).map(|text| &**text)
    }

    fn backend(&self) -> Result<FlannelBackend, Problem> {
        use FlannelBackend::{HostGw, Udp, Vxlan};
        let annotation = FlannelAnnotation::BackendType;
        let text = self.text(annotation).ok_or_else(|| self.missing(annotation))?;
        let known = [Vxlan, HostGw, Udp].into_iter().find(|backend| backend.annotation() == text);
        known.ok_or_else(|| self.problem(annotation, "is none of vxlan, host-gw and (empty for udp) nothing"))
    }

    /// None for `null` and where the annotation is missing.
    fn data(&self, annotation: FlannelAnnotation) -> Result<Option<Data>, Problem> {
        let Some(text) = self.text(annotation) else { return Ok(None) };
        let parsed = serde_json::from_str::<Option<Data>>(text);
        parsed.map_err(|_| self.problem(annotation, "is not the JSON that flannel writes"))
    }

    fn end(
        &self,
        backend: FlannelBackend,
        address_in: FlannelAnnotation,
        data_in: FlannelAnnotation,
        data: Option<Data>,
    ) -> Result<Option<End>, Problem> {
        let Some(address) = self.address(address_in)? else { return Ok(None) };
        let vtep = match backend {
            FlannelBackend::Vxlan => Some(self.vtep(data_in, data)?),
            FlannelBackend::HostGw | FlannelBackend::Udp => None,
        };
        Ok(Some(End { address, vtep }))
    }

    fn address(&self, annotation: FlannelAnnotation) -> Result<Option<IpAddr>, Problem> {
        let Some(text) = self.text(annotation) else { return Ok(None) };
        let ipv6 = annotation == FlannelAnnotation::PublicIpv6;
        let parsed: Option<IpAddr> = text.parse().ok().filter(|address: &IpAddr| address.is_ipv6() == ipv6);
        let address = parsed.ok_or_else(|| {
            self.problem(annotation, if ipv6 { "is no IPv6 address" } else { "is no IPv4 address" })
        })?;
        if address.is_unspecified() {
            return Ok(None);
        }
        let link_local = match address {
            IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        if address.is_loopback() || address.is_multicast() || link_local {
            return Err(self.problem(annotation, "is an address that no node can be reached at"));
        }
        Ok(Some(address))
    }

    fn vtep(&self, annotation: FlannelAnnotation, data: Option<Data>) -> Result<Vtep, Problem> {
        let data = data.ok_or_else(|| self.missing(annotation))?;
        let vni = data.vni.filter(|vni| *vni < 1 << 24);
        let vni = vni.ok_or_else(|| self.problem(annotation, "has no VNI of 24 bits"))?;
        let mac = data.vtep_mac.and_then(|text| text.parse::<Mac>().ok());
        // A group's address is nobody's own.
        let mac = mac.filter(|mac| *mac != Mac::default() && mac.0[0] & 1 == 0);
        let mac = mac.ok_or_else(|| self.problem(annotation, "has no VtepMAC that a device can have"))?;
        Ok(Vtep { vni, mac })
    }

    fn problem(&self, annotation: FlannelAnnotation, problem: &'static str) -> Problem {
        let text = self.text(annotation).unwrap_or_default().into();
        Problem::Unreadable { node: self.node.into(), annotation, text, problem }
    }

    fn missing(&self, annotation: FlannelAnnotation) -> Problem {
        Problem::Missing { node: self.node.into(), annotation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FlannelAnnotation as A;

    fn texts(pairs: &[(A, &str)]) -> FlannelAnnotations {
        pairs.iter().map(|(annotation, text)| (*annotation, (*text).into())).collect()
    }

    fn vxlan() -> FlannelAnnotations {
        texts(&[
            (A::KubeSubnetManager, "true"),
            (A::BackendType, "vxlan"),
            (A::BackendData, r#"{"VNI":1,"VtepMAC":"3a:0f:2e:0c:9d:51"}"#),
            (A::PublicIp, "192.168.7.2"),
        ])
    }

    #[test]
    fn the_annotations_of_each_backend_as_flannel_writes_them() {
        let found = read("n", &vxlan()).unwrap().unwrap();
        let vtep = Vtep { vni: 1, mac: "3a:0f:2e:0c:9d:51".parse().unwrap() };
        let end = End { address: "192.168.7.2".parse().unwrap(), vtep: Some(vtep) };
        assert_eq!(
            found,
            Announced { backend: FlannelBackend::Vxlan, v4: Some(end), v6: None, by_weft: false }
        );

        let host_gw = texts(&[
            (A::KubeSubnetManager, "true"),
            (A::BackendType, "host-gw"),
            (A::BackendData, "null"),
            (A::BackendV6Data, "null"),
            (A::PublicIp, "0.0.0.0"),
            (A::PublicIpv6, "fd07::2"),
        ]);
        let found = read("n", &host_gw).unwrap().unwrap();
        assert_eq!((found.backend, found.v4), (FlannelBackend::HostGw, None));
        assert_eq!(found.v6, Some(End { address: "fd07::2".parse().unwrap(), vtep: None }));

        let udp = texts(&[
            (A::KubeSubnetManager, "true"),
            (A::BackendType, ""),
            (A::BackendData, "null"),
            (A::PublicIp, "192.168.7.2"),
        ]);
        assert_eq!(read("n", &udp).unwrap().unwrap().backend, FlannelBackend::Udp);
    }

    #[test]
    fn a_node_that_flannel_does_not_manage_announces_nothing() {
        assert_eq!(read("n", &FlannelAnnotations::new()), Ok(None));
        assert_eq!(read("n", &texts(&[(A::PublicIpOverwrite, "192.0.2.1")])), Ok(None));
        assert_eq!(read("n", &texts(&[(A::KubeSubnetManager, "false"), (A::BackendType, "x")])), Ok(None));
    }

    #[test]
    fn an_annotation_edited_by_hand_is_refused_by_a_sentence_that_names_it() {
        for (annotation, text, told) in [
            (A::KubeSubnetManager, "yes", "neither true nor false"),
            (A::BackendType, "vxlan ", "none of vxlan"),
            (A::BackendType, "wireguard", "none of vxlan"),
            (A::BackendData, "null", "backend-data"),
            (A::BackendData, "{", "not the JSON"),
            (A::BackendData, r#"{"VNI":1,"VtepMAC":7}"#, "not the JSON"),
            (A::BackendData, r#"{"VNI":16777216,"VtepMAC":"3a:0f:2e:0c:9d:51"}"#, "24 bits"),
            (A::BackendData, r#"{"VNI":-1,"VtepMAC":"3a:0f:2e:0c:9d:51"}"#, "not the JSON"),
            (A::BackendData, r#"{"VNI":1,"VtepMAC":"3b:0f:2e:0c:9d:51"}"#, "VtepMAC"),
            (A::BackendData, r#"{"VNI":1,"VtepMAC":"00:00:00:00:00:00"}"#, "VtepMAC"),
            (A::BackendData, r#"{"VNI":1,"VtepMAC":"3a0f.2e0c.9d51"}"#, "VtepMAC"),
            (A::PublicIp, "192.168.7.256", "no IPv4 address"),
            (A::PublicIp, "192.168.007.2", "no IPv4 address"),
            (A::PublicIp, "fd07::2", "no IPv4 address"),
            (A::PublicIp, "127.0.0.1", "no node can be reached"),
            (A::PublicIp, "224.0.0.9", "no node can be reached"),
            (A::PublicIpv6, "192.168.7.2", "no IPv6 address"),
            (A::PublicIpv6, "fe80::1", "no node can be reached"),
        ] {
            let mut edited = vxlan();
            edited.insert(annotation, text.into());
            let problem = read("n2", &edited).unwrap_err().to_string();
            assert!(problem.contains("n2") && problem.contains(told), "{text}: {problem}");
        }
    }
}
