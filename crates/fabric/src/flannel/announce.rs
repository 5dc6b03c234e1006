//! What a node of ours writes, so that flannel on other nodes programs it.

use std::net::IpAddr;

use weft_model::network::Network;
use weft_model::{FlannelAnnotation, FlannelAnnotations, Mac, Node, mark};

use super::FlannelBackend;

/// What of a node goes into its annotations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ours {
    /// Its backend.
    pub backend: FlannelBackend,
    /// Its addresses on the underlay.
    pub addresses: Vec<IpAddr>,
    /// Whether it has pods of IPv4.
    pub ipv4: bool,
    /// The same for IPv6.
    pub ipv6: bool,
    /// Network identifier of its VXLAN devices.
    pub vni: u32,
    /// The hardware address of its VXLAN devices.
    pub mac: Mac,
}

/// What `node` is to say; nothing where flannel has no backend like the one that is in force.
pub(crate) fn ours(node: &Node, network: &Network) -> FlannelAnnotations {
    let backend = network.backends(&node.name).find_map(FlannelBackend::of);
    let of = |backend| Ours {
        backend,
        addresses: node.addresses.clone(),
        ipv4: node.pod_cidrs.iter().any(|cidr| cidr.addr().is_ipv4()),
        ipv6: node.pod_cidrs.iter().any(|cidr| cidr.addr().is_ipv6()),
        vni: network.vxlan.vni,
        mac: mark::vtep_mac(&node.name),
    };
    backend.map(|backend| announcement(&of(backend), &node.flannel)).unwrap_or_default()
}

/// The annotations that flannel would write on such a node, with our mark; `found` are those that
/// it has, of which an operator's own are obeyed and not written.
pub fn announcement(ours: &Ours, found: &FlannelAnnotations) -> FlannelAnnotations {
    use FlannelAnnotation as A;
    let mut texts = FlannelAnnotations::new();
    let families = [
        (ours.ipv4, A::PublicIp, [A::PublicIpOverwrite, A::NodePublicIp], A::BackendData),
        (ours.ipv6, A::PublicIpv6, [A::PublicIpv6Overwrite, A::NodePublicIpv6], A::BackendV6Data),
    ];
    for (has_pods, address_in, chosen_in, data_in) in families {
        let chosen = chosen_in.iter().find_map(|annotation| found.get(annotation).filter(|t| !t.is_empty()));
        let ipv6 = address_in == A::PublicIpv6;
        let own = ours.addresses.iter().find(|address| address.is_ipv6() == ipv6);
        let address = chosen.cloned().or_else(|| own.map(|address| address.to_string().into()));
        if let Some(address) = address.filter(|_| has_pods) {
            texts.insert(address_in, address);
            texts.insert(data_in, data(ours).into());
        }
    }
    if !texts.is_empty() {
        texts.insert(A::BackendType, ours.backend.annotation().into());
        texts.insert(A::KubeSubnetManager, "true".into());
    }
    texts
}

fn data(ours: &Ours) -> String {
    match ours.backend {
        FlannelBackend::Vxlan => format!(r#"{{"VNI":{},"Weft":true,"VtepMAC":"{}"}}"#, ours.vni, ours.mac),
        FlannelBackend::HostGw | FlannelBackend::Udp => r#"{"Weft":true}"#.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Announced, End, Vtep, read};
    use super::*;

    fn ours(backend: FlannelBackend) -> Ours {
        let addresses = vec!["192.168.7.1".parse().unwrap(), "fd07::1".parse().unwrap()];
        Ours {
            backend,
            addresses,
            ipv4: true,
            ipv6: false,
            vni: 1,
            mac: "66:00:00:00:00:01".parse().unwrap(),
        }
    }

    #[test]
    fn what_we_write_reads_as_our_own() {
        let ours = ours(FlannelBackend::Vxlan);
        let texts = announcement(&ours, &FlannelAnnotations::new());
        let end = End { address: ours.addresses[0], vtep: Some(Vtep { vni: 1, mac: ours.mac }) };
        let wanted = Announced { backend: ours.backend, v4: Some(end), v6: None, by_weft: true };
        assert_eq!(read("n", &texts), Ok(Some(wanted)));
        assert!(!texts.contains_key(&FlannelAnnotation::BackendV6Data), "no pods of IPv6");

        let both = announcement(&Ours { ipv6: true, ..ours }, &FlannelAnnotations::new());
        assert_eq!(&*both[&FlannelAnnotation::PublicIpv6], "fd07::1");
        assert_eq!(both[&FlannelAnnotation::BackendV6Data], both[&FlannelAnnotation::BackendData]);
    }

    #[test]
    fn flannel_finds_its_mac_where_it_looks_for_it() {
        let texts = announcement(&ours(FlannelBackend::Vxlan), &FlannelAnnotations::new());
        let trimmed = texts[&FlannelAnnotation::BackendData].trim_matches(['"', '}']);
        let parts: Vec<&str> = trimmed.split(":\"").collect();
        assert_eq!(parts[1..], ["66:00:00:00:00:01"]);
    }

    #[test]
    fn an_operator_s_address_is_obeyed_and_the_overwrite_goes_first() {
        let mut found: FlannelAnnotations = [(FlannelAnnotation::NodePublicIp, "192.0.2.7".into())].into();
        let told = |found: &FlannelAnnotations| {
            announcement(&ours(FlannelBackend::HostGw), found)[&FlannelAnnotation::PublicIp].clone()
        };
        assert_eq!(&*told(&found), "192.0.2.7");
        found.insert(FlannelAnnotation::PublicIpOverwrite, "192.0.2.8".into());
        assert_eq!(&*told(&found), "192.0.2.8");
    }
}
