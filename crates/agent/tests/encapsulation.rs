//! What crosses the underlay, as Wireshark decodes it: each backend's packets are to the byte what the
//! rest of the world takes them for.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking and is one crate"
)]

mod world;

use std::path::Path;
use std::process::Command;

use weft_kernel::capture::{Capture, Frame};
use weft_kernel::testing::eventually;
use weft_kernel::{Netlink, Netns};
use weft_model::mark;
use weft_model::network::Backend;
use world::{Families, SOON, World, sh};

/// What of a packet is looked at; a field that occurs twice, outside and inside, has both values.
const FIELDS: &[&str] = &[
    "frame.protocols",
    "eth.src",
    "eth.dst",
    "ip.src",
    "ip.dst",
    "ip.flags.df",
    "ip.ttl",
    "ipv6.src",
    "ipv6.dst",
    "udp.dstport",
    "udp.checksum",
    "vxlan.flags",
    "vxlan.vni",
    "ip.checksum.status",
    "ip.len",
    "udp.length",
    "_ws.malformed",
];

/// The packets of one echo from the first pod to the second as they leave the first node, decoded; in
/// the order of [`FIELDS`].
fn crossing(world: &World, to: &str, df: &str) -> Vec<String> {
    eventually(SOON, "the pod is reached", || world.reaches(0, to));
    let underlay = world.underlay();
    let port = Netlink::open_in(&underlay).unwrap().link("u1").unwrap().unwrap().index;
    let mut capture = Capture::open_in(&underlay).unwrap();
    sh(&world.nodes[0].pod, &format!("ping -n -c1 -W2 -M {df} -s 40 -p 77656674 {to}"));
    let mut frames = Vec::new();
    while let Some(frame) = capture.try_next().unwrap() {
        // In by the first node's port, with the payload that this ping has.
        let ours = frame.bytes.windows(8).any(|bytes| bytes == b"weftweft");
        if ours && frame.ifindex == port && !matches!(frame.kind, weft_kernel::capture::PacketKind::Outgoing)
        {
            frames.push(frame);
        }
    }
    assert_eq!(frames.len(), 1, "one echo is one packet on the underlay: {frames:?}");
    decode(&world.nodes[0].files.path().join("crossing.pcap"), &frames, &underlay)
}

/// Has tshark read frames from a file (pcap, nanoseconds, Ethernet).
fn decode(path: &Path, frames: &[Frame], ns: &Netns) -> Vec<String> {
    let mut file = Vec::new();
    for number in [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend(number.to_le_bytes());
    }
    for frame in frames {
        let (length, whole) = (frame.bytes.len() as u32, frame.length as u32);
        let second = 1_000_000_000;
        for number in [(frame.at / second) as u32, (frame.at % second) as u32, length, whole] {
            file.extend(number.to_le_bytes());
        }
        file.extend(&frame.bytes);
    }
    std::fs::write(path, file).unwrap();
    let mut command = Command::new("tshark");
    command.arg("-r").arg(path).args(["-n", "-T", "fields", "-E", "separator=|", "-E", "aggregator=,"]);
    command.args(["-d", "udp.port==8472,vxlan", "-d", "udp.port==8285,ip", "-o", "ip.check_checksum:TRUE"]);
    command.args(FIELDS.iter().flat_map(|field| ["-e", field]));
    command.env("HOME", path.parent().unwrap());
    let output = ns.run(|| command.output()).unwrap().expect("tshark: scripts/install-deps.sh test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end_matches('\n').split('|').map(str::to_owned).collect()
}

fn mac_of(ns: &Netns, link: &str) -> String {
    Netlink::open_in(ns).unwrap().link(link).unwrap().unwrap().mac.unwrap().to_string()
}

#[test]
fn vxlan_is_a_frame_between_vteps_in_udp_8472_and_network_1() {
    let (inside, outside) = (mark::vtep_mac("node1"), mark::vtep_mac("node2"));
    let world = World::of(Backend::VXLAN, 2, Families::Both);
    let _agents = world.up();
    let (near, far) = (mac_of(&world.nodes[0].ns, "eth0"), mac_of(&world.nodes[1].ns, "eth0"));
    let macs = (format!("{near},{inside}"), format!("{far},{outside}"));
    for (df, bits) in [("do", "1,1"), ("dont", "0,0")] {
        let found = crossing(&world, "10.244.1.2", df);
        let expected = [
            "eth:ethertype:ip:udp:vxlan:eth:ethertype:ip:icmp:data",
            &macs.0,
            &macs.1,
            "10.168.0.2,10.244.0.2",
            "10.168.0.3,10.244.1.2",
            // What must not be fragmented inside must not be outside.
            bits,
            "64,63",
            "",
            "",
            "8472",
        ];
        assert_eq!(found[..10], expected, "{df}");
        assert_eq!(found[11..14], ["0x0800", "1", "1,1"], "{df}: flags, network, good IPv4 checksums");
        // An echo of 40 bytes is 68 long, in a frame 82, in VXLAN 90, in UDP 98.
        assert_eq!(found[14..], ["118,68", "98", ""], "{df}: lengths, and nothing malformed");
    }
    let found = crossing(&world, "fd00:244:0:1::2", "do");
    assert_eq!(found[0], "eth:ethertype:ip:udp:vxlan:eth:ethertype:ipv6:icmpv6:data");
    assert_eq!(found[3..5], ["10.168.0.2", "10.168.0.3"]);
    assert_eq!(found[7..10], ["fd00:244::2", "fd00:244:0:1::2", "8472"]);

    let world = World::of(Backend::VXLAN, 2, Families::V6);
    let _agents = world.up();
    let found = crossing(&world, "fd00:244:0:1::2", "do");
    assert_eq!(found[0], "eth:ethertype:ipv6:udp:vxlan:eth:ethertype:ipv6:icmpv6:data");
    assert_eq!(found[7..10], ["fd10:168::2,fd00:244::2", "fd10:168::3,fd00:244:0:1::2", "8472"]);
    // Over IPv6 a UDP checksum is no matter of choice (RFC 8200). Its value is the receiving card's, as a
    // veth pair leaves it to it.
    assert_ne!(found[10], "0x0000", "a UDP checksum");
    assert_eq!(found[11..13], ["0x0800", "1"]);
}

#[test]
fn udp_is_the_packet_itself_in_udp_8285() {
    let world = World::of(Backend::UDP, 2, Families::Both);
    let _agents = world.up();
    let (near, far) = (mac_of(&world.nodes[0].ns, "eth0"), mac_of(&world.nodes[1].ns, "eth0"));
    for (df, bits) in [("do", "1,1"), ("dont", "1,0")] {
        let found = crossing(&world, "10.244.1.2", df);
        let expected = [
            "eth:ethertype:ip:udp:ip:icmp:data",
            &near,
            &far,
            "10.168.0.2,10.244.0.2",
            "10.168.0.3,10.244.1.2",
            // The tunnel cuts what is too large itself: outside nothing is.
            bits,
            // The node is a router, and the tunnel another.
            "64,62",
            "",
            "",
            "8285",
        ];
        assert_eq!(found[..10], expected, "{df}");
        assert_eq!(found[13..], ["1,1", "96,68", "76", ""], "{df}: checksums, lengths, nothing malformed");
    }
    let found = crossing(&world, "fd00:244:0:1::2", "do");
    assert_eq!(found[0], "eth:ethertype:ip:udp:ip:ipv6:icmpv6:data");
    assert_eq!(found[3..6], ["10.168.0.2", "10.168.0.3", "1"]);
    assert_eq!(found[7..10], ["fd00:244::2", "fd00:244:0:1::2", "8285"]);
    assert_eq!(found[13..], ["1", "116", "96", ""]);

    let world = World::of(Backend::UDP, 2, Families::V6);
    let _agents = world.up();
    let found = crossing(&world, "fd00:244:0:1::2", "do");
    assert_eq!(found[0], "eth:ethertype:ipv6:udp:ip:ipv6:icmpv6:data");
    assert_eq!(found[7..10], ["fd10:168::2,fd00:244::2", "fd10:168::3,fd00:244:0:1::2", "8285"]);
    assert_ne!(found[10], "0x0000", "over IPv6 UDP has a checksum (RFC 8200)");
    assert_eq!(found[15..], ["96", ""]);
}

#[test]
fn a_plain_route_adds_nothing() {
    for backend in [Backend::HOST_GW, Backend::AUTO] {
        let world = World::of(backend, 2, Families::Both);
        let _agents = world.up();
        let (near, far) = (mac_of(&world.nodes[0].ns, "eth0"), mac_of(&world.nodes[1].ns, "eth0"));
        let found = crossing(&world, "10.244.1.2", "do");
        let expected = ["eth:ethertype:ip:icmp:data", &near, &far, "10.244.0.2", "10.244.1.2", "1", "63"];
        assert_eq!(found[..7], expected, "{backend}");
        let found = crossing(&world, "fd00:244:0:1::2", "do");
        assert_eq!(found[0], "eth:ethertype:ipv6:icmpv6:data");
        assert_eq!(found[7..9], ["fd00:244::2", "fd00:244:0:1::2"]);
    }
}

#[test]
#[ignore = "needs ipip and ip6_tunnel in the kernel: scripts/vm-test.sh 9-encapsulation"]
fn ipip_is_the_packet_itself_in_protocols_4_and_41() {
    let world = World::of(Backend::IPIP, 2, Families::Both);
    let _agents = world.up();
    for (df, bits) in [("do", "1,1"), ("dont", "1,0")] {
        let found = crossing(&world, "10.244.1.2", df);
        assert_eq!(found[0], "eth:ethertype:ip:ip:icmp:data");
        // The outer packet has what hops the inner one has left.
        let expected = ["10.168.0.2,10.244.0.2", "10.168.0.3,10.244.1.2", bits, "63,63"];
        assert_eq!(found[3..7], expected, "{df}");
        assert_eq!(found[13..], ["1,1", "88,68", "", ""], "{df}: checksums, lengths, nothing malformed");
    }
    let found = crossing(&world, "fd00:244:0:1::2", "do");
    assert_eq!(found[0], "eth:ethertype:ipv6:ipv6:icmpv6:data");
    assert_eq!(found[7..9], ["fd10:168::2,fd00:244::2", "fd10:168::3,fd00:244:0:1::2"]);
    assert_eq!(found[16], "", "nothing malformed");
}
