//! Two nodes with a pod each, a router between them, all in namespaces of the test's own.
//! Node n has the pods 10.244.n.0/24 and fd00:n::/64; the underlay is 192.0.2.0/24 and
//! 198.51.100.0/24, or 2001:db8:1::/64 and 2001:db8:2::/64.

use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Output};

use ipnet::IpNet;
use weft_fabric::UdpSpec;
use weft_fabric::udp::{Tunnel, UdpPeer};
use weft_kernel::Netns;
use weft_kernel::testing::TestNs;

pub(crate) const PORT: u16 = 8285;

pub(crate) fn try_sh(command: &str) -> Output {
    Command::new("sh").args(["-c", command]).output().unwrap()
}

pub(crate) fn sh(command: &str) -> String {
    let output = try_sh(&format!("set -e; {command}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command}: {}{}", text(&output.stderr), text(&output.stdout));
    text(&output.stdout)
}

/// Whether the tunnels meet over IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outer {
    V4,
    V6,
}

impl Outer {
    pub(crate) fn node(self, n: usize) -> IpAddr {
        match self {
            Outer::V4 => ["192.0.2.1", "198.51.100.1"][n - 1].parse().unwrap(),
            Outer::V6 => format!("2001:db8:{n}::1").parse().unwrap(),
        }
    }

    fn overhead(self) -> u32 {
        if self == Outer::V4 { 28 } else { 48 }
    }
}

pub(crate) fn pod_nets(n: usize) -> Vec<IpNet> {
    vec![format!("10.244.{n}.0/24").parse().unwrap(), format!("fd00:{n}::/64").parse().unwrap()]
}

pub(crate) struct World {
    pub(crate) outer: Outer,
    pub(crate) mtu: u32,
    pub(crate) nodes: [Netns; 2],
    pub(crate) pods: [Netns; 2],
    pub(crate) router: Netns,
    pub(crate) tunnels: [Option<Tunnel>; 2],
    _ns: TestNs,
}

impl World {
    /// Both tunnels running over links of this MTU.
    pub(crate) fn new(outer: Outer, underlay: u32) -> World {
        let mut world = World::without_tunnels(outer, underlay);
        for n in [1, 2] {
            world.start(n);
        }
        world
    }

    pub(crate) fn without_tunnels(outer: Outer, underlay: u32) -> World {
        let mut ns = TestNs::new();
        let router = ns.extra("router");
        let nodes = [ns.extra("n1"), ns.extra("n2")];
        let pods = [ns.extra("p1"), ns.extra("p2")];
        let mtu = underlay - outer.overhead();
        for n in [1, 2] {
            let (node, pod) = (&nodes[n - 1], &pods[n - 1]);
            let (own, gateway) =
                [("192.0.2.1/24", "192.0.2.254"), ("198.51.100.1/24", "198.51.100.254")][n - 1];
            let name = format!("r{n}");
            ns.join((node, "eth0", own), (&router, &name, &format!("{gateway}/24")));
            ns.join((node, "pod0", &format!("10.244.{n}.1/24")), (pod, "eth0", &format!("10.244.{n}.2/24")));
            let forward =
                "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
            router
                .run(|| {
                    sh(&format!(
                        "{forward}; ip link set {name} mtu {underlay}
                ip addr add 2001:db8:{n}::fe/64 dev {name} nodad"
                    ))
                })
                .unwrap();
            node.run(|| {
                sh(&format!(
                    "{forward}; ip link set eth0 mtu {underlay}
                ip addr add 2001:db8:{n}::1/64 dev eth0 nodad; ip addr add fd00:{n}::1/64 dev pod0 nodad
                ip route add default via {gateway}; ip -6 route add default via 2001:db8:{n}::fe
                ip link set pod0 mtu {mtu}"
                ))
            })
            .unwrap();
            pod.run(|| {
                sh(&format!(
                    "ip addr add fd00:{n}::2/64 dev eth0 nodad; ip link set eth0 mtu {mtu}
                ip route add default via 10.244.{n}.1; ip -6 route add default via fd00:{n}::1"
                ))
            })
            .unwrap();
        }
        World { outer, mtu, nodes, pods, router, tunnels: [None, None], _ns: ns }
    }

    pub(crate) fn spec(&self, n: usize) -> UdpSpec {
        let nets = pod_nets(n);
        UdpSpec {
            port: PORT,
            local: self.outer.node(n),
            underlay: 0,
            addresses: nets.iter().map(|net| net.network().into()).collect(),
            pod_cidrs: nets,
            routes: vec!["10.244.0.0/16".parse().unwrap(), "fd00::/16".parse().unwrap()],
            mtu: self.mtu,
        }
    }

    pub(crate) fn peer(&self, n: usize) -> UdpPeer {
        UdpPeer { address: SocketAddr::new(self.outer.node(n), PORT), prefixes: pod_nets(n) }
    }

    /// Starts node `n`'s tunnel, and the first time does what netlink does in an agent.
    pub(crate) fn start(&mut self, n: usize) {
        let spec = self.spec(n);
        let tunnel = self.nodes[n - 1].run(|| {
            let tunnel = Tunnel::start(&spec, 2).unwrap();
            let there = String::from_utf8(try_sh("ip -o addr show dev weft-udp0").stdout).unwrap();
            if !there.contains(&format!("10.244.{n}.0/32")) {
                sh(&format!("ip addr add 10.244.{n}.0/32 dev weft-udp0; ip addr add fd00:{n}::/128 dev weft-udp0 nodad
                    ip link set weft-udp0 mtu {} up
                    ip route add 10.244.0.0/16 dev weft-udp0; ip -6 route add fd00::/16 dev weft-udp0", spec.mtu));
            }
            tunnel
        });
        let tunnel = tunnel.unwrap();
        tunnel.set_peers(&[self.peer(3 - n)]);
        self.tunnels[n - 1] = Some(tunnel);
    }

    pub(crate) fn tunnel(&self, n: usize) -> &Tunnel {
        self.tunnels[n - 1].as_ref().unwrap()
    }

    /// Runs a command in pod `n`; whether it succeeded, and all it said.
    pub(crate) fn pod(&self, n: usize, command: &str) -> (bool, String) {
        let output = self.pods[n - 1].run(|| try_sh(command)).unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }
}
