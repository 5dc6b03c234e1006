//! The change of a running cluster from one backend to another: which step comes next.
//!
//! Both backends are in force from the first step to the last. Every node first makes what it
//! needs to receive by both, then one node after the other sends by the new one, and only then
//! is the old one taken away. Each step is a function of what the API says, so that whoever was
//! interrupted goes on from there.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_model::network::{Backend, Migration, Network, Participation};

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The cluster has the backend and no migration is under way.
    Done,
    /// Write this network: the next step of the migration.
    Write {
        /// The network as it is to be.
        network: Box<Network>,
        /// The node that it moves, if any.
        moves: Option<Arc<str>>,
    },
    /// A node has not done yet what was written.
    Wait {
        /// The node.
        node: Arc<str>,
        /// What it has to do.
        until: String,
    },
    /// It cannot be finished like that.
    Refuse(String),
}

/// How many nodes are there, can receive by both backends, and send by the new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Those that can receive by the new backend.
    pub ready: usize,
    /// Those that send by it.
    pub moved: usize,
}

/// The next step towards `to`. `nodes` has every node of the cluster, with what its agent tells.
pub fn next(network: &Network, nodes: &BTreeMap<Arc<str>, Participation>, to: Backend) -> Step {
    let write = |network: Network, moves| Step::Write { network: Box::new(network), moves };
    let migrating = |migration| Network { migration, ..network.clone() };
    if network.backend != to && [network.backend, to].contains(&Backend::BGP) {
        // Its pods have no bridge, and its routes are not the fabric's: the two are not in force at once.
        return Step::Refuse(format!("a running cluster does not change from {} to {to}", network.backend));
    }
    let Some(migration) = &network.migration else {
        let start = Migration { to, nodes: Default::default() };
        if network.backend != to {
            return write(migrating(Some(start)), None);
        }
        // A node that has not heard of the end tells what it could receive before.
        return nodes.iter().find_map(|(name, node)| following(name, node, to)).unwrap_or(Step::Done);
    };
    let back = network.backend == to && migration.to != to;
    if !back && migration.to != to {
        let (from, other) = (network.backend, migration.to);
        return Step::Refuse(format!(
            "a migration from {from} to {other} is under way: finish it (--to {other}) or take it back (--to {from})"
        ));
    }
    let known = Some(migration.to);
    if let Some(wait) = nodes.iter().find_map(|(name, node)| preparing(name, node, known, to)) {
        return wait;
    }
    let sends = |name: &Arc<str>| if migration.nodes.contains(name) { migration.to } else { network.backend };
    let moving = nodes.iter().find(|(name, node)| node.backend != Some(sends(name)));
    if let Some((name, _)) = moving {
        return Step::Wait { node: name.clone(), until: format!("sends by {}", sends(name)) };
    }
    let stuck = nodes.iter().find_map(|(name, node)| Some((name, node.fallback.iter().next()?)));
    if let Some((name, (peer, reason))) = stuck.filter(|_| !back) {
        return Step::Refuse(format!("{name} cannot reach {peer} by {to}: {reason}"));
    }
    let next = nodes.keys().find(|name| sends(name) != to);
    match next {
        Some(name) => {
            let mut moved = migration.nodes.clone();
            if back {
                moved.remove(name)
            } else {
                moved.insert(name.clone())
            };
            write(migrating(Some(Migration { nodes: moved, ..migration.clone() })), Some(name.clone()))
        }
        None => write(Network { backend: to, ..migrating(None) }, None),
    }
}

/// What a node has to do that does not send by `to` with the migration over.
fn following(name: &Arc<str>, node: &Participation, to: Backend) -> Option<Step> {
    let wait = |until: String| Some(Step::Wait { node: name.clone(), until });
    match node.migrating {
        Some(_) => wait("has seen the end of the migration".into()),
        None if node.backend != Some(to) => wait(format!("sends by {to}")),
        None => None,
    }
}

/// What a node has to do before anybody sends to it by `to`. What it told before it knew of this
/// migration does not count: it may have taken a tunnel away since.
fn preparing(name: &Arc<str>, node: &Participation, known: Option<Backend>, to: Backend) -> Option<Step> {
    let wait = |until: String| Some(Step::Wait { node: name.clone(), until });
    match to.tunnel {
        _ if node.migrating != known => wait("has seen the migration".into()),
        Some(tunnel) if !node.receives.contains(&tunnel) => wait(format!("can receive by {to}")),
        _ if node.backend.is_none() => wait("has programmed its network (does its agent run?)".into()),
        _ => None,
    }
}

/// How far the way to `to` is.
pub fn standing(nodes: &BTreeMap<Arc<str>, Participation>, to: Backend) -> Standing {
    let ready = |node: &&Participation| to.tunnel.is_none_or(|tunnel| node.receives.contains(&tunnel));
    Standing {
        nodes: nodes.len(),
        ready: nodes.values().filter(ready).count(),
        moved: nodes.values().filter(|node| node.backend == Some(to)).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes that do at once what is written.
    fn obedient(network: &Network, names: &[&str]) -> BTreeMap<Arc<str>, Participation> {
        let node = |name: &&str| {
            let backend = network.backends(name).next();
            let migrating = network.migration.as_ref().map(|migration| migration.to);
            let receives = network.tunnels();
            (Arc::from(*name), Participation { backend, migrating, receives, ..Default::default() })
        };
        names.iter().map(node).collect()
    }

    fn walk(mut network: Network, to: Backend, mut look: impl FnMut(&Network)) -> Network {
        for _ in 0..20 {
            match next(&network, &obedient(&network, &["a", "b", "c"]), to) {
                Step::Write { network: new, .. } => network = *new,
                Step::Done => return network,
                other => panic!("{other:?}"),
            }
            look(&network);
        }
        panic!("no end");
    }

    fn at(backend: Backend) -> Network {
        Network { backend, ..Network::default() }
    }

    #[test]
    fn every_way_ends_and_one_node_at_a_time_moves() {
        let of_the_fabric = || Backend::NAMES.into_iter().filter(|(_, backend)| *backend != Backend::BGP);
        for (_, from) in of_the_fabric() {
            for (_, to) in of_the_fabric() {
                let mut moved = Vec::new();
                let end = walk(at(from), to, |network| {
                    moved.push(network.migration.as_ref().map(|migration| migration.nodes.len()));
                });
                assert_eq!(end, at(to));
                let steps = [Some(0), Some(1), Some(2), Some(3), None];
                assert_eq!(moved, if from == to { vec![] } else { steps.to_vec() });
            }
        }
    }

    #[test]
    fn there_is_no_way_to_bgp_and_none_from_it() {
        for (from, to) in [(Backend::BGP, Backend::VXLAN), (Backend::AUTO, Backend::BGP)] {
            let refused = next(&at(from), &obedient(&at(from), &["a"]), to);
            assert!(matches!(refused, Step::Refuse(why) if why.contains("bgp")));
        }
        assert_eq!(walk(at(Backend::BGP), Backend::BGP, |_| {}), at(Backend::BGP));
    }

    #[test]
    fn an_interrupted_migration_goes_on_or_back_and_takes_no_third_way() {
        let nodes = [Arc::from("a")].into();
        let half =
            Network { migration: Some(Migration { to: Backend::VXLAN, nodes }), ..at(Backend::HOST_GW) };
        assert_eq!(walk(half.clone(), Backend::VXLAN, |_| {}), at(Backend::VXLAN));
        assert_eq!(walk(half.clone(), Backend::HOST_GW, |_| {}), at(Backend::HOST_GW));
        let third = next(&half, &obedient(&half, &["a"]), Backend::UDP);
        assert!(
            matches!(third, Step::Refuse(why) if why.contains("--to vxlan") && why.contains("--to host-gw"))
        );
    }

    #[test]
    fn nobody_moves_before_all_can_receive_and_the_old_stays_until_all_moved() {
        let migration = Some(Migration { to: Backend::VXLAN, nodes: Default::default() });
        let network = Network { migration, ..at(Backend::HOST_GW) };
        let mut nodes = obedient(&network, &["a", "b"]);
        nodes.get_mut("b").unwrap().receives.clear();
        assert!(matches!(next(&network, &nodes, Backend::VXLAN), Step::Wait { node, .. } if &*node == "b"));
        let all = ["a", "b"].map(Arc::from).into();
        let network = Network { migration: Some(Migration { to: Backend::VXLAN, nodes: all }), ..network };
        let mut nodes = obedient(&network, &["a", "b"]);
        nodes.get_mut("a").unwrap().backend = Some(Backend::HOST_GW);
        assert!(matches!(next(&network, &nodes, Backend::VXLAN), Step::Wait { node, .. } if &*node == "a"));
    }

    #[test]
    fn what_a_node_told_before_it_knew_of_the_migration_does_not_count() {
        let migration = Some(Migration { to: Backend::VXLAN, nodes: Default::default() });
        let network = Network { migration, ..at(Backend::UDP) };
        let mut nodes = obedient(&network, &["a", "b"]);
        // It could receive by vxlan when it told this, and is taking the device away.
        nodes.get_mut("b").unwrap().migrating = None;
        assert!(matches!(next(&network, &nodes, Backend::VXLAN), Step::Wait { node, .. } if &*node == "b"));
        let mut nodes = obedient(&at(Backend::VXLAN), &["a", "b"]);
        assert_eq!(next(&at(Backend::VXLAN), &nodes, Backend::VXLAN), Step::Done);
        nodes.get_mut("a").unwrap().migrating = Some(Backend::VXLAN);
        assert!(
            matches!(next(&at(Backend::VXLAN), &nodes, Backend::VXLAN), Step::Wait { node, .. } if &*node == "a")
        );
    }

    #[test]
    fn a_peer_that_the_new_backend_cannot_reach_ends_it() {
        let migration = Some(Migration { to: Backend::HOST_GW, nodes: [Arc::from("a")].into() });
        let network = Network { migration, ..at(Backend::VXLAN) };
        let mut nodes = obedient(&network, &["a", "b"]);
        nodes.get_mut("a").unwrap().fallback.insert("b".into(), "it is on another segment".into());
        let step = next(&network, &nodes, Backend::HOST_GW);
        assert!(
            matches!(step, Step::Refuse(why) if why == "a cannot reach b by host-gw: it is on another segment")
        );
        assert!(matches!(next(&network, &nodes, Backend::VXLAN), Step::Write { .. }), "the way back is open");
    }
}
