//! Node CIDRs: the part of the cluster's pod CIDR that a node hands out to its pods.

use ipnet::IpNet;

use crate::address::{Family, bounds, number};

/// Why a node gets no CIDR.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeCidrError {
    /// The mask is no part of the cluster CIDR, or no mask of its family.
    #[error("node mask /{mask} does not fit the cluster CIDR {cluster}: choose {least} to {most}", least = .cluster.prefix_len(), most = .cluster.max_prefix_len())]
    Mask {
        /// The cluster's pod CIDR.
        cluster: IpNet,
        /// The prefix length asked for.
        mask: u8,
    },
    /// Every part is taken.
    #[error(
        "the cluster CIDR {cluster} has no free /{mask} left ({taken} taken): enlarge it or use a longer node mask"
    )]
    Exhausted {
        /// The cluster's pod CIDR.
        cluster: IpNet,
        /// The prefix length asked for.
        mask: u8,
        /// How many CIDRs of other nodes lie in it.
        taken: usize,
    },
}

/// The lowest network of prefix length `mask` in `cluster` that shares no address with `taken`.
///
/// `taken` may hold networks of any size, order and family, also outside the cluster CIDR (a
/// node of before a change of configuration). The cost is that of sorting them.
pub fn allocate(cluster: &IpNet, mask: u8, taken: &[IpNet]) -> Result<IpNet, NodeCidrError> {
    let width = cluster.max_prefix_len();
    if mask < cluster.prefix_len() || mask > width {
        return Err(NodeCidrError::Mask { cluster: *cluster, mask });
    }
    let (first, last) = bounds(cluster);
    let mut used: Vec<(u128, u128)> = taken.iter().filter(|net| shares(cluster, net)).map(bounds).collect();
    used.sort_unstable();
    let exhausted = || NodeCidrError::Exhausted { cluster: *cluster, mask, taken: used.len() };
    // All ones below the mask: the distance from a network's first address to its last.
    let span = if width == mask { 0 } else { u128::MAX >> (128 - u32::from(width - mask)) };
    let mut candidate = first;
    for &(from, to) in &used {
        if from > candidate && from - candidate > span {
            break;
        }
        if to >= candidate {
            // The next multiple of the network's size after what is taken.
            candidate = (to | span).checked_add(1).ok_or_else(exhausted)?;
        }
    }
    if candidate > last {
        return Err(exhausted());
    }
    let address = Family::of(&cluster.addr()).address(candidate).ok_or_else(exhausted)?;
    IpNet::new(address, mask).map_err(|_| NodeCidrError::Mask { cluster: *cluster, mask })
}

fn shares(cluster: &IpNet, net: &IpNet) -> bool {
    let same_family = Family::of(&cluster.addr()) == Family::of(&net.addr());
    let ((a, b), (c, d)) = (bounds(cluster), bounds(net));
    same_family && c <= b && d >= a && number(&net.network()) == c
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn nodes_get_the_lowest_free_network_in_order() {
        let cluster = net("10.244.0.0/16");
        assert_eq!(allocate(&cluster, 24, &[]), Ok(net("10.244.0.0/24")));
        assert_eq!(allocate(&cluster, 24, &[net("10.244.0.0/24")]), Ok(net("10.244.1.0/24")));
        let gap = [net("10.244.2.0/24"), net("10.244.0.0/24")];
        assert_eq!(allocate(&cluster, 24, &gap), Ok(net("10.244.1.0/24")));
        let six = net("fd00:10:244::/48");
        assert_eq!(allocate(&six, 64, &[net("fd00:10:244::/64")]), Ok(net("fd00:10:244:1::/64")));
    }

    #[test]
    fn larger_smaller_foreign_and_nested_networks_are_stepped_over() {
        let cluster = net("10.244.0.0/16");
        let taken =
            ["10.244.0.0/23", "10.244.1.0/24", "10.244.2.128/26", "10.9.0.0/16", "fd00::/64"].map(net);
        assert_eq!(allocate(&cluster, 24, &taken), Ok(net("10.244.3.0/24")));
        assert!(allocate(&cluster, 24, &[net("10.0.0.0/8")]).is_err());
    }

    #[test]
    fn a_mask_outside_the_cluster_cidr_and_a_full_cluster_are_refused() {
        let cluster = net("10.244.0.0/30");
        assert!(matches!(allocate(&cluster, 24, &[]), Err(NodeCidrError::Mask { .. })));
        assert!(matches!(allocate(&cluster, 33, &[]), Err(NodeCidrError::Mask { .. })));
        assert_eq!(allocate(&cluster, 30, &[]), Ok(cluster));
        let error = allocate(&cluster, 30, &[cluster]).unwrap_err();
        assert!(error.to_string().contains("no free /30 left (1 taken)"), "{error}");
        assert!(allocate(&net("::/0"), 1, &[net("::/1"), net("8000::/1")]).is_err());
        assert_eq!(allocate(&net("::/0"), 0, &[]), Ok(net("::/0")));
        let top = net("255.255.255.0/24");
        assert!(allocate(&top, 25, &[net("255.255.255.0/25"), net("255.255.255.128/25")]).is_err());
    }

    #[test]
    fn the_next_of_five_thousand_nodes_follows_the_last() {
        let cluster = net("10.0.0.0/8");
        let taken: Vec<IpNet> = cluster.subnets(24).unwrap().take(4999).collect();
        assert_eq!(allocate(&cluster, 24, &taken), Ok(net("10.19.135.0/24")));
    }

    proptest! {
        #[test]
        fn what_is_given_lies_inside_is_free_and_is_the_lowest(
            mask in 16u8..=26,
            picks in prop::collection::vec((0u32..0x10000, 14u8..=32), 0..60),
        ) {
            let cluster = net("10.244.0.0/16");
            let taken: Vec<IpNet> = picks.iter().map(|(low, length)| {
                let address = std::net::Ipv4Addr::from_bits(0x0af4_0000 | low);
                IpNet::new(address.into(), *length).unwrap().trunc()
            }).collect();
            let free = |n: &IpNet| !taken.iter().any(|t| t.contains(n) || n.contains(t));
            let slow = cluster.subnets(mask).unwrap().find(free);
            prop_assert_eq!(allocate(&cluster, mask, &taken).ok(), slow);
        }
    }
}
