//! A segment of nodes in simulated time, whose beats are late or lost, which crash, restart, are cut off and
//! see the API's changes one after the other: in the end each address has one owner, a crash is made
//! good within a second, and without a cause nothing moves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use crate::election::{LISTEN, RESTART, SILENCE};
use crate::{Action, Beat, Election};

const TICK: Duration = Duration::from_millis(10);
const NODES: usize = 4;

#[derive(Clone, Debug)]
enum Event {
    /// The agent ends without a word, and nothing answers any more.
    Crash(usize),
    /// The agent is there again, or for the first time.
    Start(usize),
    /// The agent says that it restarts, and ends.
    Restart(usize),
    /// The link has no carrier, or has it again.
    Link(usize, bool),
    /// Only the nodes of one side hear one another.
    Partition(u8),
    /// A node sees that another may have addresses, or may not.
    See { node: usize, of: usize, may: bool },
    /// The API says it, and all who reach that see it.
    AllSee { of: usize, may: bool },
    /// The API has this node, or has it no more.
    Known { of: usize, is: bool },
    /// A node reaches the API, or does not.
    Reach { node: usize, api: bool },
    /// Time passes.
    Pass(u64),
}

struct Node {
    election: Option<Election>,
    linked: bool,
    /// What it knows: all of it, as the API said it last.
    view: View,
    reaches: bool,
}

#[derive(Clone)]
struct View {
    /// Which nodes may have addresses.
    may: BTreeSet<usize>,
    known: BTreeSet<usize>,
}

struct World {
    now: Duration,
    nodes: Vec<Node>,
    api: View,
    addresses: Vec<IpAddr>,
    /// When, to whom, what.
    flight: Vec<(Duration, usize, Beat)>,
    partition: u8,
    /// Which beats are lost and how late the others are: each is a number of this list.
    luck: Vec<u8>,
    drawn: usize,
    /// Below this number a beat is lost.
    loss: u8,
    /// How many beats in a row each node missed of each other.
    missed: BTreeMap<(usize, usize), u32>,
    runs: u64,
    takes: usize,
    withdraws: usize,
}

fn set(of: &mut BTreeSet<usize>, one: usize, is: bool) {
    match is {
        true => of.insert(one),
        false => of.remove(&one),
    };
}

fn name(node: usize) -> Arc<str> {
    format!("node{}", node + 1).into()
}

impl World {
    fn new(addresses: usize, luck: Vec<u8>, loss: u8) -> World {
        let api = View { may: (0..NODES).collect(), known: (0..NODES).collect() };
        let node = |_| Node { election: None, linked: true, view: api.clone(), reaches: true };
        World {
            now: Duration::from_secs(1),
            nodes: (0..NODES).map(node).collect(),
            api: api.clone(),
            addresses: (0..addresses).map(|i| IpAddr::from([10, 0, 0, 200 + i as u8])).collect(),
            flight: Vec::new(),
            partition: 0,
            luck,
            drawn: 0,
            loss,
            missed: BTreeMap::new(),
            runs: 0,
            takes: 0,
            withdraws: 0,
        }
    }

    fn up(addresses: usize, luck: Vec<u8>, loss: u8) -> World {
        let mut world = World::new(addresses, luck, loss);
        (0..NODES).for_each(|i| world.happen(&Event::Start(i)));
        world.pass(LISTEN + SILENCE * NODES as u32 + SILENCE);
        world
    }

    fn draw(&mut self) -> u8 {
        self.drawn += 1;
        self.luck[self.drawn % self.luck.len()]
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Crash(i) => self.nodes[i].election = None,
            Event::Start(i) => {
                self.runs += 1;
                let mut election = Election::new(name(i), self.runs);
                election.set_able(self.nodes[i].linked, self.now);
                self.nodes[i].election.get_or_insert(election);
                self.view(i);
            }
            Event::Restart(i) => {
                let Some(election) = self.nodes[i].election.take() else { return };
                // Said twice, as the agent does.
                election.restarts().into_iter().for_each(|beat| {
                    self.send(i, &beat);
                    self.send(i, &beat);
                });
            }
            Event::Link(i, up) => {
                self.nodes[i].linked = up;
                let now = self.now;
                if let Some(election) = &mut self.nodes[i].election {
                    election.set_able(up, now);
                }
            }
            Event::Partition(sides) => self.partition = sides,
            Event::See { node, of, may } => self.see(node, of, may),
            Event::AllSee { of, may } => {
                set(&mut self.api.may, of, may);
                self.told();
            }
            Event::Known { of, is } => {
                set(&mut self.api.known, of, is);
                self.told();
            }
            Event::Reach { node, api } => {
                self.nodes[node].reaches = api;
                self.told();
                self.view(node);
            }
            Event::Pass(ms) => self.pass(Duration::from_millis(ms)),
        }
    }

    fn see(&mut self, node: usize, of: usize, may: bool) {
        set(&mut self.nodes[node].view.may, of, may);
        self.view(node);
    }

    /// The API tells all who reach it.
    fn told(&mut self) {
        for i in (0..NODES).filter(|i| self.nodes[*i].reaches).collect::<Vec<_>>() {
            self.nodes[i].view = self.api.clone();
            self.view(i);
        }
    }

    fn view(&mut self, i: usize) {
        let Node { election, view, reaches, .. } = &mut self.nodes[i];
        let candidates: BTreeSet<Arc<str>> = view.may.intersection(&view.known).map(|n| name(*n)).collect();
        let wanted = self.addresses.iter().map(|address| (*address, candidates.clone())).collect();
        if let Some(election) = election {
            election.set_wanted(wanted);
            election.set_current(*reaches);
            let known: BTreeSet<Arc<str>> = view.known.iter().map(|n| name(*n)).collect();
            election.retain_nodes(|node| known.contains(node), self.now);
        }
    }

    fn joined(&self, a: usize, b: usize) -> bool {
        let side = |i: usize| self.partition >> i & 1;
        self.nodes[a].linked && self.nodes[b].linked && side(a) == side(b)
    }

    fn send(&mut self, from: usize, beat: &Beat) {
        for to in (0..NODES).filter(|to| *to != from) {
            if !self.joined(from, to) {
                continue;
            }
            let (lost, late) = (self.draw() < self.loss, self.draw() % 4);
            let missed = self.missed.entry((from, to)).or_default();
            // Two in a row may be lost; three are what silence is.
            *missed = if lost && *missed < 2 { *missed + 1 } else { 0 };
            if *missed == 0 {
                for payload in beat.encode() {
                    let heard = Beat::decode(&payload).unwrap();
                    self.flight.push((self.now + TICK * u32::from(late), to, heard));
                }
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += TICK;
            let due = |one: &(Duration, usize, Beat)| one.0 <= self.now;
            let (arrived, flight): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.flight).into_iter().partition(due);
            self.flight = flight;
            for (_, to, beat) in arrived {
                let node = &mut self.nodes[to];
                if let Some(election) = node.election.as_mut().filter(|_| node.linked) {
                    let known = node.view.known.iter().any(|n| name(*n) == beat.node);
                    if known {
                        election.hear(&beat, self.now);
                    } else {
                        for address in election.hear_unknown(&beat, self.now) {
                            election.contested(address, self.now);
                        }
                    }
                }
            }
            for i in 0..NODES {
                let Some(election) = &mut self.nodes[i].election else { continue };
                for action in election.poll(self.now) {
                    match action {
                        Action::Say(beat) => self.send(i, &beat),
                        Action::Take(_) => self.takes += 1,
                        Action::Withdraw(_) => self.withdraws += 1,
                        Action::Announce(_) => {}
                    }
                }
            }
        }
    }

    fn owners(&self, address: IpAddr) -> Vec<usize> {
        let has = |i: &usize| {
            let node = &self.nodes[*i];
            node.linked && node.election.as_ref().is_some_and(|election| election.has(address))
        };
        (0..NODES).filter(has).collect()
    }

    /// Each address has one owner, where somebody may have it.
    fn assert_settled(&self) {
        let able = |i: &usize| {
            let node = &self.nodes[*i];
            node.linked && node.election.is_some() && node.view.may.contains(i) && node.view.known.contains(i)
        };
        let able = (0..NODES).filter(able).count();
        for address in &self.addresses {
            let owners = self.owners(*address);
            assert_eq!(owners.len(), usize::from(able > 0), "{address}: {owners:?} of {able}");
            for node in &self.nodes {
                let Some(election) = node.election.as_ref().filter(|_| node.linked) else { continue };
                let told = election.owner(*address).map(|owner| owner.node);
                let believed = |owner: &&usize| !node.reaches || node.view.known.contains(owner);
                assert_eq!(told, owners.first().filter(believed).map(|i| name(*i)), "everybody knows");
            }
        }
    }
}

/// After this nobody waits for anything any more.
const SETTLED: Duration = Duration::from_secs(RESTART.as_secs() + 7);

fn event() -> impl Strategy<Value = Event> {
    let node = || 0..NODES;
    prop_oneof![
        node().prop_map(Event::Crash),
        node().prop_map(Event::Start),
        node().prop_map(Event::Restart),
        (node(), any::<bool>()).prop_map(|(i, up)| Event::Link(i, up)),
        (0u8..1 << NODES).prop_map(Event::Partition),
        (node(), node(), any::<bool>()).prop_map(|(node, of, may)| Event::See { node, of, may }),
        (node(), any::<bool>()).prop_map(|(of, may)| Event::AllSee { of, may }),
        (node(), any::<bool>()).prop_map(|(of, is)| Event::Known { of, is }),
        (node(), any::<bool>()).prop_map(|(node, api)| Event::Reach { node, api }),
        (1u64..3000).prop_map(Event::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn whatever_happened_each_address_has_one_owner_in_the_end(
        events in proptest::collection::vec(event(), 0..40),
        luck in proptest::collection::vec(any::<u8>(), 64),
        may in proptest::collection::vec(any::<bool>(), NODES),
    ) {
        let mut world = World::up(3, luck, 40);
        events.iter().for_each(|event| world.happen(event));
        // The segment is whole and the API has told everybody who reaches it the same.
        world.happen(&Event::Partition(0));
        for (of, may) in may.iter().enumerate() {
            world.happen(&Event::AllSee { of, may: *may });
        }
        world.pass(SETTLED);
        world.assert_settled();
        let before = (world.takes, world.withdraws);
        world.pass(Duration::from_secs(20));
        world.assert_settled();
        prop_assert_eq!((world.takes, world.withdraws), before, "nothing moves without a cause");
    }

    #[test]
    fn a_crash_is_made_good_within_a_second(
        luck in proptest::collection::vec(any::<u8>(), 64),
        wait in 0u64..400,
        link in any::<bool>(),
    ) {
        let mut world = World::up(3, luck, 0);
        world.assert_settled();
        world.pass(Duration::from_millis(wait));
        // One after the other, until one is left.
        for _ in 1..NODES {
            let address = world.addresses[0];
            let owner = world.owners(address)[0];
            world.happen(&if link { Event::Link(owner, false) } else { Event::Crash(owner) });
            world.pass(Duration::from_millis(750));
            prop_assert_eq!(world.owners(address).len(), 1);
            world.pass(Duration::from_secs(3));
            world.assert_settled();
        }
    }

    #[test]
    fn who_lets_go_is_followed_at_once(luck in proptest::collection::vec(any::<u8>(), 64)) {
        let mut world = World::up(3, luck, 0);
        let owner = world.owners(world.addresses[0])[0];
        world.happen(&Event::AllSee { of: owner, may: false });
        world.pass(Duration::from_millis(200));
        world.assert_settled();
    }

    #[test]
    fn a_restart_moves_nothing(luck in proptest::collection::vec(any::<u8>(), 64), away in 1u64..6000) {
        let mut world = World::up(3, luck, 0);
        let address = world.addresses[0];
        let owner = world.owners(address)[0];
        let others = (world.takes, world.withdraws);
        let had = world.addresses.iter().filter(|a| world.owners(**a) == [owner]).count();
        world.happen(&Event::Restart(owner));
        world.pass(Duration::from_millis(away));
        prop_assert!(world.owners(address).is_empty(), "all wait");
        world.happen(&Event::Start(owner));
        world.pass(LISTEN + SILENCE * NODES as u32);
        world.assert_settled();
        prop_assert_eq!(world.owners(address), [owner]);
        prop_assert_eq!((world.takes, world.withdraws), (others.0 + had, others.1), "only it took its own again");
    }
}

/// Who is no node any more has what it had, whether it knows or not, for less than a second, and the next takes
/// it at once; without the API nothing moves.
#[test]
fn who_is_no_node_any_more_is_followed_though_it_does_not_know() {
    for (reaches, luck) in [(true, 0), (false, 0), (false, 90), (false, 200)] {
        let mut world = World::up(1, vec![luck, 1, 255, 7], luck);
        let address = world.addresses[0];
        let owner = world.owners(address)[0];
        let moved = world.takes;
        world.happen(&Event::Reach { node: owner, api: reaches });
        world.pass(Duration::from_secs(5));
        assert_eq!(
            (world.owners(address), world.takes),
            (vec![owner], moved),
            "that it is cut off moves nothing"
        );
        world.happen(&Event::Known { of: owner, is: false });
        world.pass(Duration::from_millis(50));
        let new = *world.owners(address).iter().find(|new| **new != owner).expect("taken at once");
        world.pass(Duration::from_millis(if reaches { 0 } else { 1950 }));
        assert_eq!(world.owners(address), [new]);
        world.pass(Duration::from_secs(20));
        assert_eq!((world.owners(address), world.takes), (vec![new], moved + 1), "and so it stays");
        world.assert_settled();
        // It is a node again.
        world.happen(&Event::Known { of: owner, is: true });
        world.happen(&Event::Reach { node: owner, api: true });
        world.pass(Duration::from_secs(5));
        assert_eq!(world.owners(address), [owner]);
    }
}

#[test]
fn who_goes_before_takes_back_what_it_lost_and_nobody_has_it_twice_for_long() {
    let mut world = World::up(1, vec![0], 0);
    let address = world.addresses[0];
    let first = world.owners(address)[0];
    world.happen(&Event::Crash(first));
    world.pass(Duration::from_secs(2));
    let second = world.owners(address)[0];
    assert_ne!(second, first);
    world.happen(&Event::Start(first));
    let mut both = 0;
    for _ in 0..200 {
        world.pass(TICK);
        both += usize::from(world.owners(address).len() > 1);
    }
    assert_eq!(world.owners(address), [first]);
    // As long as a beat is on its way.
    assert!(both <= 4, "{both} ticks");
}
