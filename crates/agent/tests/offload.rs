//! F35: an underlay whose driver spoils checksums inside of VXLAN.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test fails by panicking and is one crate")]

mod world;

use std::net::TcpListener;
use std::process::{Child, Command};
use std::time::Duration;

use weft_kernel::Netns;
use weft_kernel::testing::eventually;
use weft_model::network::Backend;
use world::{World, sh, sh_in};

/// The probe waits 2.5 s for each peer before it knows.
const PATIENCE: Duration = Duration::from_secs(30);

/// Carries frames between two links as bytes: what a device was to complete stays as it is.
struct Relay(Child);

impl Relay {
    fn start(ns: &Netns, one: &str, other: &str) -> Relay {
        let ends = [format!("INTERFACE:{one}"), format!("INTERFACE:{other}")];
        Relay(ns.run(|| Command::new("socat").args(["-b", "65536"]).args(&ends).spawn().unwrap()).unwrap())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn connects(world: &World, to: &str) -> bool {
    let script = format!("timeout 1 bash -c 'exec 3<>/dev/tcp/{to}/9000'");
    sh_in(&world.nodes[0].pod, &script).status.success()
}

#[test]
fn f35_a_driver_that_spoils_checksums_is_found_and_worked_around() {
    let world = World::new(Backend::VXLAN, 2);
    let underlay = world.underlay();
    // Between node1 and the segment there is a device that does not complete checksums.
    sh(
        &underlay,
        "ip link set u1 nomaster; ip link add v1 type veth peer name w1; ip link set v1 up; ip link set w1 master seg0 up",
    );
    let _relay = Relay::start(&underlay, "u1", "v1");
    let agents = world.up();
    let pod = &world.nodes[1].pod;
    let _listener = pod.run(|| TcpListener::bind("0.0.0.0:9000").unwrap()).unwrap();
    eventually(PATIENCE, "the agents say what is wrong", || {
        agents.iter().all(|agent| agent.status().errors.iter().any(|e| e.contains("spoils checksums")))
    });
    eventually(PATIENCE, "TCP works between pods", || connects(&world, "10.244.1.2"));
    for node in &world.nodes {
        let features = sh(&node.ns, "ethtool -k weft-vxlan");
        assert!(features.contains("tx-checksumming: off"), "{features}");
        assert!(sh(&node.ns, "ethtool -k eth0").contains("tx-checksumming: on"), "nothing else is touched");
    }
}

#[test]
fn a_driver_that_does_its_work_is_left_alone_also_where_a_firewall_drops_the_probe() {
    for firewall in [false, true] {
        let world = World::new(Backend::VXLAN, 2);
        if firewall {
            for node in &world.nodes {
                sh(
                    &node.ns,
                    "nft add table inet f; nft add chain inet f i '{ type filter hook input priority 0; }'
                    nft add rule inet f i tcp dport 9 counter drop",
                );
            }
        }
        let agents = world.up();
        eventually(PATIENCE, "both probes came and went", || {
            firewall
                == world.nodes.iter().all(|node| {
                    // Two attempts, the second with checksums computed here, and back again.
                    let dropped = sh_in(&node.ns, "nft list table inet f");
                    let packets = String::from_utf8_lossy(&dropped.stdout).into_owned();
                    let count =
                        packets.split("packets ").nth(1).and_then(|t| t.split(' ').next()?.parse().ok());
                    count.unwrap_or(0) >= 4
                        && sh(&node.ns, "ethtool -k weft-vxlan").contains("tx-checksumming: on")
                })
        });
        for (agent, node) in agents.iter().zip(&world.nodes) {
            assert!(agent.status().errors.is_empty(), "{:?}", agent.status().errors);
            assert!(sh(&node.ns, "ethtool -k weft-vxlan").contains("tx-checksumming: on"));
        }
    }
}
