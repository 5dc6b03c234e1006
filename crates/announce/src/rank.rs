//! Rendezvous hashing: who goes before whom for an address. Alike on all nodes, whatever they know of the
//! cluster, and in all versions.

use std::cmp::Ordering;
use std::net::IpAddr;

/// FNV-1a, 64 bits.
const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

fn score(address: IpAddr, node: &str) -> u64 {
    let add = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    let hash = match address {
        IpAddr::V4(ip) => ip.octets().iter().fold(BASIS, add),
        IpAddr::V6(ip) => ip.octets().iter().fold(BASIS, add),
    };
    let hash = node.as_bytes().iter().fold(hash, add);
    // SplitMix64's last steps: names that end alike would else rank alike for every address.
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// `Less` where `a` goes before `b`.
pub(crate) fn order(address: IpAddr, a: &str, b: &str) -> Ordering {
    (score(address, b), b).cmp(&(score(address, a), a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_spread_over_nodes_and_one_that_goes_moves_only_its_own() {
        let names: Vec<String> = (1..=5).map(|i| format!("node{i}")).collect();
        let first = |names: &[String], ip: IpAddr| {
            let mut sorted = names.to_vec();
            sorted.sort_by(|a, b| order(ip, a, b));
            sorted.remove(0)
        };
        let mut counts = [0; 5];
        for i in 0..1000u32 {
            let ip = IpAddr::V4((0x0aa8_0100 + i).into());
            let owner = first(&names, ip);
            counts[names.iter().position(|name| *name == owner).unwrap()] += 1;
            if owner != "node5" {
                assert_eq!(first(&names[..4], ip), owner);
            }
        }
        assert!(counts.iter().all(|count| (120..=280).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_order_is_that_of_every_version() {
        let ip = "10.168.0.200".parse().unwrap();
        let mut names = ["node1", "node2", "node3"];
        names.sort_by(|a, b| order(ip, a, b));
        assert_eq!(names, ORDER);
        assert_eq!(order(ip, "node1", "node1"), Ordering::Equal);
    }

    const ORDER: [&str; 3] = ["node2", "node3", "node1"];
}
