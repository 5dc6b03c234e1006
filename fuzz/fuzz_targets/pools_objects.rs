//! IPPool and IPBlock objects, one a line, as the API has them → a node's plan and a sweep of them.
#![no_main]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use weft_ipam::pools::file::File;
use weft_ipam::pools::sweep::sweep;
use weft_ipam::pools::{Input, Keeper};
use weft_model::pools::Namespace;
use weft_model::{Cluster, Node, Pod};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut cluster = Cluster::default();
    for line in text.lines().take(16) {
        if let Ok(pool) = weft_store::decode_pool(line) {
            cluster.pools.insert(pool.name.clone(), Arc::new(pool));
        }
        if let Ok(block) = weft_store::decode_block(line) {
            cluster.blocks.insert(block.name.clone(), Arc::new(block));
        }
    }
    for name in ["a", "b"] {
        cluster.nodes.insert(name.into(), Arc::new(Node { name: name.into(), ..Node::default() }));
    }
    let namespace = Namespace { name: "default".into(), ..Namespace::default() };
    cluster.namespaces.insert("default".into(), Arc::new(namespace));
    let node = Some("a".into());
    let pod = Pod { namespace: "default".into(), name: "p".into(), node, ..Pod::default() };
    let (pods, allocated) = ([Arc::new(pod)], BTreeSet::new());
    let mut keeper = Keeper::new("a", Duration::from_secs(30));
    let mut now = Instant::now();
    for _ in 0..3 {
        let plan = keeper.plan(Input { cluster: &cluster, pods: &pods, allocated: &allocated, now });
        assert_eq!(File::parse(&plan.file.text()).as_ref(), Ok(&plan.file));
        for write in &plan.writes {
            assert!(weft_store::decode_block(&weft_ipam::pools::object(&write.block).to_string()).is_ok());
            keeper.handle_sent(write, true, false, now);
        }
        now += Duration::from_secs(20);
    }
    for finding in sweep(&cluster, &|_| true) {
        assert!(!finding.message.is_empty());
    }
});
