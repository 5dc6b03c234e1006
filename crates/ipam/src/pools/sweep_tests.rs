use super::super::catalogue::tests::{cluster, pool};
use super::*;
use weft_model::Node;

fn block(cidr: &str, pool: &str, node: Option<&str>, lent: &[(&str, &str)]) -> IpBlock {
    let cidr: IpNet = cidr.parse().unwrap();
    IpBlock {
        name: block_name(&cidr).into(),
        uid: "u".into(),
        version: "1".into(),
        cidr,
        pool: pool.into(),
        node: node.map(Into::into),
        nat_outgoing: false,
        borrowed: lent.iter().map(|(ip, node)| (ip.parse().unwrap(), (*node).into())).collect(),
        asked: BTreeMap::new(),
        release: BTreeSet::new(),
    }
}

fn pod(name: &str, node: &str, ip: &str) -> Pod {
    Pod {
        namespace: "default".into(),
        name: name.into(),
        node: Some(node.into()),
        ips: vec![ip.parse().unwrap()],
        phase: PodPhase::Running,
        ..Pod::default()
    }
}

fn world(blocks: Vec<IpBlock>, pods: Vec<Pod>) -> Cluster {
    let mut world = cluster(vec![pool("p", "10.1.0.0/24", 28)]);
    for name in ["a", "b"] {
        world.nodes.insert(name.into(), Arc::new(Node { name: name.into(), ..Node::default() }));
    }
    world.blocks = blocks.into_iter().map(|block| (block.name.clone(), Arc::new(block))).collect();
    world.pods = pods.into_iter().map(|pod| (pod.key(), Arc::new(pod))).collect();
    world
}

fn faults(world: &Cluster) -> Vec<(Fault, String, Option<Change>)> {
    let found = sweep(world, &|_| true);
    found.into_iter().map(|f| (f.fault, f.object, f.repair.map(|write| write.change))).collect()
}

#[test]
fn nothing_is_wrong_where_nothing_is() {
    let blocks = vec![block("10.1.0.0/28", "p", Some("a"), &[("10.1.0.9", "b")])];
    let pods = vec![pod("x", "a", "10.1.0.1"), pod("y", "b", "10.1.0.9"), pod("else", "a", "192.0.2.1")];
    assert_eq!(faults(&world(blocks, pods)), []);
}

#[test]
fn every_fault_is_found_and_what_can_be_is_repaired() {
    let found = faults(&world(
        vec![
            block("10.1.0.0/28", "p", Some("gone"), &[]),
            block("10.1.0.16/28", "p", Some("gone"), &[]),
            block("10.1.0.32/28", "p", Some("gone"), &[("10.1.0.40", "b")]),
            block("10.1.0.48/28", "p", Some("a"), &[("10.1.0.50", "gone")]),
            block("10.1.0.64/28", "p", None, &[]),
            block("10.1.0.80/29", "p", Some("a"), &[]),
            block("10.1.0.96/28", "other", Some("a"), &[]),
            block("10.1.0.100/30", "p", Some("a"), &[]),
        ],
        vec![
            pod("used", "a", "10.1.0.17"),
            pod("one", "a", "10.1.0.49"),
            pod("two", "a", "10.1.0.49"),
            pod("there", "b", "10.1.0.51"),
            pod("nowhere", "a", "10.1.0.250"),
        ],
    ));
    let some = Some;
    let expected = [
        (Fault::BlockOutsidePool, "block 10-1-0-100-30", None),
        (Fault::BlockOutsidePool, "block 10-1-0-80-29", None),
        (Fault::BlockOutsidePool, "block 10-1-0-96-28", None),
        (Fault::BlocksOverlap, "block 10-1-0-100-30", None),
        (Fault::BlockOfGoneNode, "block 10-1-0-0-28", some(Change::Delete)),
        (Fault::BlockOfGoneNode, "block 10-1-0-16-28", None),
        (Fault::BlockOfGoneNode, "block 10-1-0-32-28", some(Change::Replace)),
        (Fault::BlockOfGoneNode, "block 10-1-0-64-28", some(Change::Delete)),
        (Fault::LoanToGoneNode, "10.1.0.50", some(Change::Replace)),
        (Fault::AddressTwice, "10.1.0.49", None),
        (Fault::AddressElsewhere, "pod default/nowhere", None),
        (Fault::AddressElsewhere, "pod default/there", None),
        (Fault::AddressElsewhere, "pod default/used", None),
    ];
    let expected: Vec<_> =
        expected.iter().map(|(fault, object, change)| (*fault, (*object).to_owned(), *change)).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_node_that_is_away_for_a_moment_keeps_what_it_has() {
    let away = world(vec![block("10.1.0.0/28", "p", Some("gone"), &[("10.1.0.5", "lost")])], vec![]);
    assert_eq!(sweep(&away, &|_| false), []);
    let found = sweep(&away, &|node| node == "lost");
    assert_eq!(found.len(), 1);
    let write = found[0].repair.as_ref().unwrap();
    assert!(write.block.borrowed.is_empty() && write.block.node.as_deref() == Some("gone"));
}

#[test]
fn a_repair_leaves_nothing_to_find() {
    let mut world = world(
        vec![
            block("10.1.0.0/28", "p", Some("gone"), &[("10.1.0.5", "gone"), ("10.1.0.6", "b")]),
            block("10.1.0.16/28", "p", Some("gone"), &[]),
        ],
        vec![],
    );
    for _ in 0..3 {
        for write in sweep(&world, &|_| true).into_iter().filter_map(|finding| finding.repair) {
            match write.change {
                Change::Delete => _ = world.blocks.remove(&write.block.name),
                _ => _ = world.blocks.insert(write.block.name.clone(), Arc::new(write.block)),
            }
        }
    }
    assert_eq!(sweep(&world, &|_| true), []);
    let kept: Vec<&IpBlock> = world.blocks.values().map(|block| &**block).collect();
    assert!(kept.len() == 1 && kept[0].node.is_none() && kept[0].borrowed.len() == 1, "b still has its loan");
}

#[test]
fn pods_and_allocations_are_compared() {
    let world = world(
        vec![block("10.1.0.0/28", "p", Some("a"), &[])],
        vec![pod("right", "a", "10.1.0.1"), pod("lost", "a", "10.1.0.2"), pod("other", "b", "10.1.0.3")],
    );
    let allocated = ["10.1.0.1", "10.1.0.4", "192.0.2.1"].iter().map(|ip| ip.parse().unwrap()).collect();
    let found = sweep_node(&world, "a", &allocated);
    let found: Vec<_> = found.iter().map(|f| (f.fault, f.object.as_str())).collect();
    assert_eq!(
        found,
        [(Fault::PodWithoutAllocation, "pod default/lost"), (Fault::AllocationWithoutPod, "10.1.0.4"),]
    );
}
