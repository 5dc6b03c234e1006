//! Of several servers over one etcd one runs the controllers.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_apiserver::{ControllersConfig, LeaseTimes, Part, Patch, Registry, kinds, spawn_controllers};

use super::etcd::Etcd;
use super::{Bed, block_on};

const NS: Option<&str> = Some("default");

fn deployment(replicas: usize) -> Value {
    let template =
        json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "a", "image": "a"}]}});
    json!({"metadata": {"name": "web"}, "spec": {"replicas": replicas,
        "selector": {"matchLabels": {"app": "x"}}, "template": template}})
}

async fn pods(registry: &Registry, wanted: usize) {
    let deadline = Instant::now() + Duration::from_secs(120);
    let bound = |pod: &Value| pod["spec"]["nodeName"].is_string();
    loop {
        // A read that sees what any server wrote.
        registry.get(&kinds::DEPLOYMENTS, NS, "web").await.unwrap();
        let pods = registry.list(&kinds::PODS, None).0;
        assert!(pods.len() <= wanted, "{} pods of {wanted}", pods.len());
        if pods.len() == wanted && pods.iter().all(|pod| bound(pod)) {
            return;
        }
        assert!(Instant::now() < deadline, "{} pods of {wanted}", pods.len());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn one_server_runs_the_controllers_and_another_follows_it() {
    block_on(async {
        let bed = Bed::Etcd(Box::new(Etcd::start()));
        let (one, other) = (bed.open().await, bed.open().await);
        let lease = LeaseTimes { retry: Duration::from_millis(50), ..LeaseTimes::default() };
        let config = ControllersConfig { exclusive: false, lease, ..ControllersConfig::default() };
        let first = spawn_controllers(one.clone(), config.clone()).unwrap();
        one.create(&kinds::NODES, None, json!({"metadata": {"name": "n"}})).await.unwrap();
        one.create(&kinds::DEPLOYMENTS, NS, deployment(20)).await.unwrap();
        pods(&one, 20).await;
        let second = spawn_controllers(other.clone(), config).unwrap();
        let scale = |n: usize| Patch::Merge(json!({"spec": {"replicas": n}}));
        other.patch(&kinds::DEPLOYMENTS, NS, "web", Part::Whole, scale(40)).await.unwrap();
        pods(&other, 40).await;
        let holder = || async {
            let lease = other.get(&kinds::LEASES, Some("kube-system"), "weft-controllers").await.unwrap();
            lease["spec"]["holderIdentity"].clone()
        };
        let before = holder().await;
        first.stop().await;
        other.patch(&kinds::DEPLOYMENTS, NS, "web", Part::Whole, scale(60)).await.unwrap();
        pods(&one, 60).await;
        assert_ne!(holder().await, before);
        second.stop().await;
    });
}
