//! Interfaces to and from netlink.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{DefaultNla, Emitable};
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoIpVlan, InfoKind, InfoMacVlan, InfoPortData, InfoPortKind,
    InfoVeth, InfoVlan, InfoVrf, InfoVxlan, IpVlanFlags, IpVlanMode, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage, MacVlanMode, VxlanDf,
};

use crate::ip_tunnel;
use crate::wire::{Body, attributes, flag, i32_at, ip, mac, text, u16_at, u32_at};
use crate::{Details, IpvlanMode, IpvlanReach, Link, LinkKind, LinkSet, MacvlanMode, Netns, NewLink, Vxlan};

/// The request that makes `link`. The kernel checks the alias but sets none, and cannot set the
/// other end of a veth up yet: see [`encode_named`].
pub(crate) fn encode_new(link: &NewLink) -> LinkMessage {
    let mut message = common(&link.name, link.up, link.mtu, link.mac, link.netns.as_ref());
    message.attributes.extend(link.master.map(LinkAttribute::Controller));
    message.attributes.extend(link.alias.clone().map(LinkAttribute::IfAlias));
    message.attributes.extend(parent(&link.kind).map(LinkAttribute::Link));
    message.attributes.push(LinkAttribute::LinkInfo(kind(&link.kind)));
    message
}

fn common(
    name: &str,
    up: bool,
    mtu: Option<u32>,
    mac: Option<weft_model::Mac>,
    netns: Option<&Netns>,
) -> LinkMessage {
    let mut message = LinkMessage::default();
    set_flag(&mut message, LinkFlags::Up, up.then_some(true));
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    message.attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    message.attributes.extend(netns.map(netns_attribute));
    message
}

fn netns_attribute(ns: &Netns) -> LinkAttribute {
    LinkAttribute::NetNsFd(ns.as_fd().as_raw_fd())
}

fn set_flag(message: &mut LinkMessage, which: LinkFlags, value: Option<bool>) {
    if let Some(value) = value {
        message.header.flags.set(which, value);
        message.header.change_mask |= which;
    }
}

fn parent(kind: &LinkKind) -> Option<u32> {
    match kind {
        LinkKind::Macvlan { parent, .. }
        | LinkKind::Ipvlan { parent, .. }
        | LinkKind::Vlan { parent, .. } => Some(*parent),
        _ => None,
    }
}

fn kind(kind: &LinkKind) -> Vec<LinkInfo> {
    let with = |kind, data| vec![LinkInfo::Kind(kind), LinkInfo::Data(data)];
    match kind {
        LinkKind::Bridge => vec![LinkInfo::Kind(InfoKind::Bridge)],
        LinkKind::LimitedBridge { learned } => {
            with(InfoKind::Bridge, InfoData::Bridge(vec![InfoBridge::FdbMaxLearned(*learned)]))
        }
        LinkKind::VlanBridge { default_pvid } => {
            with(InfoKind::Bridge, InfoData::Bridge(bridge(Some(true), *default_pvid)))
        }
        LinkKind::Macvlan { parent: _, mode, bc_queue_len } => {
            let mut data = vec![InfoMacVlan::Mode(macvlan_mode(*mode))];
            data.extend(bc_queue_len.map(InfoMacVlan::BcQueueLen));
            with(InfoKind::MacVlan, InfoData::MacVlan(data))
        }
        LinkKind::Ipvlan { parent: _, mode, reach } => {
            let mut data = vec![InfoIpVlan::Mode(ipvlan_mode(*mode))];
            data.extend(ipvlan_flags(*reach).map(InfoIpVlan::Flags));
            with(InfoKind::IpVlan, InfoData::IpVlan(data))
        }
        LinkKind::Vlan { parent: _, id } => with(InfoKind::Vlan, InfoData::Vlan(vec![InfoVlan::Id(*id)])),
        LinkKind::Dummy => vec![LinkInfo::Kind(InfoKind::Dummy)],
        LinkKind::Vrf { table } => with(InfoKind::Vrf, InfoData::Vrf(vec![InfoVrf::TableId(*table)])),
        LinkKind::Ifb => vec![LinkInfo::Kind(InfoKind::Ifb)],
        LinkKind::Veth { peer_name, peer_netns, peer_mac, peer_mtu, peer_up: _ } => {
            let peer = common(peer_name, false, *peer_mtu, *peer_mac, peer_netns.as_ref());
            vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer)))]
        }
        LinkKind::Vxlan { vni, port, local, dev, learning } => {
            let mut data = vec![InfoVxlan::Id(*vni), InfoVxlan::Port(*port), InfoVxlan::Learning(*learning)];
            data.push(InfoVxlan::Df(VxlanDf::Inherit));
            // As RFC 7348 section 5 asks of IPv4: what is inside has checksums of its own.
            data.extend(local.filter(IpAddr::is_ipv4).map(|_| InfoVxlan::UDPCsum(false)));
            data.extend(dev.map(InfoVxlan::Link));
            data.extend(local.map(|local| match local {
                IpAddr::V4(ip) => InfoVxlan::Local(ip),
                IpAddr::V6(ip) => InfoVxlan::Local6(ip),
            }));
            vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(InfoData::Vxlan(data))]
        }
        LinkKind::IpTunnel(tunnel) => ip_tunnel::encode(tunnel),
    }
}

fn bridge(vlan_filtering: Option<bool>, default_pvid: Option<u16>) -> Vec<InfoBridge> {
    let filtering = vlan_filtering.map(InfoBridge::VlanFiltering);
    filtering.into_iter().chain(default_pvid.map(InfoBridge::VlanDefaultPvid)).collect()
}

fn macvlan_mode(mode: MacvlanMode) -> MacVlanMode {
    match mode {
        MacvlanMode::Private => MacVlanMode::Private,
        MacvlanMode::Vepa => MacVlanMode::Vepa,
        MacvlanMode::Bridge => MacVlanMode::Bridge,
        MacvlanMode::Passthru => MacVlanMode::Passthrough,
        MacvlanMode::Source => MacVlanMode::Source,
    }
}

fn ipvlan_mode(mode: IpvlanMode) -> IpVlanMode {
    match mode {
        IpvlanMode::L2 => IpVlanMode::L2,
        IpvlanMode::L3 => IpVlanMode::L3,
        IpvlanMode::L3s => IpVlanMode::L3S,
    }
}

/// None for the kernel's default, as older kernels do not know these flags.
fn ipvlan_flags(reach: IpvlanReach) -> Option<IpVlanFlags> {
    match reach {
        IpvlanReach::Bridge => None,
        IpvlanReach::Private => Some(IpVlanFlags::Private),
        IpvlanReach::Vepa => Some(IpVlanFlags::Vepa),
    }
}

/// The requests that change a link: the kernel sets a link up before it sets its parameters, and looks
/// up the bridge a port is in before it makes it a port; so parameters go in a request before, what
/// belongs to a port in one after it.
pub(crate) fn encode_set(set: &LinkSet) -> Vec<LinkMessage> {
    let mut message = LinkMessage::default();
    message.header.index = set.index;
    set_flag(&mut message, LinkFlags::Up, set.up);
    set_flag(&mut message, LinkFlags::Promisc, set.promiscuous);
    set_flag(&mut message, LinkFlags::Allmulti, set.allmulti);
    let attributes = &mut message.attributes;
    attributes.extend(set.name.clone().map(LinkAttribute::IfName));
    attributes.extend(set.mtu.map(LinkAttribute::Mtu));
    attributes.extend(set.tx_queue_len.map(LinkAttribute::TxQueueLen));
    attributes.extend(set.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    attributes.extend(set.master.map(|master| LinkAttribute::Controller(master.unwrap_or(0))));
    attributes.extend(set.alias.clone().map(LinkAttribute::IfAlias));
    attributes.extend(set.netns.as_ref().map(netns_attribute));
    let data = bridge(set.vlan_filtering, set.vlan_default_pvid);
    if !data.is_empty() {
        let info = vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(InfoData::Bridge(data))];
        attributes.push(LinkAttribute::LinkInfo(info));
    }
    let (before, after) = (encode_ipv4_conf(set), encode_port(set));
    let changes = !message.attributes.is_empty() || !message.header.change_mask.is_empty();
    let message = (changes || (before.is_none() && after.is_none())).then_some(message);
    before.into_iter().chain(message).chain(after).collect()
}

/// Parameters of IPv4 on the link. To look up their paths below `/proc/sys` takes longer the more
/// namespaces there are.
fn encode_ipv4_conf(set: &LinkSet) -> Option<LinkMessage> {
    let mut conf = Body::default();
    for (number, value) in [(ARP_NOTIFY, set.arp_notify), (ROUTE_LOCALNET, set.route_localnet)] {
        if let Some(value) = value {
            conf.u32(number, value.into());
        }
    }
    if conf.buffer_len() == 0 {
        return None;
    }
    let mut families = Body::default();
    families.nest(libc::AF_INET as u16, |inet| {
        inet.nest(IFLA_INET_CONF, |inner| *inner = conf);
    });
    let mut value = vec![0; families.buffer_len()];
    families.emit(&mut value);
    let mut message = encode_index(set.index);
    message.attributes.push(LinkAttribute::Other(DefaultNla::new(libc::IFLA_AF_SPEC, value)));
    Some(message)
}

fn encode_port(set: &LinkSet) -> Option<LinkMessage> {
    let mut data = Vec::new();
    data.extend(set.hairpin.map(InfoBridgePort::HairpinMode));
    data.extend(set.isolated.map(InfoBridgePort::Isolated));
    data.extend(set.learning.map(InfoBridgePort::Learning));
    if data.is_empty() {
        return None;
    }
    let mut message = LinkMessage::default();
    message.header.index = set.index;
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(data)),
    ]));
    Some(message)
}

/// The request that changes the link `name` to be up, and to have an alias.
pub(crate) fn encode_named(name: &str, up: bool, alias: Option<&str>) -> LinkMessage {
    let mut message = common(name, up, None, None, None);
    message.attributes.extend(alias.map(|alias| LinkAttribute::IfAlias(alias.to_owned())));
    message
}

/// The request that names a link by its index and nothing else.
pub(crate) fn encode_index(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

/// A link out of a message's payload; none where the message is a bridge's or IPv6's view of it.
pub(crate) fn decode(payload: &[u8]) -> Option<Link> {
    let (header, body) = payload.split_at_checked(16)?;
    if i32::from(header[0]) != libc::AF_UNSPEC {
        return None;
    }
    let flags = u32_at(header, 8)?;
    let has = |flag: libc::c_int| flags & flag.cast_unsigned() != 0;
    let mut link = Link {
        index: u32_at(header, 4)?,
        up: has(libc::IFF_UP),
        running: has(libc::IFF_RUNNING),
        promiscuous: has(libc::IFF_PROMISC),
        allmulti: has(libc::IFF_ALLMULTI),
        ..Link::default()
    };
    for (kind, value) in attributes(body) {
        match kind {
            libc::IFLA_IFNAME => link.name = text(value),
            libc::IFLA_ADDRESS => link.mac = mac(value),
            libc::IFLA_MTU => link.mtu = u32_at(value, 0)?,
            libc::IFLA_TXQLEN => link.tx_queue_len = u32_at(value, 0)?,
            libc::IFLA_MASTER => link.master = u32_at(value, 0),
            libc::IFLA_IFALIAS => link.alias = Some(text(value)).filter(|alias| !alias.is_empty()),
            libc::IFLA_LINK => link.peer = u32_at(value, 0).filter(|index| *index != 0),
            libc::IFLA_LINK_NETNSID => link.peer_netnsid = i32_at(value, 0),
            libc::IFLA_PERM_ADDRESS => link.permanent_mac = mac(value),
            libc::IFLA_PARENT_DEV_NAME => link.device = Some(text(value)),
            libc::IFLA_PARENT_DEV_BUS_NAME => link.device_bus = Some(text(value)),
            libc::IFLA_LINKINFO => decode_info(&mut link, value),
            libc::IFLA_AF_SPEC => decode_families(&mut link, value),
            _ => {}
        }
    }
    Some(link)
}

fn decode_families(link: &mut Link, families: &[u8]) {
    for (family, value) in attributes(families) {
        let conf = |wanted| attributes(value).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        match i32::from(family) {
            libc::AF_INET => {
                // An array of the parameters from number 1 on.
                let at = usize::from(ROUTE_LOCALNET - 1) * size_of::<i32>();
                link.route_localnet =
                    conf(IFLA_INET_CONF).and_then(|conf| i32_at(conf, at)).unwrap_or_default() != 0;
            }
            libc::AF_INET6 => {
                let at = ACCEPT_RA * size_of::<i32>();
                link.accept_ra = conf(IFLA_INET6_CONF).and_then(|conf| i32_at(conf, at));
            }
            _ => {}
        }
    }
}

fn decode_info(link: &mut Link, info: &[u8]) {
    let find = |wanted| attributes(info).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    link.kind = find(libc::IFLA_INFO_KIND).map(text);
    if link.kind.as_deref() == Some("vxlan") {
        link.vxlan = find(libc::IFLA_INFO_DATA).map(decode_vxlan);
    }
    if let (Some(kind), Some(data)) = (link.kind.as_deref(), find(libc::IFLA_INFO_DATA)) {
        link.details = decode_details(kind, data);
    }
    if find(libc::IFLA_INFO_SLAVE_KIND).map(text).as_deref() == Some("bridge") {
        for (kind, value) in find(libc::IFLA_INFO_SLAVE_DATA).into_iter().flat_map(attributes) {
            match kind {
                BRPORT_HAIRPIN => link.hairpin = flag(value),
                BRPORT_LEARNING => link.learning = flag(value),
                BRPORT_ISOLATED => link.isolated = flag(value),
                _ => {}
            }
        }
    }
}

fn decode_details(kind: &str, data: &[u8]) -> Details {
    let find = |wanted| attributes(data).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let u16_of = |kind| find(kind).and_then(|value| u16_at(value, 0));
    let u32_of = |kind| find(kind).and_then(|value| u32_at(value, 0));
    match kind {
        "bridge" => Details::Bridge {
            vlan_filtering: find(BR_VLAN_FILTERING).and_then(flag).unwrap_or_default(),
            vlan_default_pvid: u16_of(BR_VLAN_DEFAULT_PVID).unwrap_or_default(),
        },
        "macvlan" => Details::Macvlan(match u32_of(MACVLAN_MODE) {
            Some(1) => Some(MacvlanMode::Private),
            Some(2) => Some(MacvlanMode::Vepa),
            Some(4) => Some(MacvlanMode::Bridge),
            Some(8) => Some(MacvlanMode::Passthru),
            Some(16) => Some(MacvlanMode::Source),
            _ => None,
        }),
        "ipvlan" => {
            let mode = match u16_of(IPVLAN_MODE) {
                Some(0) => Some(IpvlanMode::L2),
                Some(1) => Some(IpvlanMode::L3),
                Some(2) => Some(IpvlanMode::L3s),
                _ => None,
            };
            let reach = match u16_of(IPVLAN_FLAGS) {
                Some(1) => IpvlanReach::Private,
                Some(2) => IpvlanReach::Vepa,
                _ => IpvlanReach::Bridge,
            };
            Details::Ipvlan(mode, reach)
        }
        "vlan" => u16_of(VLAN_ID).map_or(Details::None, Details::Vlan),
        "ipip" | "ip6tnl" => Details::IpTunnel(ip_tunnel::decode(data)),
        "vrf" => u32_of(VRF_TABLE).map_or(Details::None, Details::Vrf),
        _ => Details::None,
    }
}

// `IFLA_BRPORT_*`, `IFLA_VXLAN_*` and others of linux/if_link.h, which libc does not have.
const IFLA_INET_CONF: u16 = 1;
const IFLA_INET6_CONF: u16 = 2;
// `IPV4_DEVCONF_*` of linux/ip.h and the place of `DEVCONF_ACCEPT_RA` of linux/ipv6.h.
const ARP_NOTIFY: u16 = 22;
const ROUTE_LOCALNET: u16 = 26;
const ACCEPT_RA: usize = 3;
const BRPORT_HAIRPIN: u16 = 4;
const BRPORT_LEARNING: u16 = 8;
const BRPORT_ISOLATED: u16 = 33;
const BR_VLAN_FILTERING: u16 = 7;
const BR_VLAN_DEFAULT_PVID: u16 = 39;
const MACVLAN_MODE: u16 = 1;
const IPVLAN_MODE: u16 = 1;
const IPVLAN_FLAGS: u16 = 2;
const VLAN_ID: u16 = 1;
const VRF_TABLE: u16 = 1;
const VXLAN_ID: u16 = 1;
const VXLAN_LINK: u16 = 3;
const VXLAN_LOCAL: u16 = 4;
const VXLAN_LEARNING: u16 = 7;
const VXLAN_PORT: u16 = 15;
const VXLAN_LOCAL6: u16 = 17;

fn decode_vxlan(data: &[u8]) -> Vxlan {
    let mut vxlan = Vxlan::default();
    for (kind, value) in attributes(data) {
        match kind {
            VXLAN_ID => vxlan.vni = u32_at(value, 0).unwrap_or_default(),
            VXLAN_LINK => vxlan.dev = u32_at(value, 0).filter(|index| *index != 0),
            VXLAN_LOCAL | VXLAN_LOCAL6 => vxlan.local = ip(value).filter(|ip| !ip.is_unspecified()),
            VXLAN_LEARNING => vxlan.learning = flag(value).unwrap_or_default(),
            VXLAN_PORT => vxlan.port = u16_at(value, 0).map(u16::from_be).unwrap_or_default(),
            _ => {}
        }
    }
    vxlan
}
