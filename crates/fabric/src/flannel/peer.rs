//! The path to a peer that runs flannel, as its annotations say.

use ipnet::IpNet;
use weft_model::Node;
use weft_model::network::{Backend, Network, Tunnel};

use super::{Announced, FlannelBackend, Problem};
use crate::claims::Claims;
use crate::{LocalPlan, Path, Refusal, Underlay, Via, checks, vxlan};

impl FlannelBackend {
    /// Flannel's name for a backend of ours; none where flannel has no like.
    pub(crate) fn of(backend: Backend) -> Option<FlannelBackend> {
        match backend.tunnel {
            None => Some(FlannelBackend::HostGw),
            Some(Tunnel::Vxlan) => Some(FlannelBackend::Vxlan),
            Some(Tunnel::Udp) => Some(FlannelBackend::Udp),
            Some(Tunnel::Ipip) => None,
        }
    }
}

/// Plans the path to one pod CIDR of `peer`. Always by the tunnel, if flannel has one: a plain
/// route in one direction only is dropped by hosts that check where packets come from.
pub(crate) fn path(
    peer: &Node,
    announced: &Announced,
    cidr: &IpNet,
    local: &LocalPlan,
    network: &Network,
    underlay: &Underlay,
    claims: &Claims,
) -> Result<Path, Refusal> {
    let node = || peer.name.clone();
    if !network.backends(&local.node).any(|backend| FlannelBackend::of(backend) == Some(announced.backend)) {
        let ours = network.backends(&local.node).map(|backend| backend.to_string()).collect::<Vec<_>>();
        let (theirs, ours) = (announced.backend, ours.join(" and "));
        return Err(Problem::OtherBackend { node: node(), theirs, ours }.into());
    }
    let family = if cidr.addr().is_ipv4() { "IPv4" } else { "IPv6" };
    let end = announced.end(cidr.addr()).ok_or_else(|| Problem::NoFamily { node: node(), family })?;
    let endpoint = end.address;
    let via = match (announced.backend, end.vtep) {
        (FlannelBackend::HostGw, _) => {
            checks::on_segment(peer, endpoint, underlay)?;
            Via::Direct { gateway: endpoint, link: underlay.index }
        }
        (FlannelBackend::Udp, _) => Via::Udp { endpoint },
        (FlannelBackend::Vxlan, vtep) => {
            let vtep = vtep.ok_or_else(|| Problem::NoFamily { node: node(), family })?;
            let ours = network.vxlan.vni;
            if vtep.vni != ours {
                return Err(Problem::OtherVni { node: node(), theirs: vtep.vni, ours }.into());
            }
            let holders = claims.mac_holders(&vtep.mac);
            if let Some(by) = checks::first(holders, peer, &local.node) {
                return Err(Problem::MacTaken { node: node(), mac: vtep.mac, by: by.name.clone() }.into());
            }
            let tunnels = [&local.tunnels.vxlan, &local.tunnels.vxlan6];
            if !tunnels.into_iter().flatten().any(|spec| spec.local.is_ipv4() == endpoint.is_ipv4()) {
                return Err(Problem::OtherFamily { node: node(), address: endpoint }.into());
            }
            Via::Vxlan { gateway: vxlan::gateway(cidr, vtep.mac), mac: vtep.mac, endpoint }
        }
    };
    Ok(Path { cidr: *cidr, via })
}
