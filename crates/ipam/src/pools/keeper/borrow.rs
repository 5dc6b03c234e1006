//! Asking other nodes for addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use weft_model::PodKey;
use weft_model::pools::{Ask, IpBlock};

use super::claim::Exhausted;
use super::{Asked, Change, Input, Keeper, Work, Write};
use crate::pools::room::{is_block_of, size};

/// How long an owner that had nothing is left alone.
const DENIED: Duration = Duration::from_secs(10);
/// How long an owner may take to answer before another is asked.
const ANSWER: Duration = Duration::from_secs(5);
/// The most questions that are open at once.
const OPEN: usize = 8;

impl Keeper {
    /// Asks for as many addresses as pods wait for, of as many owners; takes back what is no longer needed.
    pub(super) fn borrow(&mut self, work: &mut Work<'_>, exhausted: &Exhausted) {
        let open = self.hear(work, exhausted);
        for (pools, short) in exhausted.iter().filter(|(_, short)| *short > 0) {
            let asked = open.iter().filter(|block| pools.contains(&block.pool)).count();
            let wanted = (*short).min(OPEN).saturating_sub(asked);
            let owners = self.owners(work, pools);
            if owners.is_empty() && asked == 0 {
                let names: Vec<&str> = pools.iter().map(|name| &**name).collect();
                work.problems.push(format!(
                    "no address is left in {}: every block is taken, and no other node has one to lend; make a larger pool",
                    names.join(", ")
                ));
            }
            for block in owners.into_iter().take(wanted) {
                self.write_ask(
                    work,
                    &block,
                    Ask::Any,
                    format!("ask {} for an address of {}", owner(&block), block.cidr),
                );
            }
        }
    }

    /// Asks for one address that a pod wants.
    pub(super) fn ask_for(&mut self, work: &mut Work<'_>, block: &IpBlock, ask: Ask, pod: &PodKey) {
        let known = block.asked.get(&self.node).is_some_and(|asks| asks.contains(&ask));
        if known || self.is_decided(block) {
            return;
        }
        if self.denied.contains_key(&block.name) {
            let why = format!(
                "pod {pod} asks for {ask}, which node {} does not lend: it may be taken there",
                owner(block)
            );
            work.problems.push(why);
            return;
        }
        self.write_ask(work, block, ask, format!("ask {} for {ask}, which pod {pod} wants", owner(block)));
    }

    fn write_ask(&mut self, work: &mut Work<'_>, block: &IpBlock, ask: Ask, why: String) {
        let mut new = block.clone();
        new.asked.entry(self.node.clone()).or_default().insert(ask);
        let asked = Asked { since: work.input.now, loans: loans(block, &self.node) };
        self.asked.insert(block.name.clone(), asked);
        self.decide(Write { change: Change::Replace, block: new, why }, Vec::new(), 0, &mut work.room);
    }

    /// Blocks of these pools whose owners can be asked, in this node's order: not those of which, by the
    /// API, pods or borrowers have all.
    fn owners(&self, work: &Work<'_>, pools: &[Arc<str>]) -> Vec<IpBlock> {
        let cluster = work.input.cluster;
        let foreign = work.foreign(&self.node);
        let has_free = |block: &IpBlock| {
            let used = foreign.range(block.cidr.network()..=block.cidr.broadcast());
            let used = used.filter(|ip| !block.borrowed.contains_key(*ip)).count();
            used + block.borrowed.len() < size(block.cidr.prefix_len(), block.cidr.addr().is_ipv4())
        };
        let fits = |block: &&Arc<IpBlock>| {
            let pool = work.catalogue.get(&block.pool).filter(|pool| pools.contains(&pool.name));
            pool.is_some_and(|pool| is_block_of(&block.cidr, pool))
                && block
                    .node
                    .as_ref()
                    .is_some_and(|node| *node != self.node && cluster.nodes.contains_key(node))
                && !block.asked.contains_key(&self.node)
                && !self.denied.contains_key(&block.name)
                && !self.is_decided(block)
                && has_free(block)
        };
        let mut found: Vec<IpBlock> =
            cluster.blocks.values().filter(fits).map(|block| (**block).clone()).collect();
        // Who asks begins behind its own name, so that not all ask the same.
        let split = found.partition_point(|block| owner(block) <= &*self.node);
        found.rotate_left(split);
        found
    }

    /// Reads the answers, before anything is asked again.
    pub(super) fn note_answers(&mut self, input: &Input<'_>) {
        let (cluster, now) = (input.cluster, input.now);
        let answered = |keeper: &Keeper, name: &Arc<str>| {
            let block = cluster.blocks.get(name);
            !keeper.pending.contains_key(name) && !block.is_some_and(|b| b.asked.contains_key(&keeper.node))
        };
        let done: Vec<Arc<str>> = self.asked.keys().filter(|name| answered(self, name)).cloned().collect();
        for name in done {
            let had = self.asked.remove(&name).map_or(0, |asked| asked.loans);
            if cluster.blocks.get(&name).is_none_or(|block| loans(block, &self.node) <= had) {
                self.denied.insert(name, now + DENIED);
            }
        }
    }

    /// Withdraws questions that are no longer of use; the blocks of which an answer is awaited.
    fn hear(&mut self, work: &mut Work<'_>, exhausted: &Exhausted) -> Vec<IpBlock> {
        let (cluster, now) = (work.input.cluster, work.input.now);
        let mut open = Vec::new();
        let mine: Vec<IpBlock> = cluster
            .blocks
            .values()
            .filter(|b| b.asked.contains_key(&self.node))
            .map(|b| (**b).clone())
            .collect();
        for block in mine {
            let wanted = self.still_wanted(work, &block, exhausted);
            let since = self
                .asked
                .entry(block.name.clone())
                .or_insert(Asked { since: now, loans: loans(&block, &self.node) })
                .since;
            let silent = now.saturating_duration_since(since) >= ANSWER;
            if (silent || !wanted) && !self.is_decided(&block) {
                self.withdraw(work, &block, silent);
            } else {
                open.push(block);
            }
        }
        open.extend(
            self.pending
                .values()
                .filter(|p| p.write.block.asked.contains_key(&self.node))
                .map(|p| p.write.block.clone()),
        );
        open
    }

    fn still_wanted(&self, work: &Work<'_>, block: &IpBlock, exhausted: &Exhausted) -> bool {
        let asks: BTreeSet<Ask> = block.asked.get(&self.node).cloned().unwrap_or_default();
        asks.iter().any(|ask| match ask {
            Ask::Any => exhausted.iter().any(|(pools, short)| *short > 0 && pools.contains(&block.pool)),
            Ask::This(ip) => work.demands.wished.contains_key(ip) && !work.input.allocated.contains(ip),
        })
    }

    fn withdraw(&mut self, work: &mut Work<'_>, block: &IpBlock, silent: bool) {
        let mut new = block.clone();
        new.asked.remove(&self.node);
        let why = if silent { "does not answer" } else { "is no longer needed" };
        let why = format!("ask node {} no more for addresses of {}: it {why}", owner(block), block.cidr);
        if silent {
            self.denied.insert(block.name.clone(), work.input.now + DENIED);
        }
        self.asked.remove(&block.name);
        self.decide(Write { change: Change::Replace, block: new, why }, Vec::new(), 0, &mut work.room);
    }
}

fn owner(block: &IpBlock) -> &str {
    block.node.as_deref().unwrap_or_default()
}

fn loans(block: &IpBlock, node: &str) -> usize {
    block.borrowed.iter().filter(|(_, to): &(&IpAddr, _)| &***to == node).count()
}
