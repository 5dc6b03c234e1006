//! What a node may give now, address by address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weft_model::Cluster;
use weft_model::pools::{IpBlock, IpPool, block_name};

use crate::address::{Family, bounds, number};
use crate::pools::Catalogue;
use crate::pools::file::Span;

/// A block of this node, or one that it has borrowed of.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) pool: Arc<str>,
    pub(super) block: IpNet,
    pub(super) own: bool,
    /// What may be given, whether it is taken or not.
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Whether new pods may have them.
    pub(super) serves: bool,
}

impl Piece {
    /// What is not taken.
    pub(super) fn free<'a>(
        &'a self,
        taken: &'a BTreeSet<IpAddr>,
    ) -> impl DoubleEndedIterator<Item = &'a IpAddr> {
        self.addresses.iter().filter(|ip| !taken.contains(ip))
    }

    /// Consecutive addresses as spans.
    fn spans(&self) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        for ip in &self.addresses {
            match spans.last_mut() {
                Some(span) if number(&span.last).checked_add(1) == Some(number(ip)) => span.last = *ip,
                _ => spans.push(Span { pool: self.pool.clone(), block: self.block, first: *ip, last: *ip }),
            }
        }
        spans
    }
}

/// All pieces of a node, by the block's name.
#[derive(Clone, Debug, Default)]
pub(super) struct Room {
    pub(super) pieces: BTreeMap<Arc<str>, Piece>,
}

impl Room {
    /// The room of `node`, whose blocks and loans are `mine`; `withheld` says what it has decided to give
    /// up.
    pub(super) fn of<'a>(
        cluster: &Cluster,
        catalogue: &Catalogue,
        node: &str,
        mine: impl Iterator<Item = &'a Arc<IpBlock>>,
        withheld: impl Fn(&IpBlock) -> &'a [IpNet],
    ) -> Room {
        let labels = cluster.nodes.get(node).map(|node| node.labels.clone()).unwrap_or_default();
        let mut room = Room::default();
        for block in mine {
            let own = block.node.as_deref() == Some(node);
            let fits = catalogue.get(&block.pool).is_some_and(|pool| is_block_of(&block.cidr, pool));
            let serves =
                fits && catalogue.serves(&block.pool, &labels) && !is_inside_another(cluster, &block.cidr);
            let mut addresses: BTreeSet<IpAddr> = if own {
                addresses(&block.cidr).filter(|ip| !block.borrowed.contains_key(ip)).collect()
            } else {
                let lent = block.borrowed.iter().filter(|(_, to)| &***to == node);
                lent.map(|(ip, _)| *ip).collect()
            };
            let withheld = withheld(block);
            addresses.retain(|ip| !withheld.iter().any(|net| net.contains(ip)));
            let piece = Piece { pool: block.pool.clone(), block: block.cidr, own, addresses, serves };
            room.pieces.insert(block.name.clone(), piece);
        }
        room
    }

    /// How many addresses of these pools are free for any pod.
    pub(super) fn free(&self, pools: &[Arc<str>], taken: &BTreeSet<IpAddr>) -> usize {
        let pieces = self.pieces.values().filter(|piece| piece.serves && pools.contains(&piece.pool));
        pieces.map(|piece| piece.free(taken).count()).sum()
    }

    /// Whether an address may be given.
    pub(super) fn holds(&self, ip: &IpAddr) -> bool {
        self.pieces.values().any(|piece| piece.serves && piece.addresses.contains(ip))
    }

    /// Whether an address is this node's, though new pods may not have it.
    pub(super) fn covers(&self, ip: &IpAddr) -> bool {
        let covers =
            |piece: &Piece| if piece.own { piece.block.contains(ip) } else { piece.addresses.contains(ip) };
        self.pieces.values().any(covers)
    }

    /// Takes an address, or a whole block, out.
    pub(super) fn withhold(&mut self, name: &str, net: &IpNet) {
        if let Some(piece) = self.pieces.get_mut(name) {
            piece.addresses.retain(|ip| !net.contains(ip));
        }
    }

    /// The spans for the file: own blocks first, then what is borrowed.
    pub(super) fn spans(&self) -> Vec<Span> {
        let mut pieces: Vec<&Piece> = self.pieces.values().filter(|piece| piece.serves).collect();
        pieces.sort_by_key(|piece| (!piece.own, piece.block));
        pieces.into_iter().flat_map(Piece::spans).collect()
    }
}

/// The addresses of a block that pods can have: all but the first.
pub(super) fn addresses(block: &IpNet) -> impl Iterator<Item = IpAddr> + use<> {
    let (family, (first, last)) = (Family::of(&block.addr()), bounds(block));
    // No block is larger; what is, came of somebody's hand.
    let last = last.min(first.saturating_add(4095));
    (first.saturating_add(1)..=last).filter_map(move |at| family.address(at))
}

/// How many addresses of a block of this prefix length pods can have.
pub fn size(block_size: u8, v4: bool) -> usize {
    let bits = u32::from((if v4 { 32u8 } else { 128 }).saturating_sub(block_size)).min(12);
    (1usize << bits) - 1
}

/// Whether a network is one of the pool's blocks.
pub(super) fn is_block_of(net: &IpNet, pool: &IpPool) -> bool {
    pool.cidr.contains(net) && net.prefix_len() == pool.block_size
}

/// Whether there is a block around this one, as when a pool was made anew with larger blocks.
fn is_inside_another(cluster: &Cluster, net: &IpNet) -> bool {
    let wider = std::iter::successors(net.supernet(), IpNet::supernet).take(12);
    wider.into_iter().any(|net| cluster.blocks.contains_key(block_name(&net).as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_s_first_address_is_nobody_s() {
        let of = |net: &str| addresses(&net.parse().unwrap()).map(|ip| ip.to_string()).collect::<Vec<_>>();
        assert_eq!(of("10.1.0.4/30"), ["10.1.0.5", "10.1.0.6", "10.1.0.7"]);
        assert_eq!(of("fd00::4/127"), ["fd00::5"]);
        assert!(of("10.1.0.4/32").is_empty());
        assert_eq!(of("10.0.0.0/8").len(), 4095);
        assert_eq!((size(26, true), size(122, false), size(32, true), size(20, true)), (63, 63, 0, 4095));
    }
}
