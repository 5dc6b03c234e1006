//! Service and LoadBalancerPool objects, one a line, as the API has them → who gets which address: nobody one that
//! another has and would not share, and what is written is what was planned.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use weft_ipam::load_balancer::{Input, plan, pool_patch, service_patch};
use weft_model::load_balancer::{Claim, LoadBalancerPool};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (mut claims, mut pools) = (BTreeMap::new(), Vec::new());
    for line in text.lines().take(16) {
        if let Ok(claim) = Claim::read(&mut serde_json::Deserializer::from_str(line)) {
            claims.insert(claim.key.clone(), Arc::new(claim));
        }
        if let Ok(pool) = LoadBalancerPool::read(&mut serde_json::Deserializer::from_str(line)) {
            pools.push(Arc::new(pool));
        }
    }
    let (namespaces, nodes) = (BTreeMap::new(), BTreeSet::new());
    let input = Input { claims: &claims, pools: &pools, namespaces: &namespaces, others: &[], nodes: &nodes };
    let planned = plan(input);
    for (key, outcome) in &planned.services {
        let Some(claim) = claims.get(key) else { panic!("{key} is nobody") };
        for ip in outcome.ips.iter().flatten().filter(|ip| !claim.ips().any(|held| held == **ip)) {
            let others = claims.values().filter(|other| other.key != *key && other.ips().any(|held| held == *ip));
            others.for_each(|other| assert!(other.share.with(&claim.share), "{key} gets {ip} of {}", other.key));
        }
        let _ = service_patch(claim, outcome, "2026-01-01T00:00:00Z");
    }
    for pool in &pools {
        let _ = planned.pools.get(&pool.name).map(|status| pool_patch(pool, status, "2026-01-01T00:00:00Z"));
    }
});
