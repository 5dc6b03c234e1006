//! Traces of real packets through namespaces wired as nodes and pods are.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test")]

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use weft_kernel::testing::{TestNs, eventually};
use weft_kernel::{LinkKind, Netlink, Netns, NewLink, Op};
use weft_observe::{
    Direction, FindingKind, Outcome, Place, Probe, Protocol, TRACE_TABLE, Trace, render, trace,
};

const PODS: [&str; 2] = ["10.244.0.2", "10.244.1.2"];

/// Two nodes with a pod each, on an underlay that is a bridge, and a host outside.
struct Lab {
    _ns: TestNs,
    places: Vec<Place>,
}

const POD0: usize = 0;
const NODE0: usize = 1;
const UNDERLAY: usize = 2;
const NODE1: usize = 3;
const POD1: usize = 4;
const OUTSIDE: usize = 5;

impl Lab {
    fn new() -> Lab {
        let mut ns = TestNs::new();
        let names = ["pod default/a", "node node1", "underlay", "node node2", "pod default/b", "outside"];
        let places: Vec<Place> =
            names.iter().map(|n| Place { name: (*n).into(), netns: ns.extra(n) }).collect();
        let lab = Lab { _ns: ns, places };
        lab.sh(UNDERLAY, "ip link add br0 type bridge && ip link set br0 up");
        for (i, (pod, node)) in [(POD0, NODE0), (POD1, NODE1)].into_iter().enumerate() {
            lab.cable((node, "eth0"), (UNDERLAY, &format!("up{i}")));
            lab.sh(UNDERLAY, &format!("ip link set up{i} master br0"));
            lab.sh(
                node,
                "sysctl -qw net.ipv4.ip_forward=1 && ip link add weft0 type bridge && ip link set weft0 up",
            );
            lab.sh(
                node,
                &format!(
                    "ip addr add 10.244.{i}.1/24 dev weft0 && ip addr add 10.168.0.{}/24 dev eth0",
                    i + 2
                ),
            );
            lab.sh(node, "ip route add default via 10.168.0.1");
            lab.cable((pod, "eth0"), (node, "wf0"));
            lab.sh(node, "ip link set wf0 master weft0");
            lab.sh(
                pod,
                &format!("ip addr add 10.244.{i}.2/24 dev eth0 && ip route add default via 10.244.{i}.1"),
            );
        }
        lab.cable((OUTSIDE, "eth0"), (UNDERLAY, "up2"));
        lab.sh(UNDERLAY, "ip link set up2 master br0");
        lab.sh(OUTSIDE, "ip addr add 10.168.0.1/24 dev eth0");
        for (i, (pod, node)) in [(POD0, NODE0), (POD1, NODE1)].into_iter().enumerate() {
            lab.meet((pod, "eth0", &format!("10.244.{i}.2")), (node, "weft0", &format!("10.244.{i}.1")));
            lab.meet((node, "eth0", &format!("10.168.0.{}", i + 2)), (OUTSIDE, "eth0", "10.168.0.1"));
        }
        lab.meet((NODE0, "eth0", "10.168.0.2"), (NODE1, "eth0", "10.168.0.3"));
        lab
    }

    /// Makes two devices know each other's address for good: other entries count against a
    /// limit that the whole machine shares, and whatever else runs may have used it up.
    fn meet(&self, a: (usize, &str, &str), b: (usize, &str, &str)) {
        for (from, to) in [(a, b), (b, a)] {
            let link = Netlink::open_in(&self.places[to.0].netns).unwrap().link(to.1).unwrap().unwrap();
            let mac = link.mac.unwrap();
            self.sh(from.0, &format!("ip neigh replace {} lladdr {mac} dev {} nud permanent", to.2, from.1));
        }
    }

    fn host_gw() -> Lab {
        let lab = Lab::new();
        lab.sh(NODE0, "ip route add 10.244.1.0/24 via 10.168.0.3 dev eth0");
        lab.sh(NODE1, "ip route add 10.244.0.0/24 via 10.168.0.2 dev eth0");
        lab
    }

    fn vxlan() -> Lab {
        let lab = Lab::new();
        for (node, i, other) in [(NODE0, 0, 1), (NODE1, 1, 0)] {
            lab.sh(node, &format!(
                "ip link add weft-vxlan address 66:00:00:00:00:0{i} mtu 1450 type vxlan id 1 dstport 8472 nolearning local 10.168.0.{} dev eth0 && \
                 ip link set weft-vxlan up && \
                 ip neigh replace 10.244.{other}.0 lladdr 66:00:00:00:00:0{other} dev weft-vxlan nud permanent && \
                 bridge fdb replace 66:00:00:00:00:0{other} dev weft-vxlan dst 10.168.0.{} self permanent && \
                 ip route add 10.244.{other}.0/24 via 10.244.{other}.0 dev weft-vxlan onlink",
                i + 2, other + 2
            ));
        }
        lab
    }

    fn cable(&self, a: (usize, &str), b: (usize, &str)) {
        let kind = LinkKind::Veth {
            peer_name: b.1.into(),
            peer_netns: Some(self.places[b.0].netns.clone()),
            peer_mac: None,
            peer_mtu: None,
            peer_up: true,
        };
        let link = NewLink { up: true, ..NewLink::new(a.1, kind) };
        Netlink::open_in(&self.places[a.0].netns).unwrap().apply(&Op::LinkAdd(link)).unwrap();
    }

    fn sh(&self, place: usize, script: &str) -> String {
        sh(&self.places[place].netns, script)
    }

    /// Waits until the kernel has noticed that the cables are plugged in: until then bridge
    /// ports and queues discard what comes.
    fn settle(&self) {
        let waiting = "ip -o link show | grep -e NO-CARRIER -e 'state DOWN' -e 'state LOWERLAYERDOWN'; \
                       bridge link show | grep -v 'state forwarding'; true";
        for place in 0..self.places.len() {
            eventually(Duration::from_secs(20), "links that are up", || self.sh(place, waiting).is_empty());
        }
    }

    fn trace(&self, from: usize, to: Option<usize>, dst: &str, proto: Protocol) -> Trace {
        let dst: IpAddr = dst.parse().unwrap();
        self.settle();
        // Longer than the kernel waits until it asks for a hardware address again.
        let timeout = Duration::from_millis(1500);
        let probe = Probe { from, src: None, dst, to, proto, port: 8080, timeout };
        let found = trace(&self.places, &probe).unwrap();
        println!("{}", render(&found, false));
        for place in 0..self.places.len() {
            assert!(
                !self.sh(place, "nft list tables").contains(TRACE_TABLE),
                "the trace left its table behind"
            );
        }
        found
    }
}

fn sh(netns: &Netns, script: &str) -> String {
    let output = netns.run(|| Command::new("sh").args(["-c", script]).output().unwrap()).unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Place, device and direction of each hop.
fn way(hops: &[weft_observe::Hop]) -> Vec<String> {
    let arrow = |d| if d == Direction::In { '>' } else { '<' };
    hops.iter().map(|h| format!("{} {}{}", h.place, arrow(h.direction), h.device)).collect()
}

fn lost(trace: &Trace) -> &weft_observe::Lost {
    match &trace.outcome {
        Outcome::Lost(lost) => lost,
        other => panic!("not lost but {other:?}"),
    }
}

const HOST_GW: [&str; 12] = [
    "pod default/a <eth0",
    "node node1 >wf0",
    "node node1 >weft0",
    "node node1 <eth0",
    "underlay >up0",
    "underlay <up1",
    "node node2 >eth0",
    "node node2 <weft0",
    "node node2 <wf0",
    "pod default/b >eth0",
    "",
    "",
];

#[test]
fn a_ping_by_host_gw_is_seen_on_every_device_both_ways() {
    let lab = Lab::host_gw();
    let found = lab.trace(POD0, Some(POD1), PODS[1], Protocol::Icmp);
    assert!(matches!(found.outcome, Outcome::Answered { .. }), "{:?}", found.outcome);
    assert_eq!(way(&found.forward), HOST_GW[..10]);
    assert_eq!(found.reply.len(), 10);
    assert_eq!(
        found.forward.iter().map(|h| h.ttl).collect::<Vec<_>>(),
        [64, 64, 64, 63, 63, 63, 63, 62, 62, 62]
    );
    assert!(found.forward.iter().all(|h| h.nat.is_empty() && h.outer.is_none()));
    let text = render(&found, false);
    for part in [
        "a veth pair is a cable between two namespaces: the other end is node node1 wf0",
        "route 10.244.1.0/24 via 10.168.0.3 dev eth0",
        "10.244.1.2 is an address of this namespace: delivered here",
        "the source address was the same all the way: no NAT",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(!text.contains('\x1b') && render(&found, true).contains('\x1b'));
    let json: serde_json::Value = serde_json::to_value(&found).unwrap();
    assert_eq!(json["forward"][3]["device"], "eth0");
    assert_eq!(json["outcome"]["result"], "answered");
}

#[test]
fn tcp_and_udp_probes_tell_a_closed_port_from_an_open_one() {
    let lab = Lab::host_gw();
    for proto in [Protocol::Tcp, Protocol::Udp] {
        let found = lab.trace(POD0, Some(POD1), PODS[1], proto);
        let Outcome::Refused { by, said } = &found.outcome else { panic!("{:?}", found.outcome) };
        assert_eq!(by.to_string(), PODS[1]);
        assert!(said.contains("nothing listens on that port"), "{said}");
        assert_eq!(way(&found.forward), HOST_GW[..10]);
    }
    let open = lab.places[POD1].netns.run(|| {
        let udp = std::net::UdpSocket::bind("0.0.0.0:8080").unwrap();
        udp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        (std::net::TcpListener::bind("0.0.0.0:8080").unwrap(), udp)
    });
    let (_tcp, udp) = open.unwrap();
    let found = lab.trace(POD0, Some(POD1), PODS[1], Protocol::Tcp);
    assert!(matches!(found.outcome, Outcome::Answered { .. }), "{:?}", found.outcome);
    assert_eq!(found.reply.len(), 10);
    let echo = std::thread::spawn(move || {
        let mut buffer = [0; 64];
        let (length, from) = udp.recv_from(&mut buffer).unwrap();
        udp.send_to(&buffer[..length], from).unwrap();
        udp
    });
    let found = lab.trace(POD0, Some(POD1), PODS[1], Protocol::Udp);
    assert!(matches!(found.outcome, Outcome::Answered { .. }), "{:?}", found.outcome);
    assert_eq!(found.reply.len(), 10);
    let _silent = echo.join().unwrap();
    let found = lab.trace(POD0, Some(POD1), PODS[1], Protocol::Udp);
    assert_eq!(found.outcome, Outcome::Unanswered);
}

#[test]
fn vxlan_shows_the_inner_and_the_outer_headers() {
    let lab = Lab::vxlan();
    let found = lab.trace(POD0, Some(POD1), PODS[1], Protocol::Icmp);
    assert!(matches!(found.outcome, Outcome::Answered { .. }), "{:?}", found.outcome);
    let expected = [
        "pod default/a <eth0",
        "node node1 >wf0",
        "node node1 >weft0",
        "node node1 <weft-vxlan",
        "node node1 <eth0",
        "underlay >up0",
        "underlay <up1",
        "node node2 >eth0",
        "node node2 >weft-vxlan",
        "node node2 <weft0",
        "node node2 <wf0",
        "pod default/b >eth0",
    ];
    assert_eq!(way(&found.forward), expected);
    for hop in &found.forward[4..8] {
        let outer = hop.outer.as_ref().unwrap();
        assert_eq!((outer.vni, outer.port), (1, 8472));
        assert_eq!(
            (outer.src.to_string(), outer.dst.to_string()),
            ("10.168.0.2".into(), "10.168.0.3".into())
        );
        assert_eq!((hop.src.as_str(), hop.dst.as_str()), (PODS[0], PODS[1]));
    }
    assert!(render(&found, false).contains("weft-vxlan has 66:00:00:00:00:01 behind the node 10.168.0.3"));
}

#[test]
fn a_drop_names_the_nft_rule() {
    let lab = Lab::host_gw();
    lab.sh(NODE1, "nft 'table ip guard { chain forward { type filter hook forward priority 0; ip daddr 10.244.1.0/24 drop comment \"not today\"; }; }'");
    let found = lab.trace(POD0, Some(POD1), PODS[1], Protocol::Icmp);
    let lost = lost(&found);
    assert_eq!(lost.findings.len(), 1);
    let finding = &lost.findings[0];
    assert_eq!(
        (finding.kind, finding.place.as_str(), finding.guess),
        (FindingKind::NftDrop, "node node2", false)
    );
    assert!(
        finding
            .text
            .contains("`ip daddr 10.244.1.0/24 drop comment \"not today\"` in table ip guard chain forward"),
        "{}",
        finding.text
    );
    let last = lost.last.as_ref().unwrap();
    assert_eq!(
        (last.place.as_str(), last.device.as_str(), last.direction),
        ("node node2", "eth0", Direction::In)
    );
    // The answer dropped, by a policy.
    lab.sh(NODE1, "nft 'delete table ip guard; table inet guard { chain forward { type filter hook forward priority 0; policy drop; ip daddr 10.244.1.0/24 accept; }; }'");
    let found = lab.trace(POD0, Some(POD1), PODS[1], Protocol::Icmp);
    let Outcome::Lost(lost) = &found.outcome else { panic!("{:?}", found.outcome) };
    assert!(lost.reply);
    assert!(
        lost.findings[0]
            .text
            .contains("the answer was dropped by the policy of nft table inet guard chain forward"),
        "{:?}",
        lost.findings
    );
}

#[test]
fn a_missing_route_is_named_where_it_is_missing() {
    let lab = Lab::host_gw();
    lab.sh(NODE0, "ip route del 10.244.1.0/24; ip route del default");
    let found = lab.trace(POD0, Some(POD1), PODS[1], Protocol::Udp);
    // The node says so itself, with an ICMP error.
    match &found.outcome {
        Outcome::Refused { by, .. } => assert_eq!(by.to_string(), "10.244.0.1"),
        other => panic!("{other:?}"),
    }
    assert_eq!(way(&found.forward), HOST_GW[..3]);
    assert!(render(&found, false).contains("no route to 10.244.1.2"));
    lab.sh(NODE0, "ip route add blackhole 10.244.1.0/24");
    let found = lab.trace(POD0, Some(POD1), PODS[1], Protocol::Udp);
    assert!(
        matches!(lost(&found).findings[0].kind, FindingKind::NoRoute | FindingKind::Discarded),
        "{:?}",
        found.outcome
    );
    assert_eq!(lost(&found).findings[0].place, "node node1");
    lab.sh(POD0, "ip route del default");
    let found = lab.trace(POD0, Some(POD1), PODS[1], Protocol::Icmp);
    let lost = lost(&found);
    assert_eq!(lost.last, None);
    assert_eq!(
        lost.findings.iter().map(|f| f.kind).collect::<Vec<_>>(),
        [FindingKind::NotSent, FindingKind::NoRoute]
    );
}

#[test]
fn a_missing_fdb_entry_and_a_missing_neighbour_are_named() {
    let lab = Lab::vxlan();
    lab.sh(NODE0, "bridge fdb del 66:00:00:00:00:01 dev weft-vxlan");
    let found = lab.trace(POD0, Some(POD1), PODS[1], Protocol::Icmp);
    let gone = lost(&found);
    assert_eq!(gone.findings[0].kind, FindingKind::NoFdbEntry);
    assert_eq!(
        gone.findings[0].text,
        "weft-vxlan has no FDB entry for 66:00:00:00:00:01: it does not know which node to wrap the packet for"
    );
    assert_eq!(gone.last.as_ref().unwrap().device, "weft-vxlan");
    assert_eq!(gone.next.as_deref(), Some("pod default/b"));
    lab.sh(NODE0, "ip neigh del 10.244.1.0 dev weft-vxlan");
    let found = lab.trace(POD0, Some(POD1), PODS[1], Protocol::Icmp);
    let gone = lost(&found);
    assert_eq!(gone.findings[0].kind, FindingKind::Neighbour);
    assert!(
        gone.findings[0].text.contains("no hardware address for 10.244.1.0 on weft-vxlan"),
        "{:?}",
        gone.findings
    );
    assert_eq!(gone.findings[0].place, "node node1");
}

#[test]
fn a_masqueraded_packet_is_recognised_and_the_change_shown() {
    let lab = Lab::host_gw();
    lab.sh(NODE0, "nft 'table ip weft { chain postrouting { type nat hook postrouting priority 100; ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade fully-random; }; }'");
    for proto in [Protocol::Icmp, Protocol::Udp, Protocol::Tcp] {
        let found = lab.trace(POD0, Some(OUTSIDE), "10.168.0.1", proto);
        assert!(
            matches!(found.outcome, Outcome::Answered { .. } | Outcome::Refused { .. }),
            "{proto:?} {:?}",
            found.outcome
        );
        let changed: Vec<_> = found.forward.iter().filter(|h| !h.nat.is_empty()).collect();
        assert_eq!(changed.len(), 1, "{proto:?}");
        assert_eq!((changed[0].place.as_str(), changed[0].device.as_str()), ("node node1", "eth0"));
        assert!(
            changed[0].nat[0].from.starts_with("10.244.0.2")
                && changed[0].nat[0].to.starts_with("10.168.0.2")
        );
        assert_eq!(found.forward.last().unwrap().place, "outside");
        assert_eq!(found.reply.last().unwrap().place, "pod default/a", "{proto:?}");
    }
}

#[test]
fn forwarding_off_and_a_packet_to_itself() {
    let lab = Lab::host_gw();
    let found = lab.trace(POD0, Some(POD0), PODS[0], Protocol::Icmp);
    assert!(matches!(found.outcome, Outcome::Answered { .. }), "{:?}", found.outcome);
    assert_eq!(way(&found.forward), ["pod default/a <lo", "pod default/a >lo"]);
    lab.sh(NODE1, "sysctl -qw net.ipv4.ip_forward=0");
    let found = lab.trace(POD0, Some(POD1), PODS[1], Protocol::Icmp);
    let findings = &lost(&found).findings;
    assert_eq!((findings[0].kind, findings[0].place.as_str()), (FindingKind::ForwardingOff, "node node2"));
}

#[test]
fn ipv6_is_traced_as_ipv4_is() {
    let lab = Lab::new();
    for (pod, node, i) in [(POD0, NODE0, 0), (POD1, NODE1, 1)] {
        lab.sh(node, "sysctl -qw net.ipv6.conf.all.forwarding=1");
        lab.sh(
            node,
            &format!(
                "ip addr add fd00:{i}::1/64 dev weft0 nodad && ip addr add fd00:aa::{}/64 dev eth0 nodad",
                i + 2
            ),
        );
        lab.sh(
            pod,
            &format!("ip addr add fd00:{i}::2/64 dev eth0 nodad && ip route add default via fd00:{i}::1"),
        );
    }
    lab.sh(NODE0, "ip route add fd00:1::/64 via fd00:aa::3 dev eth0");
    lab.sh(NODE1, "ip route add fd00:0::/64 via fd00:aa::2 dev eth0");
    // Until their own address is checked for duplicates, the nodes ask for nobody else's.
    for place in [POD0, NODE0, NODE1, POD1] {
        eventually(Duration::from_secs(10), "duplicate address detection", || {
            lab.sh(place, "ip -6 addr show tentative").is_empty()
        });
    }
    for proto in [Protocol::Icmp, Protocol::Tcp, Protocol::Udp] {
        let found = lab.trace(POD0, Some(POD1), "fd00:1::2", proto);
        assert!(
            matches!(found.outcome, Outcome::Answered { .. } | Outcome::Refused { .. }),
            "{:?}",
            found.outcome
        );
        assert_eq!(way(&found.forward), HOST_GW[..10]);
        assert_eq!(found.reply.last().unwrap().place, "pod default/a");
    }
    lab.sh(NODE1, "nft 'table inet guard { chain f { type filter hook forward priority 0; ip6 daddr fd00:1::/64 meta l4proto udp drop; }; }'");
    let found = lab.trace(POD0, Some(POD1), "fd00:1::2", Protocol::Udp);
    assert!(lost(&found).findings[0].text.contains("ip6 daddr fd00:1::/64"), "{:?}", found.outcome);
}

#[test]
fn a_bridge_that_does_not_know_an_address_is_seen_to_flood() {
    let lab = Lab::host_gw();
    // A third port, so that there is somebody else to flood to; and nothing is learned.
    lab.sh(UNDERLAY, "ip link set br0 type bridge ageing_time 0");
    let found = lab.trace(POD0, Some(POD1), PODS[1], Protocol::Icmp);
    assert!(matches!(found.outcome, Outcome::Answered { .. }), "{:?}", found.outcome);
    assert_eq!(way(&found.forward), HOST_GW[..10]);
    assert_eq!(found.forward[5].flooded, ["up2"]);
    assert!(render(&found, false).contains("copied it to up2 too"));
    // Nobody has the address: the neighbour entry is wrong.
    lab.sh(NODE0, "ip neigh replace 10.168.0.3 lladdr 02:00:00:00:00:99 dev eth0 nud permanent");
    let found = lab.trace(POD0, Some(POD1), PODS[1], Protocol::Icmp);
    let gone = lost(&found);
    assert_eq!(gone.findings[0].kind, FindingKind::NoFdbEntry, "{:?}", gone.findings);
    assert_eq!(gone.findings[0].place, "underlay");
}

#[test]
fn two_places_with_one_namespace_are_watched_once() {
    let mut lab = Lab::host_gw();
    let netns = lab.places[NODE1].netns.clone();
    lab.places.push(Place { name: "pod default/host".into(), netns });
    let last = lab.places.len() - 1;
    let found = lab.trace(POD0, Some(last), "10.168.0.3", Protocol::Icmp);
    assert!(matches!(found.outcome, Outcome::Answered { .. }), "{:?}", found.outcome);
    assert_eq!(found.to.as_deref(), Some("pod default/host"));
    assert_eq!(way(&found.forward).last().map(String::as_str), Some("node node2 >eth0"));
}
