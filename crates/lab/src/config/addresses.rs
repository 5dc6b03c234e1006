//! Who has which address on the underlay: it follows from the configuration alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{LabConfig, OUTSIDE_V4, OUTSIDE_V6, Topology, UNDERLAY_V4, UNDERLAY_V6};

impl LabConfig {
    /// The nodes, in order.
    pub fn node_specs(&self) -> Vec<NodeSpec> {
        (0..self.nodes).map(|index| self.node_spec(index)).collect()
    }

    fn node_spec(&self, index: u16) -> NodeSpec {
        let (rack, place) = match self.topology {
            Topology::Flat => (0, index),
            Topology::Racks(racks) => (index % racks + 1, index / racks),
        };
        NodeSpec { name: format!("node{}", index + 1), rack, addresses: self.on_segment(rack, 2 + place) }
    }

    /// The router's addresses on segment `rack` (0 when flat).
    pub fn gateways(&self, rack: u16) -> Vec<IpNet> {
        self.on_segment(rack, 1)
    }

    /// The API server's address inside the lab; the router answers to it in every topology.
    pub fn api_address(&self) -> IpAddr {
        if self.has_v4() { segment_v4(0, 1).addr() } else { segment_v6(0, 1).addr() }
    }

    /// The addresses of the host outside the cluster.
    pub fn outside_hosts(&self) -> Vec<IpAddr> {
        let v4 = OUTSIDE_V4.hosts().next().map(IpAddr::V4).filter(|_| self.has_v4());
        let v6 = OUTSIDE_V6.hosts().nth(1).map(IpAddr::V6).filter(|_| self.has_v6());
        v4.into_iter().chain(v6).collect()
    }

    /// The addresses of one host on a segment, a family each, in the order of the pods' families.
    fn on_segment(&self, rack: u16, host: u16) -> Vec<IpNet> {
        let one = |cidr: &IpNet| match cidr {
            IpNet::V4(_) => segment_v4(rack, host),
            IpNet::V6(_) => segment_v6(rack, host),
        };
        self.pod_cidrs.iter().map(one).collect()
    }
}

/// One node of a lab: what follows from the configuration alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// `node1`, `node2`, …
    pub name: String,
    /// Its segment: 0 when flat, else from 1.
    pub rack: u16,
    /// Its addresses with their segment's prefix length, the pods' first family first.
    pub addresses: Vec<IpNet>,
}

impl NodeSpec {
    /// Its bare addresses, in the same order.
    pub fn ips(&self) -> Vec<IpAddr> {
        self.addresses.iter().map(IpNet::addr).collect()
    }
}

// A rack and a place are at most 100, so both fit an octet.
fn segment_v4(rack: u16, host: u16) -> IpNet {
    let [a, b, ..] = UNDERLAY_V4.network().octets();
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, rack as u8, host as u8), 24))
}

fn segment_v6(rack: u16, host: u16) -> IpNet {
    let [a, b, ..] = UNDERLAY_V6.network().segments();
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, rack, 0, 0, 0, host), 64))
}
