//! Addresses of Services of type LoadBalancer, over a real registry.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::tests::{Bench, bench};
use crate::kinds::{EVENTS, NODES, SERVICES};
use crate::registry::Part;

async fn pool(bench: &Bench, name: &str, addresses: &[&str]) {
    let kind = bench.registry.kind("weft.dev", "v1", "loadbalancerpools").unwrap();
    let object = json!({"apiVersion": "weft.dev/v1", "kind": "LoadBalancerPool", "metadata": {"name": name},
        "spec": {"addresses": addresses}});
    bench.registry.create(&kind, None, object).await.unwrap();
}

fn spec() -> Value {
    json!({"type": "LoadBalancer", "selector": {"app": "x"}, "ports": [{"port": 80}]})
}

fn ips(bench: &Bench) -> Vec<String> {
    let all = bench.list(&SERVICES);
    let mut ips: Vec<String> = all
        .iter()
        .filter_map(|s| s["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().map(str::to_owned))
        .collect();
    ips.sort();
    ips
}

fn service(bench: &Bench, name: &str) -> Value {
    let all = bench.list(&SERVICES);
    let found = all.iter().find(|s| s["metadata"]["name"] == name);
    found.map_or(Value::Null, |service| (**service).clone())
}

#[tokio::test]
async fn services_get_addresses_and_give_them_back() {
    let bench = bench(1).await;
    crate::own::ensure(&bench.registry).await.unwrap();
    bench.create(&SERVICES, "early", spec()).await;
    pool(&bench, "public", &["192.0.2.0/30"]).await;
    bench.until("an address", |b| ips(b) == ["192.0.2.0"]).await;
    let early = service(&bench, "early");
    assert_eq!(early["status"]["loadBalancer"]["ingress"], json!([{"ip": "192.0.2.0", "ipMode": "VIP"}]));
    assert_eq!(early["status"]["conditions"][0]["message"], "192.0.2.0 of the pool public");
    for i in 0..4 {
        bench.create(&SERVICES, &format!("web{i}"), spec()).await;
    }
    bench.until("all addresses", |b| ips(b).len() == 4).await;
    let reason = |b: &Bench, reason: &str| b.list(&EVENTS).iter().any(|event| event["reason"] == reason);
    bench.until("events", |b| reason(b, "Assigned") && reason(b, "PoolFull")).await;
    let different: BTreeSet<String> = ips(&bench).into_iter().collect();
    assert_eq!(different.len(), 4, "each has its own");
    let kind = bench.registry.kind("weft.dev", "v1", "loadbalancerpools").unwrap();
    bench
        .until("the pool's counts", |b| {
            let status = &b.list(&kind)[0]["status"];
            status["assigned"] == 4 && status["available"] == 0 && status["conditions"][0]["status"] == "True"
        })
        .await;
    let cluster_ip = json!({"spec": {"type": "ClusterIP"}});
    bench.set(&SERVICES, Some("default"), "early", Part::Whole, cluster_ip).await;
    bench
        .until("the last one's address", |b| {
            let statuses = b.list(&SERVICES);
            let untold = service(b, "early")["status"]["conditions"].is_null();
            untold
                && statuses.iter().filter(|s| s["status"]["conditions"][0]["status"] == "True").count() == 4
        })
        .await;
}

#[tokio::test]
async fn a_status_that_somebody_else_wrote_is_put_right() {
    let bench = bench(1).await;
    crate::own::ensure(&bench.registry).await.unwrap();
    pool(&bench, "public", &["192.0.2.0/30"]).await;
    bench.create(&SERVICES, "a", spec()).await;
    bench.until("an address", |b| ips(b) == ["192.0.2.0"]).await;
    bench.create(&SERVICES, "b", spec()).await;
    bench.until("another", |b| ips(b) == ["192.0.2.0", "192.0.2.1"]).await;
    let stolen = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.0"}]}}});
    bench.set(&SERVICES, Some("default"), "b", Part::Status, stolen).await;
    bench
        .until("the older keeps it", |b| {
            service(b, "a")["status"]["loadBalancer"]["ingress"][0]["ip"] == "192.0.2.0"
                && service(b, "b")["status"]["loadBalancer"]["ingress"][0]["ip"] != "192.0.2.0"
                && ips(b).len() == 2
        })
        .await;
}

#[tokio::test]
async fn a_pool_that_a_nodes_pods_have_gives_nothing() {
    let bench = bench(1).await;
    crate::own::ensure(&bench.registry).await.unwrap();
    pool(&bench, "public", &["192.0.2.0/24"]).await;
    let kind = bench.registry.kind("weft.dev", "v1", "loadbalancerpools").unwrap();
    let good = |b: &Bench| b.list(&kind)[0]["status"]["conditions"][0]["status"] == "True";
    bench.until("a pool that gives", good).await;
    let node = json!({"metadata": {"name": "late"}, "spec": {"podCIDRs": ["192.0.2.64/26"]}});
    bench.registry.create(&NODES, None, node).await.unwrap();
    bench.until("a pool that does not", |b| !good(b)).await;
    let told = bench.list(&kind)[0]["status"]["conditions"][0]["message"].to_string();
    assert!(told.contains("the addresses of a node's pods"), "{told}");
}
