//! Service and EndpointSlice objects, one a line, as the API has them → a node's plan: taken in one after the
//! other it is that of all at once, and leads nowhere that nobody may be led.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use weft_model::{Changes, Cluster, Node};
use weft_service::{Place, Planner, ServiceConfig};

fn planner() -> Planner {
    Planner::new(ServiceConfig {
        node: "a".into(),
        cluster_cidrs: vec!["10.244.0.0/16".parse().expect("a CIDR")],
        ..ServiceConfig::default()
    })
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut cluster = Cluster::default();
    let address = "10.168.0.2".parse().expect("an address");
    let node = Node { name: "a".into(), addresses: vec![address], ..Node::default() };
    cluster.nodes.insert("a".into(), Arc::new(node));
    let mut everything = Changes { nodes: ["a".into()].into(), ..Changes::default() };
    let mut stepwise = planner();
    stepwise.update(&cluster, &everything);
    for line in text.lines().take(16) {
        let mut changes = Changes::default();
        if let Ok(slice) = weft_store::decode_slice(line) {
            changes.slices.insert(slice.key());
            cluster.slices.insert(slice.key(), Arc::new(slice));
        }
        if let Ok(service) = weft_store::decode_service(line) {
            changes.services.insert(service.key());
            cluster.services.insert(service.key(), Arc::new(service));
        }
        everything.merge(changes.clone());
        stepwise.update(&cluster, &changes);
    }
    let mut whole = planner();
    whole.update(&cluster, &everything);
    assert_eq!(stepwise.plan(), whole.plan());
    for (at, frontend) in &whole.plan().frontends {
        assert_ne!(at.port, 0);
        for backend in frontend.all.backends().iter().chain(frontend.local.backends()) {
            let ip = backend.address.ip();
            assert_eq!(ip.is_ipv6(), at.place.is_ipv6());
            assert!(!ip.is_loopback() && !ip.is_multicast() && !ip.is_unspecified());
        }
        if let Place::Address(ip) = at.place {
            assert!(!ip.is_loopback() && !ip.is_multicast());
        }
    }
});
