//! Nothing is made or bound twice, however far the watches are behind.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use serde_json::json;

use super::tests::{Bench, bench, labelled};
use super::*;
use crate::kinds;
use crate::registry::Part;

const REPLICAS: usize = 40;
/// The default maxSurge of a quarter.
const SURGE: usize = 10;

/// What became of the pods.
#[derive(Default)]
struct Seen {
    nodes: HashMap<String, Option<String>>,
    active: HashSet<String>,
    /// Pods that were on a node and then on another or on none.
    moved: Vec<String>,
    /// The most pods at once that were not being deleted.
    most: usize,
}

impl Seen {
    fn take(&mut self, pod: &serde_json::Value, gone: bool) {
        let uid = object::uid(pod).to_owned();
        if object::active(pod) && !gone {
            self.active.insert(uid.clone());
        } else {
            self.active.remove(&uid);
        }
        self.most = self.most.max(self.active.len());
        let node = object::node_of(pod).map(str::to_owned);
        let before = self.nodes.insert(uid, node.clone()).flatten();
        if before.is_some() && before != node {
            self.moved.push(object::name(pod).to_owned());
        }
    }
}

async fn observe(registry: Registry, end: Arc<AtomicBool>) -> Seen {
    let mut seen = Seen::default();
    loop {
        let (pods, version) = registry.list(&kinds::PODS, None);
        seen.active.retain(|uid| pods.iter().any(|pod| object::uid(pod) == uid));
        pods.iter().for_each(|pod| seen.take(pod, false));
        let Ok(mut watch) = registry.watch(&kinds::PODS, None, version) else { continue };
        loop {
            let last = end.load(Ordering::Relaxed);
            match watch.try_next() {
                Ok(Some(event)) => seen.take(&event.object.parse(), event.kind == crate::EventKind::Deleted),
                Ok(None) if last => return seen,
                Ok(None) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(_) => break,
            }
        }
    }
}

/// Status updates of every pod without end.
async fn flood(registry: Registry, end: Arc<AtomicBool>) {
    let mut round = 0;
    while !end.load(Ordering::Relaxed) {
        round += 1;
        let pods = registry.list(&kinds::PODS, None).0;
        let writes = pods.into_iter().map(|pod| {
            let registry = registry.clone();
            async move {
                let status = crate::Patch::Merge(json!({"status": {"message": format!("round {round}")}}));
                let (ns, name) = (Some(object::namespace(&pod)), object::name(&pod));
                let _ = registry.patch(&kinds::PODS, ns, name, Part::Status, status).await;
            }
        });
        stream::iter(writes).buffer_unordered(16).collect::<Vec<()>>().await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_made_or_bound_twice_while_watches_lag() {
    let bench = bench(10).await;
    let end = Arc::new(AtomicBool::new(false));
    let observer = tokio::spawn(observe(bench.registry.clone(), end.clone()));
    let flooder = tokio::spawn(flood(bench.registry.clone(), end.clone()));
    bench.create(&kinds::DEPLOYMENTS, "web", labelled(&json!({"replicas": REPLICAS}))).await;
    let done = |image: &'static str| {
        move |b: &Bench| {
            let status = &b.list(&kinds::DEPLOYMENTS)[0]["status"];
            let current = |pod: &Arc<serde_json::Value>| pod["spec"]["containers"][0]["image"] == image;
            status["readyReplicas"] == REPLICAS
                && status["replicas"] == REPLICAS
                && b.list(&kinds::PODS).iter().all(current)
        }
    };
    bench.until_run("the first template everywhere", done("a")).await;
    assert_eq!(bench.list(&kinds::PODS).len(), REPLICAS);
    let template = json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "b"}]}}}});
    bench.set(&kinds::DEPLOYMENTS, Some("default"), "web", Part::Whole, template).await;
    bench.until_run("the second template everywhere", done("b")).await;
    end.store(true, Ordering::Relaxed);
    flooder.await.unwrap();
    let seen = observer.await.unwrap();
    assert_eq!(seen.moved, [""; 0]);
    assert!(seen.most <= REPLICAS + SURGE, "{} pods at once", seen.most);
    assert_eq!(seen.nodes.len(), 2 * REPLICAS, "each template's pods are made once");
}
