//! Whatever is told in whatever order, peers end up with what the paths say.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use Relation::{External, Internal};

#[derive(Clone, Debug)]
enum Step {
    Announce { from: usize, prefix: u8, med: u8, preference: u8 },
    Withdraw { from: usize, prefix: u8 },
    Fall { from: usize, kept: bool },
    Refresh { from: usize },
    Metric { of: usize, metric: Option<u32> },
    Flush { limit: usize },
    Read { peer: usize },
}

const PEERS: usize = 5;

fn step() -> impl Strategy<Value = Step> {
    let peer = 0..PEERS;
    prop_oneof![
        8 => (peer.clone(), 0..6_u8, 0..3_u8, 0..3_u8)
            .prop_map(|(from, prefix, med, preference)| Step::Announce { from, prefix, med, preference }),
        4 => (peer.clone(), 0..6_u8).prop_map(|(from, prefix)| Step::Withdraw { from, prefix }),
        1 => (peer.clone(), any::<bool>()).prop_map(|(from, kept)| Step::Fall { from, kept }),
        1 => peer.clone().prop_map(|from| Step::Refresh { from }),
        1 => (peer.clone(), any::<Option<u32>>()).prop_map(|(of, metric)| Step::Metric { of, metric }),
        3 => (0..4_usize).prop_map(|limit| Step::Flush { limit }),
        3 => peer.prop_map(|peer| Step::Read { peer }),
    ]
}

fn prefix(number: u8) -> String {
    format!("10.{number}.0.0/16")
}

fn relation(peer: usize) -> Relation {
    if peer == PEERS - 1 { External } else { Internal }
}

/// Two clients, one that takes several paths, one that is no client, one outside.
fn world() -> World {
    let mut world = World::new();
    for peer in 0..PEERS {
        world.peer(relation(peer), |config, terms| {
            config.client = peer < 3;
            terms.add_path_out.ipv4 = peer == 2;
        });
    }
    world
}

fn apply(world: &mut World, step: &Step) {
    match *step {
        Step::Announce { from, prefix: number, med, preference } => {
            let mut attributes = route(from as u8 + 1, relation(from));
            attributes.med = Some(med.into());
            if relation(from) == Internal {
                attributes.local_pref = Some(100 + u32::from(preference));
            }
            world.announce(from, &prefix(number), &attributes);
        }
        Step::Withdraw { from, prefix: number } => world.withdraw(from, &prefix(number), 0),
        Step::Fall { from, kept } => {
            let (id, terms) = (world.peers[from].id, world.peers[from].terms.clone());
            world.rib.down(id, PerFamily::from_fn(|_| kept));
            world.rib.up(id, &terms);
            world.peers[from].routes.clear();
        }
        Step::Refresh { from } => {
            let id = world.peers[from].id;
            world.rib.handle_refresh(id, Family::Ipv4, RefreshKind::Request);
        }
        Step::Metric { of, metric } => {
            world.rib.set_metric([10, 0, 0, of as u8 + 1].into(), metric.filter(|metric| metric % 2 == 0));
        }
        Step::Flush { limit } => {
            world.rib.flush(limit);
        }
        Step::Read { peer } => {
            world.read_one(peer);
        }
    }
}

/// What a peer has that is told nothing before everything is over.
fn afresh(world: &mut World, peer: usize) -> BTreeMap<Nlri, Attributes> {
    let (id, terms) = (world.peers[peer].id, world.peers[peer].terms.clone());
    let old = std::mem::take(&mut world.peers[peer].routes);
    world.rib.groups.iter_mut().flatten().for_each(|group| group.leave(id));
    world.rib.up(id, &terms);
    world.read(peer);
    std::mem::replace(&mut world.peers[peer].routes, old)
}

proptest! {
    #[test]
    fn history_does_not_matter(steps in vec(step(), 0..80)) {
        let mut world = world();
        steps.iter().for_each(|step| apply(&mut world, step));
        world.drain();
        for peer in 0..PEERS {
            prop_assert_eq!(&world.peers[peer].routes.clone(), &afresh(&mut world, peer), "peer {}", peer);
        }
        let all: Vec<IpNet> = world.rib.routes().map(|(prefix, _)| *prefix).collect();
        for prefix in all {
            let verdicts = world.rib.explain(&prefix);
            let best = verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Best).count();
            let reachable = verdicts.iter().any(|(_, verdict)| *verdict != Verdict::Lost(crate::rib::Step::NextHop));
            prop_assert_eq!(best, usize::from(reachable));
        }
        // And nothing is left when everybody is gone.
        for peer in 0..PEERS {
            let id = world.peers[peer].id;
            prop_assert!(world.rib.counters(id).paths.ipv4 <= 6);
            world.rib.remove_peer(id);
        }
        while world.rib.flush(usize::MAX).more {}
        prop_assert!(world.rib.is_empty() && world.rib.groups.iter().flatten().count() == 0);
    }
}
