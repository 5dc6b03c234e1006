//! What the rules do to real packets, and how the tools of others show them.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use ipnet::IpNet;
use weft_kernel::testing::{TestNs, eventually};
use weft_kernel::{Netns, sysctl};
use weft_model::Mac;

use super::Backend;
use super::macspoof::SpoofGuard;
use super::masquerade::{self, Masquerade};
use crate::protocol::args::{Args, ExtraArgs};
use crate::protocol::config::ValidAttachment;

const SOON: Duration = Duration::from_secs(10);
const OURS: Masquerade<'_> = Masquerade { network: "net", container_id: "c1", ifname: "eth0" };

fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A node that forwards between a container and the world, which knows no way to the container.
fn node() -> (TestNs, Netns, Netns) {
    let mut ns = TestNs::new();
    let (pod, world) = (ns.extra("pod"), ns.extra("world"));
    let node = ns.ns().clone();
    ns.join((&node, "v0", "10.9.0.1/24"), (&pod, "eth0", "10.9.0.2/24"));
    ns.join((&node, "w0", "192.0.2.1/24"), (&world, "eth0", "192.0.2.2/24"));
    sh("ip addr add fd00:9::1/64 dev v0 nodad; ip addr add fd00:2::1/64 dev w0 nodad");
    pod.run(|| sh("ip addr add fd00:9::2/64 dev eth0 nodad; ip route add default via 10.9.0.1; ip route add default via fd00:9::1")).unwrap();
    // It could answer, so that what is not masqueraded is seen too.
    world.run(|| sh("ip addr add fd00:2::2/64 dev eth0 nodad")).unwrap();
    sysctl::set("net.ipv4.ip_forward", "1").unwrap();
    sysctl::set("net.ipv6.conf.all.forwarding", "1").unwrap();
    (ns, pod, world)
}

/// The address that the world sees when the container sends, however often until one arrives.
fn seen(pod: &Netns, world: &Netns, at: &str) -> String {
    let server = world.run(|| UdpSocket::bind(format!("{at}:0")).unwrap()).unwrap();
    server.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let to = server.local_addr().unwrap();
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let client = pod.run(|| UdpSocket::bind(any).unwrap()).unwrap();
    let mut from: Option<SocketAddr> = None;
    eventually(SOON, "a packet arrives", || {
        client.send_to(b"x", to).ok();
        from = server.recv_from(&mut [0; 8]).ok().map(|(_, from)| from);
        from.is_some()
    });
    from.unwrap().ip().to_string()
}

#[test]
fn the_world_sees_the_node_until_masquerading_ends() {
    let (_ns, pod, world) = node();
    let addresses: Vec<IpNet> = ["10.9.0.2/24", "fd00:9::2/64"].map(|net| net.parse().unwrap()).into();
    let both = || [seen(&pod, &world, "192.0.2.2"), seen(&pod, &world, "[fd00:2::2]")];
    assert_eq!(both(), ["10.9.0.2", "fd00:9::2"]);
    for backend in [Backend::Iptables, Backend::Nftables] {
        OURS.add(backend, &addresses).unwrap();
        assert_eq!(both(), ["192.0.2.1", "fd00:2::1"], "{backend:?}");
        OURS.check(backend, &addresses).unwrap();
        OURS.add(backend, &addresses).unwrap();
        OURS.remove().unwrap();
        OURS.remove().unwrap();
        assert_eq!(both(), ["10.9.0.2", "fd00:9::2"], "{backend:?}");
        assert!(OURS.check(backend, &addresses).is_err());
    }
}

#[test]
fn the_tables_are_shown_as_those_of_the_reference() {
    let _ns = TestNs::new();
    let net: IpNet = "10.9.0.2/24".parse().unwrap();
    OURS.add(Backend::Nftables, &[net]).unwrap();
    let listed = sh("nft list ruleset");
    let ours = OURS.add(Backend::Nftables, &[net]).map(|()| sh("nft list ruleset")).unwrap();
    assert_eq!(listed, ours, "a second ADD leaves one rule");
    let expected = "table inet cni_plugins_masquerade {
\tcomment \"Masquerading for plugins from github.com/containernetworking/plugins\"
\tchain masq_checks {
\t\tcomment \"Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet\"
\t\tip saddr 10.9.0.2 ip daddr != 10.9.0.0/24 masquerade comment \"a4861f4ae9f7d238-";
    assert!(listed.starts_with(expected), "{listed}");
    let rest = "\", net: net, if: eth0, id: c1\"";
    assert!(listed.contains(rest.trim_start_matches('"')), "{listed}");
    let chain = "\tchain postrouting {
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\tip daddr 224.0.0.0/4 return
\t\tip6 daddr ff00::/8 return
\t\tgoto masq_checks
\t}";
    assert!(listed.contains(chain), "{listed}");
}

#[test]
fn gc_keeps_the_valid_and_other_networks() {
    let _ns = TestNs::new();
    let net: IpNet = "10.9.0.2/24".parse().unwrap();
    for (network, container_id) in [("net", "c1"), ("net", "c2"), ("other", "c3")] {
        Masquerade { network, container_id, ..OURS }.add(Backend::Nftables, &[net]).unwrap();
    }
    let valid = [ValidAttachment { container_id: "c2".into(), ifname: "eth0".into() }];
    masquerade::gc("net", &valid).unwrap();
    let listed = sh("nft list chain inet cni_plugins_masquerade masq_checks");
    let left: Vec<&str> =
        ["id: c1", "id: c2", "id: c3"].into_iter().filter(|id| listed.contains(id)).collect();
    assert_eq!(left, ["id: c2", "id: c3"]);
}

#[test]
fn a_forged_hardware_address_does_not_get_through() {
    let mut ns = TestNs::new();
    let pod = ns.extra("pod");
    let node = ns.ns().clone();
    ns.join((&node, "v0", "192.0.2.9/32"), (&pod, "eth0", "10.9.0.2/24"));
    sh("ip link add br0 type bridge; ip link set br0 address 02:00:00:00:00:aa; ip link set br0 up
        ip addr add 10.9.0.1/24 dev br0; ip link set v0 master br0");
    let address = |mac: &'static str| {
        pod.run(move || sh(&format!(
            "ip link set eth0 address {mac}; ip neigh replace 10.9.0.1 lladdr 02:00:00:00:00:aa dev eth0 nud permanent"
        ))).unwrap()
    };
    address("02:00:00:00:00:01");
    let server = UdpSocket::bind("10.9.0.1:0").unwrap();
    server.set_read_timeout(Some(SOON)).unwrap();
    let to = server.local_addr().unwrap();
    let send =
        |text: &'static [u8]| pod.run(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(text, to).unwrap());
    let received = || {
        let mut buffer = [0; 16];
        let length = server.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let args = Args {
        container_id: "c1".into(),
        ifname: "eth0".into(),
        netns: None,
        path: Vec::new(),
        text: String::new(),
        extra: ExtraArgs::default(),
    };
    let guard = SpoofGuard::of(&args);
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    guard.add("v0", mac).unwrap();
    guard.check("v0", mac).unwrap();
    send(b"honest").unwrap();
    assert_eq!(received(), "honest");
    address("02:00:00:00:00:02");
    send(b"forged").unwrap();
    address("02:00:00:00:00:01");
    send(b"honest again").unwrap();
    assert_eq!(received(), "honest again");
    assert_eq!(sh("nft list table bridge nat").matches("comment \"macspoofchk-c1-eth0\"").count(), 4);
    guard.remove().unwrap();
    guard.remove().unwrap();
    assert!(guard.check("v0", mac).is_err());
    assert_eq!(sh("nft list table bridge nat | grep -c chain").trim(), "1", "only the base chain stays");
    address("02:00:00:00:00:02");
    send(b"forged").unwrap();
    assert_eq!(received(), "forged");
}
