//! Link kinds, what is set on them, and bridge ports' VLANs, each read back. Those that not every
//! kernel has are ignored here; the virtual machine lane runs them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, which may panic")]

use std::process::Command;

use weft_kernel::testing::TestNs;
use weft_kernel::{
    Details, IpvlanMode, IpvlanReach, Link, LinkKind, LinkSet, MacvlanMode, Netlink, NewLink, NewTap, Op,
    PortVlan, add_tap,
};

fn add(netlink: &mut Netlink, name: &str, kind: LinkKind) -> Link {
    netlink.apply(&Op::LinkAdd(NewLink::new(name, kind))).unwrap();
    netlink.link(name).unwrap().unwrap()
}

/// The index of an interface that others can be made on.
fn parent(netlink: &mut Netlink) -> u32 {
    let kind = LinkKind::Veth {
        peer_name: "peer0".into(),
        peer_netns: None,
        peer_mac: None,
        peer_mtu: None,
        peer_up: false,
    };
    add(netlink, "parent0", kind).index
}

fn ip_json(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(["-d", "-j"]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_macvlan_of_each_mode_is_made_on_its_parent() {
    let test = TestNs::new();
    let mut netlink = test.netlink();
    let parent = parent(&mut netlink);
    for mode in [MacvlanMode::Private, MacvlanMode::Vepa, MacvlanMode::Bridge, MacvlanMode::Source] {
        let made = add(&mut netlink, "mv0", LinkKind::Macvlan { parent, mode, bc_queue_len: Some(77) });
        assert_eq!((made.kind.as_deref(), made.peer), (Some("macvlan"), Some(parent)));
        assert_eq!(made.details, Details::Macvlan(Some(mode)));
        assert!(ip_json(&["link", "show", "mv0"]).contains("\"bcqueuelen\":77"));
        netlink.apply(&Op::LinkDel(made.index)).unwrap();
    }
    let alone = LinkKind::Macvlan { parent, mode: MacvlanMode::Passthru, bc_queue_len: None };
    let made = add(&mut netlink, "mv0", alone.clone());
    assert_eq!(made.details, Details::Macvlan(Some(MacvlanMode::Passthru)));
    assert_eq!(made.mac, netlink.link("parent0").unwrap().unwrap().mac);
    netlink.apply(&Op::LinkAdd(NewLink::new("mv1", alone))).unwrap_err();
}

#[test]
fn a_macvlan_is_made_in_the_pods_namespace_on_a_parent_of_the_node() {
    let mut test = TestNs::new();
    let pod = test.extra("pod");
    let mut netlink = test.netlink();
    let parent = parent(&mut netlink);
    let kind = LinkKind::Macvlan { parent, mode: MacvlanMode::Bridge, bc_queue_len: None };
    let new = NewLink { netns: Some(pod.clone()), mtu: Some(1400), ..NewLink::new("mv0", kind) };
    netlink.apply(&Op::LinkAdd(new)).unwrap();
    assert!(netlink.link("mv0").unwrap().is_none());
    let made = Netlink::open_in(&pod).unwrap().link("mv0").unwrap().unwrap();
    assert_eq!((made.peer, made.mtu), (Some(parent), 1400));
    assert!(made.peer_netnsid.is_some());
}

#[test]
fn an_ifb_and_what_every_link_has_can_be_set() {
    let test = TestNs::new();
    let mut netlink = test.netlink();
    let made = add(&mut netlink, "ifb7", LinkKind::Ifb);
    assert_eq!((made.kind.as_deref(), made.allmulti), (Some("ifb"), false));
    let set =
        LinkSet { index: made.index, tx_queue_len: Some(123), allmulti: Some(true), ..LinkSet::default() };
    netlink.apply(&Op::LinkSet(set)).unwrap();
    let read = netlink.link("ifb7").unwrap().unwrap();
    assert_eq!((read.tx_queue_len, read.allmulti), (123, true));
    assert!(netlink.vfs(made.index).unwrap().is_empty());
}

#[test]
fn a_tap_interface_stays_and_has_what_was_asked_for() {
    let test = TestNs::new();
    let mut netlink = test.netlink();
    let wanted = NewTap {
        name: "tap7".into(),
        multi_queue: true,
        virtio_header: true,
        packet_info: false,
        owner: Some(1000),
        group: Some(0),
    };
    add_tap(&wanted).unwrap();
    let shown = ip_json(&["link", "show", "tap7"]);
    for part in ["\"type\":\"tap\"", "\"multi_queue\":true", "\"vnet_hdr\":true", "\"pi\":false"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    for part in ["\"persist\":true", "\"group\":\"root\""] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert_eq!(netlink.link("tap7").unwrap().unwrap().kind.as_deref(), Some("tun"));
    let again = add_tap(&wanted).unwrap_err();
    assert!(again.to_string().contains("tap7"), "{again}");
    add_tap(&NewTap { name: "a-name-of-16-byt".into(), ..NewTap::default() }).unwrap_err();
    let plain = NewTap { name: "tap8".into(), ..NewTap::default() };
    add_tap(&plain).unwrap();
    let shown = ip_json(&["link", "show", "tap8"]);
    assert!(shown.contains("\"multi_queue\":false") && !shown.contains("\"user\""), "{shown}");
}

#[test]
#[ignore = "not every kernel has ipvlan: scripts/vm-test.sh runs it"]
fn an_ipvlan_of_each_mode_is_made_on_its_parent() {
    let mut test = TestNs::new();
    let pod = test.extra("pod");
    let mut netlink = test.netlink();
    let parent = parent(&mut netlink);
    let modes = [IpvlanMode::L2, IpvlanMode::L3, IpvlanMode::L3s];
    let reaches = [IpvlanReach::Bridge, IpvlanReach::Private, IpvlanReach::Vepa];
    for (mode, reach) in modes.into_iter().zip(reaches) {
        let kind = LinkKind::Ipvlan { parent, mode, reach };
        let new = NewLink { netns: Some(pod.clone()), ..NewLink::new("iv0", kind) };
        netlink.apply(&Op::LinkAdd(new)).unwrap();
        let mut inside = Netlink::open_in(&pod).unwrap();
        let made = inside.link("iv0").unwrap().unwrap();
        assert_eq!((made.kind.as_deref(), made.peer), (Some("ipvlan"), Some(parent)));
        assert_eq!(made.details, Details::Ipvlan(Some(mode), reach));
        inside.apply(&Op::LinkDel(made.index)).unwrap();
    }
}

#[test]
#[ignore = "not every kernel has vlan, dummy and vrf: scripts/vm-test.sh runs it"]
fn a_vlan_a_dummy_and_a_vrf_are_made() {
    let test = TestNs::new();
    let mut netlink = test.netlink();
    let parent = parent(&mut netlink);
    let vlan = add(&mut netlink, "parent0.7", LinkKind::Vlan { parent, id: 7 });
    assert_eq!((vlan.kind.as_deref(), vlan.peer), (Some("vlan"), Some(parent)));
    assert_eq!(vlan.details, Details::Vlan(7));
    assert_eq!(add(&mut netlink, "d0", LinkKind::Dummy).kind.as_deref(), Some("dummy"));
    let vrf = add(&mut netlink, "vrf0", LinkKind::Vrf { table: 1001 });
    assert_eq!(vrf.details, Details::Vrf(1001));
    let joined = LinkSet { index: vlan.index, master: Some(Some(vrf.index)), ..LinkSet::default() };
    netlink.apply(&Op::LinkSet(joined)).unwrap();
    assert_eq!(netlink.link("parent0.7").unwrap().unwrap().master, Some(vrf.index));
}

#[test]
#[ignore = "not every kernel has a bridge's VLAN filter: scripts/vm-test.sh runs it"]
fn the_vlans_of_a_bridge_and_of_its_ports_are_set_and_read() {
    let test = TestNs::new();
    let mut netlink = test.netlink();
    let port = parent(&mut netlink);
    let bridge = add(&mut netlink, "br0", LinkKind::VlanBridge { default_pvid: Some(0) });
    assert_eq!(bridge.details, Details::Bridge { vlan_filtering: true, vlan_default_pvid: 0 });
    let joined = LinkSet { index: port, master: Some(Some(bridge.index)), ..LinkSet::default() };
    netlink.apply(&Op::LinkSet(joined)).unwrap();
    assert_eq!(netlink.port_vlans().unwrap(), []);
    let access = PortVlan { index: port, own: false, first: 5, last: 5, pvid: true, untagged: true };
    let trunk = PortVlan { first: 100, last: 110, pvid: false, untagged: false, ..access };
    let own = PortVlan { index: bridge.index, own: true, ..trunk };
    for vlan in [access, trunk, own] {
        netlink.apply(&Op::PortVlanAdd(vlan)).unwrap();
    }
    let read = |netlink: &mut Netlink| {
        let mut all = netlink.port_vlans().unwrap();
        all.sort();
        all
    };
    let mut wanted = [access, trunk, own];
    wanted.sort();
    assert_eq!(read(&mut netlink), wanted);
    netlink.apply(&Op::PortVlanDel(PortVlan { first: 101, last: 109, ..trunk })).unwrap();
    netlink.apply(&Op::PortVlanDel(own)).unwrap();
    let left = [access, PortVlan { last: 100, ..trunk }, PortVlan { first: 110, ..trunk }];
    assert_eq!(read(&mut netlink), left);

    let plain = add(&mut netlink, "br1", LinkKind::Bridge);
    assert_eq!(plain.details, Details::Bridge { vlan_filtering: false, vlan_default_pvid: 1 });
    let filters = LinkSet {
        index: plain.index,
        vlan_filtering: Some(true),
        vlan_default_pvid: Some(9),
        ..LinkSet::default()
    };
    netlink.apply(&Op::LinkSet(filters)).unwrap();
    let read = netlink.link("br1").unwrap().unwrap();
    assert_eq!(read.details, Details::Bridge { vlan_filtering: true, vlan_default_pvid: 9 });
}
