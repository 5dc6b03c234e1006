//! Links: each operation is read back with a dump.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, which may panic")]

use weft_kernel::testing::TestNs;
use weft_kernel::{FdbEntry, Link, LinkKind, LinkSet, Neighbour, Netlink, NewLink, Op, Vxlan, sysctl};
use weft_model::Mac;

const MAC: Mac = Mac([0x0a, 0x58, 0x0a, 0xf4, 0, 1]);

fn veth(peer: &str) -> LinkKind {
    LinkKind::Veth {
        peer_name: peer.into(),
        peer_netns: None,
        peer_mac: None,
        peer_mtu: None,
        peer_up: false,
    }
}

fn link(netlink: &mut Netlink, name: &str) -> Link {
    let one = netlink.link(name).unwrap().unwrap();
    let of_all = netlink.links().unwrap().into_iter().find(|link| link.name == name).unwrap();
    assert_eq!(one, of_all, "one answer and the dump agree");
    assert_eq!(netlink.link_by_index(one.index).unwrap().unwrap(), one);
    one
}

#[test]
fn a_bridge_has_the_address_mtu_and_alias_asked_for() {
    let test = TestNs::new();
    let mut netlink = test.netlink();
    let mut bridge = NewLink::new("weft0", LinkKind::Bridge);
    (bridge.mac, bridge.mtu, bridge.up, bridge.alias) =
        (Some(MAC), Some(1400), true, Some("weft:bridge".into()));
    netlink.apply(&Op::LinkAdd(bridge.clone())).unwrap();
    let read = link(&mut netlink, "weft0");
    assert_eq!((read.mac, read.mtu, read.up), (Some(MAC), 1400, true));
    assert_eq!((read.kind.as_deref(), read.alias.as_deref()), (Some("bridge"), Some("weft:bridge")));
    bridge.alias = Some("other".into());
    let again = netlink.apply(&Op::LinkAdd(bridge)).unwrap_err();
    assert!(again.exists(), "{again}");
    assert_eq!(link(&mut netlink, "weft0"), read, "a link that was there is not touched");
    netlink.apply(&Op::LinkDel(read.index)).unwrap();
    assert!(netlink.link("weft0").unwrap().is_none());
    assert!(netlink.apply(&Op::LinkDel(read.index)).unwrap_err().not_found());
}

#[test]
fn a_veth_peer_is_made_inside_the_other_namespace() {
    let mut test = TestNs::new();
    let pod = test.extra("pod");
    let mut netlink = test.netlink();
    let kind = LinkKind::Veth {
        peer_name: "eth0".into(),
        peer_netns: Some(pod.clone()),
        peer_mac: Some(MAC),
        peer_mtu: Some(1400),
        peer_up: true,
    };
    let mut host = NewLink::new("wf0123456789a", kind);
    (host.mtu, host.up, host.alias) = (Some(1400), true, Some("weft:default/a".into()));
    netlink.apply(&Op::LinkAdd(host)).unwrap();
    let outside = link(&mut netlink, "wf0123456789a");
    let inside = link(&mut Netlink::open_in(&pod).unwrap(), "eth0");
    assert_eq!((inside.mac, inside.mtu, inside.up, inside.running), (Some(MAC), 1400, true, true));
    assert_eq!((outside.mtu, outside.alias.as_deref()), (1400, Some("weft:default/a")));
    assert_eq!(outside.peer, Some(inside.index));
    assert!(outside.peer_netnsid.is_some());
    assert!(netlink.link("eth0").unwrap().is_none());
}

#[test]
fn a_port_gets_its_bridge_and_its_port_settings_at_once() {
    let test = TestNs::new();
    let mut netlink = test.netlink();
    netlink.apply(&Op::LinkAdd(NewLink::new("br0", LinkKind::Bridge))).unwrap();
    netlink.apply(&Op::LinkAdd(NewLink::new("p0", veth("p1")))).unwrap();
    let (bridge, port) = (link(&mut netlink, "br0").index, link(&mut netlink, "p0").index);
    let set = LinkSet {
        index: port,
        up: Some(true),
        master: Some(Some(bridge)),
        hairpin: Some(true),
        isolated: Some(true),
        learning: Some(false),
        promiscuous: Some(true),
        mac: Some(MAC),
        mtu: Some(1300),
        alias: Some("mine".into()),
        ..LinkSet::default()
    };
    netlink.apply(&Op::LinkSet(set)).unwrap();
    let read = link(&mut netlink, "p0");
    assert_eq!(
        (read.master, read.hairpin, read.isolated, read.learning),
        (Some(bridge), Some(true), Some(true), Some(false))
    );
    assert_eq!((read.up, read.promiscuous, read.mac, read.mtu), (true, true, Some(MAC), 1300));
    assert_eq!(read.alias.as_deref(), Some("mine"));
    let undo = LinkSet {
        index: port,
        master: Some(None),
        promiscuous: Some(false),
        alias: Some(String::new()),
        ..LinkSet::default()
    };
    netlink.apply(&Op::LinkSet(undo)).unwrap();
    let read = link(&mut netlink, "p0");
    assert_eq!((read.master, read.hairpin, read.promiscuous, read.alias), (None, None, false, None));
    assert!(read.up, "what was not named stays");
}

#[test]
fn a_link_is_renamed_and_moved() {
    let mut test = TestNs::new();
    let other = test.extra("other");
    let mut netlink = test.netlink();
    netlink.apply(&Op::LinkAdd(NewLink::new("p0", veth("p1")))).unwrap();
    let index = link(&mut netlink, "p0").index;
    let set = LinkSet { index, netns: Some(other.clone()), name: Some("eth7".into()), ..LinkSet::default() };
    netlink.apply(&Op::LinkSet(set)).unwrap();
    assert!(netlink.link("p0").unwrap().is_none());
    assert_eq!(
        Netlink::open_in(&other).unwrap().link("eth7").unwrap().unwrap().kind.as_deref(),
        Some("veth")
    );
}

#[test]
fn a_vxlan_endpoint_reaches_its_peers_by_static_entries() {
    let test = TestNs::new();
    let mut netlink = test.netlink();
    netlink.apply(&Op::LinkAdd(NewLink { up: true, ..NewLink::new("u0", veth("u1")) })).unwrap();
    let dev = Some(link(&mut netlink, "u0").index);
    let local = Some("10.168.0.2".parse().unwrap());
    let kind = LinkKind::Vxlan { vni: 1, port: 8472, local, dev, learning: false };
    netlink
        .apply(&Op::LinkAdd(NewLink { mac: Some(MAC), up: true, ..NewLink::new("weft-vxlan", kind) }))
        .unwrap();
    let read = link(&mut netlink, "weft-vxlan");
    assert_eq!(read.vxlan, Some(Vxlan { vni: 1, port: 8472, local, dev, learning: false }));
    assert_eq!(read.mac, Some(MAC));

    let peer = Mac([0x66, 1, 2, 3, 4, 5]);
    let entry = FdbEntry::tunnel(read.index, peer, "10.168.0.3".parse().unwrap());
    let neighbour = Neighbour::permanent(read.index, "10.244.1.0".parse().unwrap(), peer);
    let neighbour6 = Neighbour::permanent(read.index, "fd00:1::".parse().unwrap(), peer);
    let moved = FdbEntry { dst: Some("10.168.0.4".parse().unwrap()), ..entry.clone() };
    let ops = [
        Op::FdbReplace(entry),
        Op::FdbReplace(moved.clone()),
        Op::NeighReplace(neighbour.clone()),
        Op::NeighReplace(neighbour6.clone()),
    ];
    netlink.batch(&ops).into_iter().for_each(|done| done.unwrap());
    let of_peer = |fdb: Vec<FdbEntry>| fdb.into_iter().filter(|e| e.mac == peer).collect::<Vec<_>>();
    assert_eq!(of_peer(netlink.fdb().unwrap()), std::slice::from_ref(&moved), "replaced, not added");
    let ours = |all: Vec<Neighbour>| all.into_iter().filter(|n| n.mac == Some(peer)).collect::<Vec<_>>();
    assert_eq!(ours(netlink.neighbours().unwrap()), [neighbour.clone(), neighbour6.clone()]);

    let ops = [Op::FdbDel(moved), Op::NeighDel(neighbour), Op::NeighDel(neighbour6)];
    netlink.batch(&ops).into_iter().for_each(|done| done.unwrap());
    assert!(of_peer(netlink.fdb().unwrap()).is_empty());
    assert!(ours(netlink.neighbours().unwrap()).is_empty());
}

#[test]
fn a_name_no_interface_can_have_is_not_found() {
    let test = TestNs::new();
    let mut netlink = test.netlink();
    for name in ["", "a-name-longer-than-fifteen-bytes", "absent"] {
        assert!(netlink.link(name).unwrap().is_none(), "{name}");
    }
}

#[test]
fn parameters_of_ip_are_read_and_set_without_a_path() {
    let test = TestNs::new();
    let mut netlink = test.netlink();
    let value = |path: &str| sysctl::get(path).unwrap();
    netlink.apply(&Op::LinkAdd(NewLink::new("v0", veth("v1")))).unwrap();
    let made = link(&mut netlink, "v0");
    assert_eq!((made.route_localnet, made.accept_ra), (false, Some(1)));
    sysctl::set("net/ipv6/conf/v0/accept_ra", "0").unwrap();
    let index = made.index;
    let (arp_notify, route_localnet) = (Some(true), Some(true));
    let set = LinkSet { index, up: Some(true), arp_notify, route_localnet, ..LinkSet::default() };
    netlink.apply(&Op::LinkSet(set)).unwrap();
    let read = link(&mut netlink, "v0");
    assert_eq!((read.up, read.route_localnet, read.accept_ra), (true, true, Some(0)));
    assert_eq!([value("net/ipv4/conf/v0/arp_notify"), value("net/ipv4/conf/v0/route_localnet")], ["1", "1"]);
    assert_eq!(value("net/ipv4/conf/v1/arp_notify"), "0", "another link is left alone");
    for (ipv6, path) in [(false, "net/ipv4/ip_forward"), (true, "net/ipv6/conf/all/forwarding")] {
        for wanted in ["1", "0", "1"] {
            sysctl::set(path, wanted).unwrap();
            assert_eq!(netlink.forwards(ipv6).unwrap(), wanted == "1", "{path}={wanted}");
        }
    }
}
