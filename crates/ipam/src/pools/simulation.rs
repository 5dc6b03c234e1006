//! Nodes that race for blocks over an API that compares versions, with views that lag, answers that are
//! lost and agents that are killed: no address is given twice, and every pod gets one in the end.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use imbl::OrdMap;
use proptest::prelude::*;
use weft_model::pools::{IpBlock, IpPool, Namespace, Wish};
use weft_model::{Cluster, Node, Pod};

use super::catalogue::tests::{cluster, pool};
use super::choose::{Request, choose};
use super::file::File;
use super::keeper::GRACE;
use super::{Change, Input, Keeper, Write};

type Blocks = OrdMap<Arc<str>, Arc<IpBlock>>;

/// The API: every state of the blocks that there was.
struct Api {
    history: Vec<Blocks>,
}

impl Api {
    fn now(&self) -> &Blocks {
        self.history.last().unwrap()
    }

    /// Whether the write was accepted.
    fn apply(&mut self, write: &Write) -> bool {
        let mut blocks = self.now().clone();
        let name = &write.block.name;
        let fits = blocks.get(name).is_some_and(|b| b.version == write.block.version);
        let block = IpBlock { version: self.history.len().to_string().into(), ..write.block.clone() };
        match write.change {
            Change::Create if !blocks.contains_key(name) => _ = blocks.insert(name.clone(), Arc::new(block)),
            Change::Replace if fits => _ = blocks.insert(name.clone(), Arc::new(block)),
            Change::Delete if fits => _ = blocks.remove(name),
            _ => return false,
        }
        self.history.push(blocks);
        true
    }
}

struct Agent {
    name: String,
    keeper: Keeper,
    /// Which state of the API it has seen.
    seen: usize,
    file: File,
    flight: VecDeque<Write>,
    pods: Vec<Arc<Pod>>,
    allocated: BTreeSet<IpAddr>,
}

struct World {
    api: Api,
    base: Cluster,
    agents: Vec<Agent>,
    now: Instant,
    pods: usize,
}

impl World {
    fn new(nodes: usize, pools: Vec<IpPool>) -> World {
        let mut base = cluster(pools);
        let name = |i: usize| format!("node{i}");
        for i in 0..nodes {
            let node = Node { name: name(i).into(), ..Node::default() };
            base.nodes.insert(node.name.clone(), Arc::new(node));
        }
        let namespace = Namespace { name: "default".into(), ..Namespace::default() };
        base.namespaces.insert("default".into(), Arc::new(namespace));
        let agent = |i| Agent {
            name: name(i),
            keeper: Keeper::new(&name(i), GRACE),
            seen: 0,
            file: File::default(),
            flight: VecDeque::new(),
            pods: Vec::new(),
            allocated: BTreeSet::new(),
        };
        let api = Api { history: vec![Blocks::new()] };
        World { api, base, agents: (0..nodes).map(agent).collect(), now: Instant::now(), pods: 0 }
    }

    fn plan(&mut self, i: usize) {
        let pods = self.agents.iter().flat_map(|agent| &agent.pods).map(|pod| (pod.key(), pod.clone()));
        let pods = pods.collect();
        let agent = &mut self.agents[i];
        let cluster = Cluster { pods, blocks: self.api.history[agent.seen].clone(), ..self.base.clone() };
        let input =
            Input { cluster: &cluster, pods: &agent.pods, allocated: &agent.allocated, now: self.now };
        let plan = agent.keeper.plan(input);
        agent.file = File::parse(&plan.file.text()).unwrap();
        for write in plan.writes {
            // As after a send, whatever becomes of it.
            agent.keeper.handle_sent(&write, false, false, self.now);
            agent.flight.push_back(write);
        }
    }

    fn see(&mut self, i: usize, far: usize) {
        self.agents[i].seen = (self.agents[i].seen + far).min(self.api.history.len() - 1);
    }

    /// A write arrives, in any order; its answer may be lost.
    fn deliver(&mut self, i: usize, at: usize, lost: bool) {
        let now = self.now;
        let agent = &mut self.agents[i];
        if agent.flight.is_empty() {
            return;
        }
        let at = at % agent.flight.len();
        let Some(write) = agent.flight.remove(at) else { return };
        let done = self.api.apply(&write);
        let agent = &mut self.agents[i];
        agent.keeper.handle_sent(&write, !done, lost, now);
    }

    fn add_pod(&mut self, i: usize, wish: Option<IpAddr>) {
        self.pods += 1;
        let name = format!("p{}", self.pods);
        let wish = wish.map(|ip| Box::new(Wish { ips: vec![ip], pools: vec![] }));
        let node = Some(self.agents[i].name.as_str().into());
        let pod =
            Pod { namespace: "default".into(), name: name.as_str().into(), node, wish, ..Pod::default() };
        self.agents[i].pods.push(Arc::new(pod));
    }

    /// What `weft-cni` does for each pod that has no address yet.
    fn add_all(&mut self, i: usize) {
        for p in 0..self.agents[i].pods.len() {
            let agent = &self.agents[i];
            let pod = &agent.pods[p];
            if !pod.ips.is_empty() || agent.file.version == 0 {
                continue;
            }
            let wish = pod.wish.as_deref().cloned().unwrap_or_default();
            let request = Request { namespace: "default".into(), wish };
            let taken: HashSet<IpAddr> = agent.allocated.iter().copied().collect();
            let Ok(given) = choose(&agent.file, &request, &taken, [None; 2]) else { continue };
            for assignment in given {
                let ip = assignment.address.addr();
                let other = self.agents.iter().find(|agent| agent.allocated.contains(&ip));
                assert!(other.is_none(), "{ip} given to {} has {}", other.unwrap().name, self.agents[i].name);
                self.agents[i].allocated.insert(ip);
                Arc::make_mut(&mut self.agents[i].pods[p]).ips.push(ip);
            }
        }
    }

    fn del_pod(&mut self, i: usize, at: usize) {
        let agent = &mut self.agents[i];
        if agent.pods.is_empty() {
            return;
        }
        let pod = agent.pods.remove(at % agent.pods.len());
        pod.ips.iter().for_each(|ip| _ = agent.allocated.remove(ip));
    }

    fn kill(&mut self, i: usize) {
        let agent = &mut self.agents[i];
        agent.keeper = Keeper::resume(&agent.name, GRACE, &agent.file);
        agent.seen = self.api.history.len() - 1;
    }

    /// Goes on without faults until all is quiet.
    fn settle(&mut self) {
        for _ in 0..60 {
            for i in 0..self.agents.len() {
                self.see(i, usize::MAX / 2);
                self.plan(i);
                while !self.agents[i].flight.is_empty() {
                    self.deliver(i, 0, false);
                }
                self.add_all(i);
            }
            self.now += Duration::from_secs(6);
        }
    }

    fn waiting(&self) -> usize {
        self.agents.iter().flat_map(|agent| &agent.pods).filter(|pod| pod.ips.is_empty()).count()
    }

    /// Whether every block is one node's and every allocation is in one of its node's, or lent to it.
    fn check_blocks(&self) {
        for agent in &self.agents {
            for ip in &agent.allocated {
                let block = self.api.now().values().find(|block| block.cidr.contains(ip)).unwrap();
                let holder = block.borrowed.get(ip).or(block.node.as_ref()).unwrap();
                assert_eq!(**holder, *agent.name, "{ip} of {}", block.name);
            }
        }
    }
}

#[test]
fn a_hundred_nodes_race_for_as_many_blocks() {
    let mut world = World::new(100, vec![pool("p", "10.1.0.0/25", 32 - 6)]);
    // Two blocks for a hundred nodes, then enough.
    world.settle();
    assert_eq!(world.api.now().len(), 2);
    let mut world = World::new(100, vec![pool("p", "10.1.0.0/22", 29), pool("six", "fd00::/116", 125)]);
    for i in 0..100 {
        world.plan(i);
    }
    let mut refused = 0;
    for round in 0.. {
        let mut sent = 0;
        for i in 0..100 {
            sent += world.agents[i].flight.len();
            while !world.agents[i].flight.is_empty() {
                let before = world.api.history.len();
                world.deliver(i, 0, false);
                refused += usize::from(world.api.history.len() == before);
            }
        }
        if sent == 0 {
            break;
        }
        assert!(round < 100);
        for i in 0..100 {
            world.see(i, usize::MAX / 2);
            world.plan(i);
        }
    }
    let owned = |cidr: &str| {
        let net: ipnet::IpNet = cidr.parse().unwrap();
        let blocks = world.api.now().values().filter(|block| net.contains(&block.cidr));
        blocks.filter_map(|block| block.node.clone()).collect::<BTreeSet<_>>().len()
    };
    assert_eq!((owned("10.1.0.0/22"), owned("fd00::/116")), (100, 100));
    assert!(refused < 200, "{refused}");
}

#[test]
fn a_pool_that_is_used_up_is_shared_and_comes_back() {
    let mut world = World::new(3, vec![pool("p", "10.1.0.0/28", 30)]);
    for _ in 0..12 {
        world.add_pod(0, None);
    }
    world.settle();
    assert_eq!((world.waiting(), world.agents[0].allocated.len()), (0, 12), "all addresses of the pool");
    world.check_blocks();
    world.add_pod(1, None);
    world.settle();
    assert_eq!(world.waiting(), 1);
    world.del_pod(0, 3);
    world.settle();
    assert_eq!(world.waiting(), 0, "the one that became free is lent");
    world.check_blocks();
    while !world.agents[0].pods.is_empty() {
        world.del_pod(0, 0);
    }
    world.del_pod(1, 0);
    world.settle();
    assert!(world.api.now().values().all(|block| block.borrowed.is_empty()), "{:#?}", world.api.now());
    assert_eq!(world.api.now().len(), 3, "one block each is kept");
}

#[test]
fn an_owner_that_lent_everything_has_it_back_when_it_is_unused() {
    let mut world = World::new(2, vec![pool("p", "10.1.0.0/29", 30)]);
    world.settle();
    for _ in 0..6 {
        world.add_pod(0, None);
    }
    world.settle();
    assert_eq!((world.waiting(), world.agents[0].allocated.len()), (0, 6), "three of them lent");
    world.add_pod(1, None);
    world.settle();
    assert_eq!(world.waiting(), 1, "nothing is free in its own block");
    world.check_blocks();
    world.del_pod(0, 5);
    world.settle();
    assert_eq!(world.waiting(), 0);
    world.check_blocks();
}

#[test]
fn a_pod_gets_the_address_that_it_asks_for_wherever_its_block_is() {
    let mut world = World::new(3, vec![pool("p", "10.1.0.0/25", 28)]);
    world.settle();
    let own = |world: &World, i: usize| {
        let name = world.agents[i].name.clone();
        world.api.now().values().find(|block| block.node.as_deref() == Some(&name)).unwrap().cidr
    };
    let free = super::walk::blocks(&world.base.pools["p"], "x")
        .find(|net| !world.api.now().values().any(|block| block.cidr == *net))
        .unwrap();
    let nth = |net: ipnet::IpNet, n: usize| net.hosts().nth(n).unwrap();
    let wishes = [nth(own(&world, 0), 5), nth(own(&world, 1), 5), nth(free, 5)];
    for ip in wishes {
        world.add_pod(0, Some(ip));
    }
    for _ in 0..5 {
        world.add_pod(0, None);
    }
    world.settle();
    assert_eq!(world.waiting(), 0);
    for (pod, ip) in world.agents[0].pods.iter().zip(wishes) {
        assert_eq!(pod.ips, [ip]);
    }
    world.check_blocks();
}

#[test]
fn who_was_denied_an_address_does_not_ask_again_at_once() {
    let mut world = World::new(2, vec![pool("p", "10.1.0.0/25", 28)]);
    world.add_pod(1, None);
    world.settle();
    world.add_pod(0, Some(world.agents[1].pods[0].ips[0]));
    let before = world.api.history.len();
    for i in (0..2).cycle().take(40) {
        world.see(i, usize::MAX / 2);
        world.plan(i);
        while !world.agents[i].flight.is_empty() {
            world.deliver(i, 0, false);
        }
    }
    assert_eq!(world.api.history.len() - before, 2, "a question and its answer");
}

#[test]
fn a_disabled_pool_gives_no_more_and_its_blocks_come_back() {
    let mut world = World::new(2, vec![pool("p", "10.1.0.0/24", 26)]);
    world.add_pod(0, None);
    world.settle();
    assert_eq!(world.api.now().len(), 2);
    let mut off = (**world.base.pools.get("p").unwrap()).clone();
    off.disabled = true;
    world.base.pools.insert("p".into(), Arc::new(off));
    world.add_pod(0, None);
    world.settle();
    assert_eq!(world.waiting(), 1);
    assert_eq!(world.api.now().len(), 1, "the block that is in use stays");
    world.base.pools.remove("p");
    world.settle();
    assert_eq!(world.agents[0].allocated.len(), 1, "so it does when the pool is deleted");
    assert_eq!(world.api.now().len(), 1);
    world.del_pod(0, 0);
    world.settle();
    assert!(world.api.now().is_empty());
}

#[test]
fn a_block_that_somebody_deleted_is_claimed_again_by_who_uses_it() {
    let mut world = World::new(2, vec![pool("p", "10.1.0.0/24", 26)]);
    world.add_pod(0, None);
    world.settle();
    // The other node needs blocks at the same moment, and all there are.
    for _ in 0..150 {
        world.add_pod(1, None);
    }
    world.api.history.push(Blocks::new());
    world.settle();
    assert_eq!(world.waiting(), 0);
    world.check_blocks();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn no_address_is_given_twice_whatever_the_order(
        nodes in 2usize..6,
        steps in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>()), 50..400),
    ) {
        // 4 blocks of 3 addresses.
        let mut world = World::new(nodes, vec![pool("p", "10.1.0.0/28", 30)]);
        for (what, who, how) in steps {
            let (i, how) = (usize::from(who) % nodes, usize::from(how));
            match what % 16 {
                0..=2 => world.see(i, 1 + how % 4),
                3..=6 => world.plan(i),
                7..=9 => world.deliver(i, how, how % 5 == 0),
                10 if world.pods < 40 => {
                    let wish = (how % 4 == 0).then(|| IpAddr::from([10, 1, 0, (how % 16) as u8]));
                    world.add_pod(i, wish);
                }
                11 | 12 => world.add_all(i),
                13 => world.del_pod(i, how),
                14 if how % 3 == 0 => world.kill(i),
                _ => world.now += Duration::from_secs(how as u64 % 40),
            }
        }
        world.settle();
        world.check_blocks();
    }
}
