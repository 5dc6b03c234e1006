//! Paths smaller than the node's own link: a hop of 1,400 bytes between links of 9,000.

use std::net::UdpSocket;

use super::*;

fn narrow(world: &World) {
    world.router.run(|| sh("ip link set r2 mtu 1400")).unwrap();
    world.nodes[1].run(|| sh("ip link set eth0 mtu 1400")).unwrap();
}

#[test]
fn large_transfers_pass_a_narrow_hop() {
    for outer in [Outer::V4, Outer::V6] {
        let world = World::new(outer, 9_000);
        narrow(&world);
        for v4 in [true, false] {
            let (client, server) = connect(&world.pods[0], &world.pods[1], pods(v4)[1]);
            transfer(&client, &server, &pattern(10 << 20));
            transfer(&server, &client, &pattern(1 << 20));
        }
        let counters = world.tunnel(1).counters();
        assert!(counters.icmp_errors > 0, "{outer:?}: nobody was told: {counters:?}");
    }
}

#[test]
fn a_stream_goes_on_when_the_path_narrows_under_it() {
    let world = World::new(Outer::V4, 9_000);
    let (client, server) = connect(&world.pods[0], &world.pods[1], pods(true)[1]);
    transfer(&client, &server, &pattern(4 << 20));
    narrow(&world);
    transfer(&client, &server, &pattern(10 << 20));
}

#[test]
fn who_may_not_be_cut_is_told_the_size_of_the_path() {
    for (outer, sizes) in [(Outer::V4, [("10.244.2.2", 1_372, 28), ("fd00:2::2", 1_372, 48)])] {
        let world = World::new(outer, 9_000);
        narrow(&world);
        for (target, mtu, headers) in sizes {
            // The first is lost where the underlay first says no; the next is answered.
            eventually(SOON, "the pod hears the path's MTU", || {
                let (_, text) = world.pod(1, &format!("ping -c1 -W1 -M do -s 3000 {target}"));
                text.contains(&format!("mtu = {mtu}")) || text.contains(&format!("mtu={mtu}"))
            });
            let fits = mtu - headers;
            assert!(world.pod(1, &format!("ping -c1 -W5 -M do -s {fits} {target}")).0);
            assert!(!world.pod(1, &format!("ping -c1 -W1 -M do -s {} {target}", fits + 1)).0);
        }
    }
}

#[test]
fn datagrams_with_df_arrive_once_their_source_knows_the_path() {
    let world = World::new(Outer::V4, 9_000);
    narrow(&world);
    for v4 in [true, false] {
        let [here, there] = pods(v4);
        let other = world.pods[1].run(|| UdpSocket::bind((there, 0)).unwrap()).unwrap();
        other.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let target = other.local_addr().unwrap();
        let one = world.pods[0].run(|| UdpSocket::bind((here, 0)).unwrap()).unwrap();
        let mut buffer = [0; 9_000];
        eventually(SOON, "a datagram of 8,000 bytes arrives", || {
            // Refused once the source has heard of it and before it cuts them itself.
            let _ = one.send_to(&[7; 8_000], target);
            other.recv(&mut buffer).is_ok_and(|len| len == 8_000)
        });
    }
}

#[test]
fn the_tunnel_cuts_what_its_source_leaves_to_it() {
    let world = World::new(Outer::V4, 9_000);
    narrow(&world);
    // Pings without DF, of a pod that is never told: the tunnel itself makes fragments.
    eventually(SOON, "a ping of 4,000 bytes comes back in fragments", || {
        world.pod(1, "ip route flush cache; ping -c1 -W1 -M dont -s 4000 10.244.2.2").0
    });
    let counters = world.tunnel(1).counters();
    assert!(counters.sent_packets > 2, "{counters:?}");
}
