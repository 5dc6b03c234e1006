//! Giving back what is not used.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use weft_model::pools::IpBlock;

use super::demand::{ready, waiting};
use super::{Change, Keeper, Work, Write};
use crate::pools::room::Piece;

/// How long a loan must have been unused: others may wait for it.
const LOAN: Duration = Duration::from_secs(3);

impl Keeper {
    /// Gives back one unused block, and unused loans.
    pub(super) fn give_back(&mut self, work: &mut Work<'_>) {
        self.note_idle(work);
        let names: Vec<Arc<str>> = work.room.pieces.keys().cloned().collect();
        let mut gave_block = false;
        for name in names.iter().rev() {
            let Some(block) = work.input.cluster.blocks.get(name).cloned() else { continue };
            if self.is_decided(&block) {
                continue;
            }
            if self.owns(&block) {
                gave_block = gave_block || self.give_back_block(work, &block);
            } else {
                self.return_loans(work, &block);
            }
        }
    }

    /// Since when each block and each loan is unused.
    fn note_idle(&mut self, work: &Work<'_>) {
        let mut idle = BTreeMap::new();
        for piece in work.room.pieces.values() {
            let nets: Vec<IpNet> = if piece.own {
                vec![piece.block]
            } else {
                piece.addresses.iter().map(|ip| IpNet::from(*ip)).collect()
            };
            for net in nets {
                let used = work.taken.iter().any(|ip| net.contains(ip));
                if !used && !work.demands.wished.keys().any(|ip| net.contains(ip)) {
                    let since = self.idle.get(&net).copied().unwrap_or(work.input.now);
                    idle.insert(net, since);
                }
            }
        }
        self.idle = idle;
    }

    fn is_over(&self, net: &IpNet, serves: bool, grace: Duration, now: Instant) -> bool {
        let since = self.idle.get(net);
        since.is_some_and(|since| !serves || now.saturating_duration_since(*since) >= grace)
    }

    fn give_back_block(&mut self, work: &mut Work<'_>, block: &IpBlock) -> bool {
        let Some(piece) = work.room.pieces.get(&block.name) else { return false };
        let over = self.is_over(&block.cidr, piece.serves, self.grace, work.input.now);
        let lends = !block.borrowed.is_empty() || !block.asked.is_empty();
        if !over || lends || !spare(work, piece, piece.addresses.len()) {
            return false;
        }
        let why = format!("give back block {} of pool {}: no pod uses it", block.cidr, block.pool);
        let write = Write { change: Change::Delete, block: block.clone(), why };
        self.decide(write, vec![block.cidr], 0, &mut work.room);
        true
    }

    fn return_loans(&mut self, work: &mut Work<'_>, block: &IpBlock) {
        let Some(piece) = work.room.pieces.get(&block.name) else { return };
        let mut returned = Vec::new();
        for ip in &piece.addresses {
            let over = self.is_over(&IpNet::from(*ip), piece.serves, LOAN.min(self.grace), work.input.now);
            if over && spare(work, piece, returned.len() + 1) {
                returned.push(*ip);
            }
        }
        if returned.is_empty() {
            return;
        }
        let mut new = block.clone();
        new.borrowed.retain(|ip, _| !returned.contains(ip));
        let texts: Vec<String> = returned.iter().map(ToString::to_string).collect();
        let owner = block.node.as_deref().unwrap_or("no node");
        let why = format!("return {} to {owner}: no pod uses it", texts.join(", "));
        let withheld = returned.into_iter().map(IpNet::from).collect();
        self.decide(Write { change: Change::Replace, block: new, why }, withheld, 0, &mut work.room);
    }
}

/// Whether as many addresses of a piece can go, and what is left is enough.
fn spare(work: &Work<'_>, piece: &Piece, going: usize) -> bool {
    if !piece.serves {
        return true;
    }
    let taken = &work.taken;
    let demands = work.demands.pools.iter().filter(|(pools, _)| pools.contains(&piece.pool));
    demands.into_iter().all(|(pools, pods)| {
        let left = work.room.free(pools, taken).saturating_sub(going);
        // A loan is another node's, which may need it more.
        let kept = if piece.own { ready(&work.catalogue, pools) } else { 0 };
        left >= waiting(&work.catalogue, pools, *pods, taken) + kept
    })
}
