//! What a congested router of the underlay marks is told to the pods' connections (RFC 3168, 6040).

use super::*;

/// Has the router mark every packet that says it understands marks, as one with a full queue does.
fn congest(world: &World) {
    let rules = "nft -f - <<'NFT'
        table inet busy {
            chain forward {
                type filter hook forward priority 0;
                ip ecn { ect0, ect1 } ip ecn set ce
                ip6 ecn { ect0, ect1 } ip6 ecn set ce
            }
        }
        \nNFT";
    world.router.run(|| sh(rules)).unwrap();
}

/// Packets that came to pod `n` with the mark "congestion experienced".
fn marked(world: &World, n: usize) -> u64 {
    let (_, text) = world.pod(n, "nstat -asz IpExtInCEPkts Ip6InCEPkts");
    let counts = text.lines().filter(|line| line.contains("CEPkts"));
    counts.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}

#[test]
fn a_congested_underlay_slows_streams_and_loses_nothing() {
    for outer in [Outer::V4, Outer::V6] {
        let world = World::new(outer, 1_500);
        for pod in &world.pods {
            pod.run(|| sh("echo 1 > /proc/sys/net/ipv4/tcp_ecn")).unwrap();
        }
        congest(&world);
        for v4 in [true, false] {
            let before = marked(&world, 2);
            let (client, server) = connect(&world.pods[0], &world.pods[1], pods(v4)[1]);
            transfer(&client, &server, &pattern(1 << 20));
            assert!(marked(&world, 2) > before, "{outer:?}, IPv4 inside: {v4}: the pod heard nothing");
        }
        assert_eq!(total(&world.tunnel(1).counters()) + total(&world.tunnel(2).counters()), 0);
    }
}
