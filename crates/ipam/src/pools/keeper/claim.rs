//! Claiming blocks.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weft_model::network::overlaps;
use weft_model::pools::{Ask, IpBlock, IpPool, block_name};

use super::demand::{ready, waiting};
use super::{Change, Claim, Keeper, Work, Write};
use crate::pools::{room, walk};

/// The most blocks that are claimed in one plan.
const AT_ONCE: usize = 8;

/// Pools of which there is no block left, and how many addresses of them pods wait for.
pub(super) type Exhausted = Vec<(Vec<Arc<str>>, usize)>;

impl Keeper {
    /// Claims blocks before pods need them; what could not be had is returned.
    pub(super) fn claim(&mut self, work: &mut Work<'_>) -> Exhausted {
        let (mut exhausted, mut left) = (Vec::new(), AT_ONCE);
        let demands: Vec<(Vec<Arc<str>>, usize)> =
            work.demands.pools.iter().map(|(pools, pods)| (pools.clone(), *pods)).collect();
        for (pools, pods) in demands {
            let waiting = waiting(&work.catalogue, &pools, pods, &work.taken);
            let mut have = work.room.free(&pools, &work.taken) + self.coming(&pools);
            while have < waiting + ready(&work.catalogue, &pools) && left > 0 {
                let Some(got) = pools.iter().find_map(|name| self.claim_of(work, name)) else {
                    exhausted.push((pools, waiting.saturating_sub(have)));
                    break;
                };
                have += got;
                left -= 1;
            }
        }
        exhausted
    }

    /// Claims the blocks of addresses that pods ask for, or asks their owners.
    pub(super) fn claim_wishes(&mut self, work: &mut Work<'_>) {
        let Work { demands, room, input, .. } = &*work;
        let wished =
            demands.wished.iter().filter(|(ip, _)| !room.holds(ip) && !input.allocated.contains(*ip));
        // What a pod has though its block was lost is claimed again.
        let kept = demands.kept.iter().filter(|(ip, _)| !room.covers(ip));
        let lacking: Vec<_> = wished.chain(kept).map(|(ip, pod)| (*ip, pod.clone())).collect();
        for (ip, pod) in lacking {
            let Some(pool) = work.catalogue.around(&ip.into()).cloned() else { continue };
            let Ok(net) = IpNet::new(ip, pool.block_size).map(|net| net.trunc()) else { continue };
            if net.addr() == ip {
                let why = format!("pod {pod} asks for {ip}, the first address of a block, which no pod gets");
                work.problems.push(why);
                continue;
            }
            match work.input.cluster.blocks.get(block_name(&net).as_str()).cloned() {
                None if work.foreign(&self.node).range(net.network()..=net.broadcast()).next().is_none() => {
                    self.try_claim(work, &pool, net);
                }
                None => work.problems.push(format!(
                    "pod {pod} has or wants {ip}, whose block {net} is nobody's while pods of other nodes have addresses of it"
                )),
                Some(block) if block.node.is_none() => self.adopt(work, &block),
                Some(block) if self.owns(&block) && !block.borrowed.contains_key(&ip) => {}
                Some(block) if block.borrowed.contains_key(&ip) => {
                    let holder =
                        block.borrowed.get(&ip).map_or("nobody: it is about to be free", |node| node);
                    work.problems.push(format!("pod {pod} asks for {ip}, which is lent to {holder}"));
                }
                Some(block) => self.ask_for(work, &block, Ask::This(ip), &pod),
            }
        }
    }

    /// How many addresses are claimed and not in the view yet.
    fn coming(&self, pools: &[Arc<str>]) -> usize {
        let claims =
            self.claims.values().filter(|claim| !claim.taken && pools.contains(&claim.write.block.pool));
        let claimed: usize = claims.map(|claim| addresses_in(&claim.write.block.cidr)).sum();
        let adopted = self.pending.values().filter(|pending| pools.contains(&pending.write.block.pool));
        claimed + adopted.map(|pending| pending.gains).sum::<usize>()
    }

    /// Claims the next block of a pool; how many addresses that brings.
    fn claim_of(&mut self, work: &mut Work<'_>, name: &str) -> Option<usize> {
        let pool = work.catalogue.get(name)?.clone();
        let odd = odd_blocks(work, &pool);
        let foreign = work.foreign(&self.node);
        // One that is not taken comes no later than after all that are.
        let most = work.input.cluster.blocks.len() + self.claims.len() + odd.len() * 4096 + 1;
        let node = self.node.clone();
        for net in walk::blocks(&pool, &node).take(most) {
            let used = foreign.range(net.network()..=net.broadcast()).next().is_some();
            if used || odd.iter().any(|odd| overlaps(odd, &net)) {
                continue;
            }
            match work.input.cluster.blocks.get(block_name(&net).as_str()).cloned() {
                None if self.try_claim(work, &pool, net) => {}
                Some(block) if block.node.is_none() && !self.is_decided(&block) => self.adopt(work, &block),
                _ => continue,
            }
            return Some(addresses_in(&net));
        }
        None
    }

    /// Notes a claim, unless there is one or somebody was quicker.
    fn try_claim(&mut self, work: &Work<'_>, pool: &IpPool, net: IpNet) -> bool {
        let name: Arc<str> = block_name(&net).into();
        if self.claims.contains_key(&name) {
            return false;
        }
        let block = IpBlock {
            name: name.clone(),
            uid: "".into(),
            version: "".into(),
            cidr: net,
            pool: pool.name.clone(),
            node: Some(self.node.clone()),
            nat_outgoing: pool.nat_outgoing,
            borrowed: BTreeMap::<IpAddr, Arc<str>>::new(),
            asked: BTreeMap::new(),
            release: Default::default(),
        };
        let why = format!("claim block {net} of pool {}", pool.name);
        let write = Write { change: Change::Create, block, why };
        self.claims.insert(name, Claim { write, since: work.input.now, sent: false, taken: false });
        true
    }

    /// Claims a block that lost its node.
    fn adopt(&mut self, work: &mut Work<'_>, block: &IpBlock) {
        if self.is_decided(block) {
            return;
        }
        let mut new = block.clone();
        new.node = Some(self.node.clone());
        let why = format!("claim block {} of pool {}, which had no node", block.cidr, block.pool);
        let write = Write { change: Change::Replace, block: new, why };
        self.decide(write, Vec::new(), addresses_in(&block.cidr), &mut work.room);
    }
}

fn addresses_in(net: &IpNet) -> usize {
    room::size(net.prefix_len(), net.addr().is_ipv4())
}

/// Blocks within the pool that are none of its own: of a pool that was there before it.
fn odd_blocks(work: &Work<'_>, pool: &IpPool) -> Vec<IpNet> {
    let blocks = work.input.cluster.blocks.values().map(|block| block.cidr);
    blocks.filter(|net| overlaps(net, &pool.cidr) && !room::is_block_of(net, pool)).collect()
}
