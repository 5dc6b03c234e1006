//! The tunnel as a plan wants it: started, replaced and stopped.

use std::net::SocketAddr;

use ipnet::IpNet;
use weft_kernel::{Netlink, Op};
use weft_model::mark;

use super::{Counters, Tunnel, UdpPeer};
use crate::{Error, FabricPlan, UdpSpec, Via};

/// More threads than this find no more packets to carry.
const MOST_QUEUES: usize = 8;
/// What opening `/dev/net/tun` says where the driver is missing: ENOENT, ENXIO, ENODEV.
const NO_DRIVER: [i32; 3] = [2, 6, 19];

/// EINVAL.
const NOT_SUCH_A_DEVICE: i32 = 22;

/// Holds the tunnel, where the plan has one.
#[derive(Debug, Default)]
pub(crate) struct Engine {
    tunnel: Option<Tunnel>,
}

impl Engine {
    /// Whether it carries packets.
    pub(crate) fn running(&self) -> bool {
        self.tunnel.is_some()
    }

    pub(crate) fn counters(&self) -> Option<Counters> {
        self.tunnel.as_ref().map(Tunnel::counters)
    }

    /// Makes it as `spec` says. A tunnel that is as wanted, on the device that is there, goes on.
    pub(crate) fn ensure(&mut self, netlink: &mut Netlink, spec: Option<&UdpSpec>) -> Result<(), Error> {
        let Some(spec) = spec else {
            self.tunnel = None;
            return Ok(());
        };
        let found = netlink.link(mark::UDP)?;
        let index = found.as_ref().map(|link| link.index);
        let whole = |t: &mut Tunnel| t.alive() && Some(t.device()) == index && t.follow(spec);
        if self.tunnel.as_mut().is_some_and(whole) {
            return Ok(());
        }
        // Its sockets first: the new ones want their port.
        self.tunnel = None;
        let queues = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_QUEUES);
        let started = match (Tunnel::start(spec, queues), found) {
            // What has the name is no TUN device with several queues; the name is our mark.
            (Err(error), Some(link)) if error.errno() == Some(NOT_SUCH_A_DEVICE) => {
                netlink.apply(&Op::LinkDel(link.index))?;
                Tunnel::start(spec, queues)
            }
            (started, _) => started,
        };
        self.tunnel = Some(started.map_err(|error| match error.errno() {
            Some(number) if NO_DRIVER.contains(&number) => Error::no_kind(mark::UDP),
            _ => error.into(),
        })?);
        Ok(())
    }

    /// Gives it all peers of the plan. Those that are reached otherwise are among them: during a
    /// migration they may send to us through the tunnel.
    pub(crate) fn set_peers(&self, plan: &FabricPlan) {
        let Some(tunnel) = &self.tunnel else { return };
        let mut prefixes: Vec<(SocketAddr, IpNet)> = Vec::with_capacity(plan.peers.len());
        for path in plan.peers.values().flat_map(|peer| &peer.paths) {
            let (Via::Direct { gateway: end, .. }
            | Via::Vxlan { endpoint: end, .. }
            | Via::Udp { endpoint: end }
            | Via::Ipip { endpoint: end }) = path.via
            else {
                continue;
            };
            if end.is_ipv4() == tunnel.spec().local.is_ipv4() {
                prefixes.push((SocketAddr::new(end, tunnel.spec().port), path.cidr));
            }
        }
        prefixes.sort_by_key(|(address, _)| *address);
        let of = |group: &[(SocketAddr, IpNet)]| UdpPeer {
            address: group[0].0,
            prefixes: group.iter().map(|(_, prefix)| *prefix).collect(),
        };
        let peers: Vec<UdpPeer> = prefixes.chunk_by(|one, other| one.0 == other.0).map(of).collect();
        tunnel.set_peers(&peers);
    }
}
