//! The network between the nodes: segments, a router that is also the outside world, and the
//! nodes' namespaces with their `eth0`. Made once, in a few netlink batches.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Context;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use weft_kernel::{Address, LinkKind, LinkSet, Netlink, Netns, NewLink, Op, Route, sandbox, sysctl};

use crate::config::{LabConfig, NodeSpec, Topology};
use crate::neighbours;
use crate::state::LabState;

const LOOPBACK: u32 = 1;

/// A node and its namespace.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) spec: NodeSpec,
    pub(crate) netns: Netns,
}

/// The name of a segment's bridge.
pub(crate) fn bridge(topology: Topology, rack: u16) -> String {
    match topology {
        Topology::Flat => "segment".into(),
        Topology::Racks(_) => format!("rack{rack}"),
    }
}

/// Makes the router out of the calling thread's namespace, and pins it.
pub(crate) fn build_router(state: &LabState, config: &LabConfig) -> anyhow::Result<()> {
    let pin = state.netns("underlay");
    std::fs::write(&pin, "").with_context(|| format!("cannot make {}", pin.display()))?;
    sandbox::bind_mount("/proc/thread-self/ns/net".as_ref(), &pin).context("cannot pin the underlay")?;
    sysctl::set("net.ipv4.ip_forward", "1")?;
    // What answers by an address of a load balancer comes from where no route leads.
    for which in ["all", "default"] {
        sysctl::set(&format!("net.ipv4.conf.{which}.rp_filter"), "0")?;
    }
    if config.has_v6() {
        sysctl::set("net.ipv6.conf.all.forwarding", "1")?;
    }
    let mut netlink = Netlink::open()?;
    let racks = racks(config);
    let bridges = racks.iter().map(|&rack| {
        let mac = Some(neighbours::gateway_mac(&config.gateways(rack)));
        Op::LinkAdd(NewLink {
            up: true,
            mac,
            mtu: Some(config.underlay_mtu),
            ..NewLink::new(bridge(config.topology, rack), LinkKind::Bridge)
        })
    });
    let up = Op::LinkSet(LinkSet { index: LOOPBACK, up: Some(true), ..LinkSet::default() });
    all(&mut netlink, std::iter::once(up).chain(bridges).collect())?;
    let index = indexes(&mut netlink)?;
    let mut addresses: Vec<Op> = config.outside_hosts().into_iter().map(host_address).collect();
    if config.topology != Topology::Flat {
        addresses.push(host_address(config.api_address()));
    }
    for rack in racks {
        let link = index_of(&index, &bridge(config.topology, rack))?;
        addresses.extend(config.gateways(rack).into_iter().map(|net| address(link, net)));
    }
    all(&mut netlink, addresses)
}

/// Makes the nodes' namespaces and joins them to their segments.
pub(crate) fn build_nodes(state: &LabState, config: &LabConfig) -> anyhow::Result<Vec<Node>> {
    let make = |spec: NodeSpec| -> anyhow::Result<Node> {
        let netns = Netns::create(&state.node_netns(&spec.name))?;
        Ok(Node { spec, netns })
    };
    let nodes = config.node_specs().into_iter().map(make).collect::<anyhow::Result<Vec<_>>>()?;
    let mut netlink = Netlink::open()?;
    let index = indexes(&mut netlink)?;
    let mut cables = Vec::with_capacity(nodes.len());
    for node in &nodes {
        let segment = index_of(&index, &bridge(config.topology, node.spec.rack))?;
        cables.push(cable(node, segment, config.underlay_mtu));
    }
    all(&mut netlink, cables)?;
    narrow(&mut netlink, config, &index)?;
    let specs: Vec<NodeSpec> = nodes.iter().map(|node| node.spec.clone()).collect();
    nodes.iter().try_for_each(|node| address_node(config, &specs, node))?;
    for rack in racks(config) {
        let segment = index_of(&index, &bridge(config.topology, rack))?;
        all(&mut netlink, neighbours::of_router(&nodes, rack, segment))?;
    }
    Ok(nodes)
}

fn racks(config: &LabConfig) -> Vec<u16> {
    match config.topology {
        Topology::Flat => vec![0],
        Topology::Racks(racks) => (1..=racks).collect(),
    }
}

/// Gives the router's links to the racks their own MTU: after the nodes' links, from which a bridge
/// takes its MTU until it is told one.
fn narrow(netlink: &mut Netlink, config: &LabConfig, index: &HashMap<String, u32>) -> anyhow::Result<()> {
    let Some(hop) = config.hop_mtu else { return Ok(()) };
    for rack in racks(config) {
        let index = index_of(index, &bridge(config.topology, rack))?;
        netlink.apply(&Op::LinkSet(LinkSet { index, mtu: Some(hop), ..LinkSet::default() }))?;
    }
    Ok(())
}

fn cable(node: &Node, segment: u32, mtu: u32) -> Op {
    let kind = LinkKind::Veth {
        peer_name: "eth0".into(),
        peer_netns: Some(node.netns.clone()),
        peer_mac: Some(neighbours::node_mac(&node.spec)),
        peer_mtu: Some(mtu),
        peer_up: true,
    };
    let (up, master, mtu) = (true, Some(segment), Some(mtu));
    Op::LinkAdd(NewLink { up, master, mtu, ..NewLink::new(node.spec.name.clone(), kind) })
}

fn address_node(config: &LabConfig, specs: &[NodeSpec], node: &Node) -> anyhow::Result<()> {
    let mut netlink = Netlink::open_in(&node.netns)?;
    let eth0 = netlink.link("eth0")?.with_context(|| format!("{} has no eth0", node.spec.name))?.index;
    let addresses = node.spec.addresses.iter().map(|net| address(eth0, *net));
    let routes = config.gateways(node.spec.rack).into_iter().map(|gateway| default_route(eth0, gateway));
    let known = neighbours::of_node(config, specs, &node.spec, eth0);
    all(&mut netlink, addresses.chain(routes).chain(known).collect())
}

fn address(ifindex: u32, net: IpNet) -> Op {
    Op::AddrAdd(Address { no_dad: true, ..Address::new(ifindex, net) })
}

fn host_address(ip: IpAddr) -> Op {
    address(LOOPBACK, IpNet::from(ip))
}

fn default_route(oif: u32, gateway: IpNet) -> Op {
    let everything = match gateway {
        IpNet::V4(_) => IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
        IpNet::V6(_) => IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
    };
    let via = Some(gateway.addr());
    Op::RouteReplace(Route { via, oif: Some(oif), ..Route::new(everything) })
}

fn indexes(netlink: &mut Netlink) -> anyhow::Result<HashMap<String, u32>> {
    Ok(netlink.links()?.into_iter().map(|link| (link.name, link.index)).collect())
}

fn index_of(index: &HashMap<String, u32>, name: &str) -> anyhow::Result<u32> {
    index.get(name).copied().with_context(|| format!("the underlay has no link {name}"))
}

fn all(netlink: &mut Netlink, ops: Vec<Op>) -> anyhow::Result<()> {
    for result in netlink.batch(&ops) {
        result?;
    }
    Ok(())
}
