//! The order in which a node tries the blocks of a pool: it begins where the hash of its name says and
//! goes on by a stride of its own, so that nodes that claim at the same moment rarely meet, and each
//! comes by every block once.

use ipnet::IpNet;
use sha2::{Digest, Sha256};
use weft_model::pools::IpPool;

use crate::address::{Family, number};

/// Every block of the pool once, in the order of `node`.
pub(super) fn blocks<'a>(pool: &'a IpPool, node: &str) -> impl Iterator<Item = IpNet> + 'a {
    let bits = u32::from(pool.block_size.saturating_sub(pool.cidr.prefix_len())).min(127);
    let count = 1u128 << bits;
    let hash = Sha256::new().chain_update(node).chain_update("/").chain_update(&*pool.name).finalize();
    let word = |from: usize| {
        let bytes = hash.iter().skip(from).take(16);
        bytes.fold(0u128, |sum, byte| sum << 8 | u128::from(*byte))
    };
    // An odd stride meets every one of a power of two.
    let (start, stride) = (word(0), word(16) | 1);
    (0..count).filter_map(move |step| at(pool, start.wrapping_add(stride.wrapping_mul(step)) & (count - 1)))
}

/// The block at a place of the pool.
pub(super) fn at(pool: &IpPool, place: u128) -> Option<IpNet> {
    let shift = u32::from(pool.cidr.max_prefix_len().checked_sub(pool.block_size)?);
    let first = number(&pool.cidr.network()) + (place << shift);
    IpNet::new(Family::of(&pool.cidr.addr()).address(first)?, pool.block_size).ok()
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::tests::pool;
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_block_comes_once_and_nodes_begin_apart() {
        let small = pool("p", "10.1.0.0/22", 26);
        let all: BTreeSet<IpNet> = blocks(&small, "a").collect();
        assert_eq!((all.len(), blocks(&small, "a").count()), (16, 16));
        assert!(all.iter().all(|block| small.cidr.contains(block)));
        let one = pool("p", "10.1.0.0/26", 26);
        assert_eq!(blocks(&one, "a").collect::<Vec<_>>(), ["10.1.0.0/26".parse().unwrap()]);
        let large = pool("p", "10.0.0.0/8", 26);
        let firsts: BTreeSet<IpNet> =
            (0..100).filter_map(|i| blocks(&large, &format!("n{i}")).next()).collect();
        assert!(firsts.len() >= 98, "{}", firsts.len());
        let six = pool("six", "fd00::/48", 122);
        assert!(blocks(&six, "a").take(1000).all(|block| six.cidr.contains(&block)));
    }
}
