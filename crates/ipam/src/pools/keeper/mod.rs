//! One node's part in sharing the pools: what it claims, asks for, lends and gives back.

mod borrow;
mod claim;
mod demand;
mod give_back;
mod lend;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use weft_model::pools::{IpBlock, Labels};
use weft_model::{Cluster, Pod};

use crate::pools::file::{self, File};
use crate::pools::room::Room;
use crate::pools::{Catalogue, file::VERSION};
use demand::Demands;

/// How long something must have been unused before it is given back.
pub const GRACE: Duration = Duration::from_secs(30);
/// How soon a write is sent again whose effect was not seen.
const RESEND: Duration = Duration::from_secs(5);
/// How long a claim is remembered that the view never showed.
const UNSEEN: Duration = Duration::from_secs(30);
/// The most namespaces that the file names though this node has no pod of them.
const NAMESPACES: usize = 1000;

/// What a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The cluster as the API last told it; not as a disk's cache has it.
    pub cluster: &'a Cluster,
    /// The pods of this node.
    pub pods: &'a [Arc<Pod>],
    /// The addresses that this node has given, read under the lock of the allocations.
    pub allocated: &'a BTreeSet<IpAddr>,
    /// Now.
    pub now: Instant,
}

/// What follows. The file must be written under the lock under which `allocated` was read, and before
/// any of the writes is sent.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// What `weft-cni` may give.
    pub file: File,
    /// What the API is to be told.
    pub writes: Vec<Write>,
    /// What is wrong, each in one sentence.
    pub problems: Vec<String>,
    /// Whether it lacks blocks or addresses that others may give back.
    pub waits: bool,
}

/// How a block changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// It is claimed; who comes second is refused.
    Create,
    /// It replaces the version that it has.
    Replace,
    /// The version that it has is removed.
    Delete,
}

/// One write of a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// What to do.
    pub change: Change,
    /// The block as it should be, with the identity and version of what it replaces.
    pub block: IpBlock,
    /// What it is for, in words for the log.
    pub why: String,
}

/// A decision on a block that was not seen done yet.
#[derive(Clone, Debug)]
struct Pending {
    write: Write,
    /// What is not given to pods meanwhile.
    withheld: Vec<IpNet>,
    /// How many addresses it brings.
    gains: usize,
    sent: Option<Instant>,
}

/// A block that was claimed, or was found taken, and is not in the view yet.
#[derive(Clone, Debug)]
struct Claim {
    write: Write,
    since: Instant,
    sent: bool,
    taken: bool,
}

/// What was asked of another node's block.
#[derive(Clone, Copy, Debug)]
struct Asked {
    since: Instant,
    /// How many loans of the block we had.
    loans: usize,
}

/// One node's memory. Call order: [`Keeper::plan`], the writes, and for each of them
/// [`Keeper::handle_sent`]; again whenever the cluster, the pods or the time has moved on.
///
/// What is withheld is in the file too, so that it is not given to pods after the agent was killed with a
/// write under way.
#[derive(Clone, Debug)]
pub struct Keeper {
    node: Arc<str>,
    grace: Duration,
    pending: BTreeMap<Arc<str>, Pending>,
    claims: BTreeMap<Arc<str>, Claim>,
    /// Since when blocks and loans are unused.
    idle: BTreeMap<IpNet, Instant>,
    asked: BTreeMap<Arc<str>, Asked>,
    /// Blocks whose owner had nothing to lend, and until when it is not asked again.
    denied: BTreeMap<Arc<str>, Instant>,
}

/// What the steps of a plan work on.
struct Work<'a> {
    input: Input<'a>,
    catalogue: Catalogue,
    labels: Labels,
    room: Room,
    demands: Demands,
    /// What pods have, by the allocations or by the API.
    taken: BTreeSet<IpAddr>,
    problems: Vec<String>,
}

impl Work<'_> {
    /// The addresses that pods of other nodes have by the API: where somebody deleted their block, they
    /// are still theirs.
    fn foreign(&self, node: &str) -> BTreeSet<IpAddr> {
        let others = self.input.cluster.pods.values();
        let others = others.filter(|pod| pod.node.as_deref() != Some(node) && demand::needs_address(pod));
        others.flat_map(|pod| pod.ips.iter().copied()).collect()
    }
}

impl Keeper {
    /// A node's keeper that knows nothing; what is unused for `grace` is given back.
    pub fn new(node: &str, grace: Duration) -> Keeper {
        Keeper {
            node: node.into(),
            grace,
            pending: BTreeMap::new(),
            claims: BTreeMap::new(),
            idle: BTreeMap::new(),
            asked: BTreeMap::new(),
            denied: BTreeMap::new(),
        }
    }

    /// The same after a restart: with what the file of the run before says was decided.
    pub fn resume(node: &str, grace: Duration, file: &File) -> Keeper {
        let mut keeper = Keeper::new(node, grace);
        for file::Withheld { write, nets } in file.pending.iter().filter(|p| p.write.change != Change::Create)
        {
            let pending = Pending { write: write.clone(), withheld: nets.clone(), gains: 0, sent: None };
            keeper.pending.insert(write.block.name.clone(), pending);
        }
        keeper
    }

    /// What to do now.
    pub fn plan(&mut self, input: Input<'_>) -> Plan {
        self.forget(&input);
        self.note_answers(&input);
        let mut work = self.work(input);
        self.lend(&mut work);
        self.claim_wishes(&mut work);
        let exhausted = self.claim(&mut work);
        self.borrow(&mut work, &exhausted);
        self.give_back(&mut work);
        self.note_pools(&mut work);
        let file = self.file(&work);
        let waits = !exhausted.is_empty();
        Plan { file, writes: self.due(input.now), problems: work.problems, waits }
    }

    /// A write of the last plan was answered: `refused` when the API said that somebody was quicker,
    /// `failed` when it said nothing.
    pub fn handle_sent(&mut self, write: &Write, refused: bool, failed: bool, now: Instant) {
        let name = &write.block.name;
        if write.change == Change::Create {
            if failed {
                self.claims.remove(name);
            } else if let Some(claim) = self.claims.get_mut(name) {
                (claim.sent, claim.taken) = (true, refused);
            }
        } else if let Some(pending) = self.pending.get_mut(name) {
            pending.sent = (!failed).then_some(now);
            if refused {
                // It was not asked: that is no answer.
                self.asked.remove(name);
            }
        }
    }

    /// Drops what the view has decided.
    fn forget(&mut self, input: &Input<'_>) {
        let blocks = &input.cluster.blocks;
        let version = |name: &Arc<str>| blocks.get(name).map(|block| block.version.clone());
        self.pending.retain(|name, pending| version(name).as_ref() == Some(&pending.write.block.version));
        self.claims.retain(|name, claim| {
            !blocks.contains_key(name) && input.now.saturating_duration_since(claim.since) < UNSEEN
        });
        self.denied.retain(|_, until| *until > input.now);
    }

    fn work<'a>(&mut self, input: Input<'a>) -> Work<'a> {
        let catalogue = Catalogue::of(input.cluster);
        let labels = input.cluster.nodes.get(&self.node).map(|node| node.labels.clone()).unwrap_or_default();
        let mine = input.cluster.blocks.values().filter(|block| self.concerns(block));
        let withheld = |block: &IpBlock| {
            self.pending.get(&block.name).map_or(&[][..], |pending| pending.withheld.as_slice())
        };
        let demands = Demands::of(&input, &catalogue, &labels);
        let mut taken = input.allocated.clone();
        taken.extend(demands.kept.keys());
        let room = Room::of(input.cluster, &catalogue, &self.node, mine, withheld);
        let mut problems = catalogue.problems.clone();
        problems.extend(demands.problems.iter().cloned());
        Work { input, catalogue, labels, room, demands, taken, problems }
    }

    /// Writes down with our blocks what their pools say of leaving the cluster: it holds when those are gone.
    fn note_pools(&mut self, work: &mut Work<'_>) {
        for block in work.input.cluster.blocks.values() {
            let pool = work.catalogue.around(&block.cidr).filter(|_| self.owns(block));
            let changed = pool.filter(|pool| pool.nat_outgoing != block.nat_outgoing);
            let Some(pool) = changed.filter(|_| !self.is_decided(block)) else { continue };
            let new = IpBlock { nat_outgoing: pool.nat_outgoing, ..(**block).clone() };
            let why = format!("note natOutgoing of pool {} with block {}", pool.name, block.cidr);
            self.decide(Write { change: Change::Replace, block: new, why }, Vec::new(), 0, &mut work.room);
        }
    }

    /// Whether a block is ours, or lends us something.
    fn concerns(&self, block: &IpBlock) -> bool {
        self.owns(block) || block.borrowed.values().any(|node| *node == self.node)
    }

    fn owns(&self, block: &IpBlock) -> bool {
        block.node.as_ref() == Some(&self.node)
    }

    /// Decides on a block, once until the decision is seen.
    fn decide(&mut self, write: Write, withheld: Vec<IpNet>, gains: usize, room: &mut Room) {
        for net in &withheld {
            room.withhold(&write.block.name, net);
        }
        self.pending.entry(write.block.name.clone()).or_insert(Pending {
            write,
            withheld,
            gains,
            sent: None,
        });
    }

    fn is_decided(&self, block: &IpBlock) -> bool {
        self.pending.contains_key(&block.name)
    }

    /// What is to be sent now: claims once, the rest until it is seen.
    fn due(&self, now: Instant) -> Vec<Write> {
        let claims = self.claims.values().filter(|claim| !claim.sent).map(|claim| claim.write.clone());
        let over = |sent: Option<Instant>| sent.is_none_or(|at| now.saturating_duration_since(at) >= RESEND);
        let rest = self.pending.values().filter(|pending| over(pending.sent));
        claims.chain(rest.map(|pending| pending.write.clone())).collect()
    }

    fn file(&self, work: &Work<'_>) -> File {
        let Work { input, catalogue, labels, room, demands, .. } = work;
        let pools = catalogue.pools().filter(|pool| catalogue.serves(&pool.name, labels));
        let pools = pools.map(|pool| file::Pool { name: pool.name.clone(), cidr: pool.cidr });
        let unaccounted = demands.kept.keys().filter(|ip| !input.allocated.contains(ip));
        let held: BTreeSet<IpAddr> = demands.wished.keys().chain(unaccounted).copied().collect();
        let mut file =
            File { version: VERSION, pools: pools.collect(), spans: room.spans(), ..File::default() };
        file.pending = self
            .pending
            .values()
            .map(|p| file::Withheld { write: p.write.clone(), nets: p.withheld.clone() })
            .collect();
        file.held = held.into_iter().collect();
        let all = input.cluster.namespaces.len() <= NAMESPACES;
        for namespace in input.cluster.namespaces.values() {
            if all || input.pods.iter().any(|pod| pod.namespace == namespace.name) {
                file.note(&namespace.name, catalogue.choice(namespace, labels));
            }
        }
        file
    }
}
