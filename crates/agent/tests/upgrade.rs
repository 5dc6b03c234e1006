//! F77: what another version of the agent left in the kernel and on disk is taken over under traffic, the
//! older one's and the newer one's alike. The fixtures are written by hand: no other version is needed.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test fails by panicking and is one crate")]

mod world;

use std::time::Instant;

use weft_kernel::testing::eventually;
use weft_model::mark;
use weft_model::network::Backend;
use world::traffic::loses_nothing;
use world::{Families, SOON, TestNode, World, sh};

const ALL: &[(Backend, Families)] =
    &[(Backend::HOST_GW, Families::Both), (Backend::VXLAN, Families::Both), (Backend::UDP, Families::V4)];

/// As the first version had it: no next-hop objects, over VXLAN an IPv6 next hop out of the peer's CIDR,
/// tables that only masquerade, and none of the files that came later.
fn older(node: &TestNode, backend: Backend, families: Families) {
    let mac = mark::vtep_mac("node2");
    let routes = match backend {
        Backend::HOST_GW => {
            "ip route replace 10.244.1.0/24 via 10.168.0.3 dev eth0 proto 87
            ip -6 route replace fd00:244:0:1::/64 via fd10:168::3 dev eth0 proto 87"
        }
        Backend::VXLAN => &format!(
            "ip route replace 10.244.1.0/24 via 10.244.1.0 dev weft-vxlan onlink proto 87
            ip neigh replace fd00:244:0:1:: lladdr {mac} dev weft-vxlan nud permanent
            ip -6 route replace fd00:244:0:1::/64 via fd00:244:0:1:: dev weft-vxlan onlink proto 87"
        ),
        _ => "true",
    };
    sh(&node.ns, &format!("{routes}; ip nexthop flush proto 87"));
    let table = |family: &str, kind: &str, cidr: &str, multicast: &str| {
        sh(
            &node.ns,
            &format!(
                "nft -f - <<'N'
delete table {family} weft
table {family} weft {{
    set cluster {{ type {kind}; flags interval; elements = {{ {cidr} }}; }}
    chain postrouting {{ type nat hook postrouting priority srcnat
        {family} saddr @cluster {family} daddr != @cluster {family} daddr != {multicast} masquerade; }}
}}
N"
            ),
        );
    };
    table("ip", "ipv4_addr", "10.244.0.0/16", "224.0.0.0/4");
    if families == Families::Both {
        table("ip6", "ipv6_addr", "fd00:244::/48", "ff00::/8");
    }
    std::fs::write(node.conflist(), r#"{"cniVersion":"0.4.0","name":"weft","plugins":[]}"#).unwrap();
    for file in ["host-id", "rp-filter.json", "status.json"] {
        let _ = std::fs::remove_file(node.files.path().join("agent").join(file));
    }
}

/// As one that is yet to come may leave it: more objects with our marks, and files with more in them.
fn newer(node: &TestNode, _: Backend, _: Families) {
    sh(
        &node.ns,
        "nft add set ip weft later '{ type inet_service; elements = { 80, 443 }; }'
        nft add chain ip weft later '{ type filter hook forward priority 5; }'
        nft add rule ip weft later tcp dport @later counter
        ip nexthop add id 1459617999 via 10.168.0.3 dev eth0 proto 87
        ip route add 10.244.77.0/24 nhid 1459617999 proto 87
        ip route add blackhole 10.244.78.0/24 proto 87",
    );
    let text = std::fs::read_to_string(node.conflist()).unwrap();
    let mut list: serde_json::Value = serde_json::from_str(&text).unwrap();
    list["later"] = serde_json::json!({"much": ["more"]});
    std::fs::write(node.conflist(), list.to_string()).unwrap();
    let state = node.files.path().join("agent");
    std::fs::create_dir_all(&state).unwrap();
    std::fs::write(state.join("rp-filter.json"), r#"{"version":2,"links":{"eth0":{"was":"1"}}}"#).unwrap();
    std::fs::write(state.join("later.json"), "{}").unwrap();
}

#[test]
fn f77_what_another_version_left_is_taken_over_and_nothing_is_lost() {
    for &(backend, families) in ALL {
        for (what, leave) in
            [("an older version", older as fn(&TestNode, Backend, Families)), ("a newer version", newer)]
        {
            let world = World::of(backend, 2, families);
            let mut agents = world.up();
            let node = &world.nodes[0];
            eventually(SOON, "pods reach one another", || world.reaches(0, "10.244.1.2"));
            // A TUN device that is attached to a second time says UP where it said UNKNOWN.
            let state = || node.state().replace("UNKNOWN", "UP     ");
            let whole = state();
            // The tunnel in user space carries only while an agent runs: its upgrade is a restart.
            if backend == Backend::UDP {
                agents.remove(0).kill();
                leave(node, backend, families);
                agents.insert(0, world.start(0));
                agents[0].tell(world.cluster());
                agents[0].settled();
                eventually(SOON, "pods reach one another", || world.reaches(0, "10.244.1.2"));
            } else {
                agents.remove(0).kill();
                leave(node, backend, families);
                assert_ne!(state(), whole, "{backend}: the fixture differs");
                loses_nothing(&world, what, || {
                    agents.insert(0, world.start(0));
                    agents[0].tell(world.cluster());
                    agents[0].settled();
                });
            }
            let deadline = Instant::now() + SOON;
            while state() != whole {
                assert!(Instant::now() < deadline, "{backend}, {what}:\n{whole}\nbut\n{}", state());
            }
            // And back again: the other version finds what it knows, and the rest is of no harm to it.
            assert_eq!(agents[0].status().repairs.count, 0, "{backend}, {what}: a plan, not repairs");
        }
    }
}
