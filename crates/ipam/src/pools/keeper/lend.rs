//! Answering other nodes that ask for addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weft_model::pools::{Ask, IpBlock};

use super::demand::waiting;
use super::{Change, Keeper, Work, Write};

impl Keeper {
    /// Answers all questions: what is asked for is lent or not, and the question goes either way.
    pub(super) fn lend(&mut self, work: &mut Work<'_>) {
        let asked =
            |block: &&Arc<IpBlock>| self.owns(block) && !block.asked.is_empty() && !self.is_decided(block);
        let asked: Vec<IpBlock> =
            work.input.cluster.blocks.values().filter(asked).map(|block| (**block).clone()).collect();
        for block in asked {
            self.answer(work, &block);
        }
    }

    fn answer(&mut self, work: &mut Work<'_>, block: &IpBlock) {
        let mut lent: BTreeMap<IpAddr, Arc<str>> = BTreeMap::new();
        for (node, asks) in &block.asked {
            if !work.input.cluster.nodes.contains_key(node) {
                continue;
            }
            for ask in asks {
                if let Some(ip) = self.lendable(work, block, *ask, &lent) {
                    lent.insert(ip, node.clone());
                }
            }
        }
        let mut new = block.clone();
        new.asked.clear();
        let why = match lent.is_empty() {
            true => format!("lend nothing of block {}: no address is free", block.cidr),
            false => {
                let each: Vec<String> = lent.iter().map(|(ip, node)| format!("{ip} to {node}")).collect();
                format!("lend {}", each.join(", "))
            }
        };
        let withheld = lent.keys().map(|ip| IpNet::from(*ip)).collect();
        new.borrowed.extend(lent);
        self.decide(Write { change: Change::Replace, block: new, why }, withheld, 0, &mut work.room);
    }

    /// The address that answers a question. One that a pod of this node asks for stays, and as many as
    /// its pods wait for.
    fn lendable(
        &self,
        work: &Work<'_>,
        block: &IpBlock,
        ask: Ask,
        lent: &BTreeMap<IpAddr, Arc<str>>,
    ) -> Option<IpAddr> {
        let piece = work.room.pieces.get(&block.name).filter(|piece| piece.serves)?;
        let taken = &work.taken;
        let foreign = work.foreign(&self.node);
        let kept = |ip: &IpAddr| {
            lent.contains_key(ip) || work.demands.wished.contains_key(ip) || foreign.contains(ip)
        };
        let mut free = piece.free(taken).filter(|ip| !kept(ip));
        match ask {
            Ask::This(ip) => free.find(|free| **free == ip).copied(),
            Ask::Any => {
                let needed = work.demands.pools.iter().filter(|(pools, _)| pools.contains(&block.pool));
                let needed = needed.map(|(pools, pods)| waiting(&work.catalogue, pools, *pods, taken));
                let spare =
                    work.room.free(std::slice::from_ref(&block.pool), taken).saturating_sub(lent.len());
                // From the end: pods of this node get theirs from the front.
                (spare > needed.max().unwrap_or_default()).then(|| free.next_back().copied())?
            }
        }
    }
}
