//! The controllers over a real registry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;
use crate::kinds;
use crate::registry::{DeleteOptions, Part, RegistryConfig};
use crate::resource::Resource;

/// Long, since other tests may have the machine.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) struct Bench {
    pub(super) registry: Registry,
    _controllers: Controllers,
    _folder: tempfile::TempDir,
}

pub(super) async fn bench(nodes: usize) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::open(folder.path(), RegistryConfig::default()).await.unwrap();
    let cluster_cidrs = vec!["10.244.0.0/16".parse().unwrap()];
    let config = ControllersConfig { cluster_cidrs, ..ControllersConfig::default() };
    let bench = Bench { _controllers: spawn(registry.clone(), config).unwrap(), registry, _folder: folder };
    for i in 1..=nodes {
        let node = json!({"metadata": {"name": format!("node{i}"), "labels": {"index": i.to_string()}}});
        bench.registry.create(&kinds::NODES, None, node).await.unwrap();
    }
    let takes_pods = |node: &Arc<Value>| object::list(&node["spec"]["taints"]).next().is_none();
    bench.until("nodes that take pods", |b| b.list(&kinds::NODES).iter().all(takes_pods)).await;
    bench
}

pub(super) fn labelled(spec: &Value) -> Value {
    let mut spec = spec.clone();
    spec["selector"] = json!({"matchLabels": {"app": "x"}});
    spec["template"] =
        json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "a", "image": "a"}]}});
    spec
}

fn job(spec: &Value) -> Value {
    let mut spec = labelled(spec);
    spec["selector"] = Value::Null;
    spec["template"]["spec"]["restartPolicy"] = json!("Never");
    spec
}

impl Bench {
    pub(super) async fn create(&self, kind: &Resource, name: &str, spec: Value) {
        let object = json!({"metadata": {"name": name}, "spec": spec});
        self.registry.create(kind, Some("default"), object).await.unwrap();
    }

    pub(super) fn list(&self, kind: &Resource) -> Vec<Arc<Value>> {
        self.registry.list(kind, None).0
    }

    pub(super) async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            let pods: Vec<_> = self.list(&kinds::PODS).iter().map(|p| p.to_string()).take(3).collect();
            assert!(Instant::now() < deadline, "not in time: {what}; pods like {pods:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) async fn set(&self, kind: &Resource, ns: Option<&str>, name: &str, part: Part, patch: Value) {
        self.registry.patch(kind, ns, name, part, crate::Patch::Merge(patch)).await.unwrap();
    }

    /// What a kubelet would: every bound pod runs and is ready; what is being deleted goes.
    async fn kubelet(&self) {
        for pod in self.list(&kinds::PODS) {
            let name = object::name(&pod);
            let ns = Some(object::namespace(&pod));
            if object::terminating(&pod) {
                let now = DeleteOptions { grace_seconds: Some(0), ..DeleteOptions::default() };
                let _ = self.registry.delete(&kinds::PODS, ns, name, now).await;
            } else if object::node_of(&pod).is_some() && !object::ready(&pod) {
                let status = json!({"status": {"phase": "Running", "podIP": "10.244.0.9", "conditions": [{"type": "Ready", "status": "True"}]}});
                let _ = self
                    .registry
                    .patch(&kinds::PODS, ns, name, Part::Status, crate::Patch::Merge(status))
                    .await;
            }
        }
    }

    pub(super) async fn until_run(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "not in time: {what}");
            self.kubelet().await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) fn bound(&self) -> usize {
        self.list(&kinds::PODS).iter().filter(|pod| object::node_of(pod).is_some()).count()
    }
}

#[tokio::test]
async fn a_thousand_pods_are_made_once_and_spread_evenly() {
    let bench = bench(10).await;
    let began = Instant::now();
    bench.create(&kinds::DEPLOYMENTS, "big", labelled(&json!({"replicas": 1000}))).await;
    bench.until("a thousand bound pods", |b| b.bound() == 1000).await;
    eprintln!("1,000 pods made and bound in {:?}", began.elapsed());
    let mut load: BTreeMap<String, usize> = BTreeMap::new();
    for pod in bench.list(&kinds::PODS) {
        *load.entry(object::node_of(&pod).unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(load.values().copied().collect::<BTreeSet<_>>(), BTreeSet::from([100]));
    let set = bench.list(&kinds::REPLICA_SETS)[0].clone();
    let pod = bench.list(&kinds::PODS)[0].clone();
    let (set, pod) = (object::name(&set), object::name(&pod));
    assert!(pod.starts_with(&format!("{set}-")) && pod.len() == set.len() + 6, "{pod} of {set}");
}

#[tokio::test]
async fn nodes_get_their_cidrs() {
    let bench = bench(3).await;
    bench.until("CIDRs", |b| b.list(&kinds::NODES).iter().all(|n| n["spec"]["podCIDR"].is_string())).await;
    let cidrs: Vec<_> = bench.list(&kinds::NODES).iter().map(|n| n["spec"]["podCIDR"].clone()).collect();
    assert_eq!(cidrs, ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"]);
}

#[tokio::test]
async fn a_deployment_rolls_scales_reports_and_goes_with_all_it_owns() {
    let bench = bench(2).await;
    bench.create(&kinds::DEPLOYMENTS, "web", labelled(&json!({"replicas": 4}))).await;
    let ready = |n: usize| {
        move |b: &Bench| {
            let status = &b.list(&kinds::DEPLOYMENTS)[0]["status"];
            status["readyReplicas"] == n && status["updatedReplicas"] == n && status["replicas"] == n
        }
    };
    bench.until_run("four ready", ready(4)).await;
    let template = json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "b"}]}}}});
    bench.set(&kinds::DEPLOYMENTS, Some("default"), "web", Part::Whole, template).await;
    bench
        .until_run("the new template everywhere", |b| {
            let pods = b.list(&kinds::PODS);
            pods.len() == 4 && pods.iter().all(|pod| pod["spec"]["containers"][0]["image"] == "b")
        })
        .await;
    assert_eq!(bench.list(&kinds::REPLICA_SETS).len(), 2);
    bench
        .set(&kinds::DEPLOYMENTS, Some("default"), "web", Part::Whole, json!({"spec": {"replicas": 1}}))
        .await;
    bench.until_run("one ready", ready(1)).await;
    let status = bench.list(&kinds::DEPLOYMENTS)[0]["status"].clone();
    assert_eq!(status["conditions"][0]["reason"], "MinimumReplicasAvailable");
    assert_eq!(status["conditions"][1]["reason"], "NewReplicaSetAvailable");
    bench
        .registry
        .delete(&kinds::DEPLOYMENTS, Some("default"), "web", DeleteOptions::default())
        .await
        .unwrap();
    bench
        .until_run("nothing left", |b| {
            b.list(&kinds::REPLICA_SETS).is_empty() && b.list(&kinds::PODS).is_empty()
        })
        .await;
}

#[tokio::test]
async fn every_kind_of_workload_becomes_pods() {
    let bench = bench(3).await;
    bench.create(&kinds::STATEFUL_SETS, "db", labelled(&json!({"replicas": 2, "serviceName": "db"}))).await;
    bench.create(&kinds::DAEMON_SETS, "log", labelled(&json!({}))).await;
    bench.create(&kinds::JOBS, "once", job(&json!({"parallelism": 2, "completions": 2}))).await;
    bench.create(&kinds::REPLICA_SETS, "rs", labelled(&json!({"replicas": 1}))).await;
    bench.until("eight bound pods", |b| b.bound() == 2 + 3 + 2 + 1).await;
    let names: BTreeSet<String> =
        bench.list(&kinds::PODS).iter().map(|p| object::name(p).to_owned()).collect();
    assert!(names.contains("db-0") && names.contains("db-1"));
    bench
        .until_run("all reported", |b| {
            b.list(&kinds::DAEMON_SETS)[0]["status"]["numberReady"] == 3
                && b.list(&kinds::STATEFUL_SETS)[0]["status"]["readyReplicas"] == 2
                && b.list(&kinds::JOBS)[0]["status"]["active"] == 2
        })
        .await;
    let node = json!({"metadata": {"name": "node4"}});
    bench.registry.create(&kinds::NODES, None, node).await.unwrap();
    bench
        .until_run("a daemon on the new node", |b| {
            b.list(&kinds::DAEMON_SETS)[0]["status"]["numberReady"] == 4
        })
        .await;
    bench.registry.delete(&kinds::NODES, None, "node1", DeleteOptions::default()).await.unwrap();
    bench
        .until_run("no pod on the lost node", |b| {
            let pods = b.list(&kinds::PODS);
            pods.len() == 8 && pods.iter().all(|pod| object::node_of(pod).is_some_and(|node| node != "node1"))
        })
        .await;
}

#[tokio::test]
async fn a_pod_that_fits_no_node_says_so_until_one_comes() {
    let bench = bench(2).await;
    let spec = json!({"nodeSelector": {"disk": "ssd"}, "containers": [{"name": "a", "image": "a"}]});
    bench.create(&kinds::PODS, "picky", spec).await;
    let condition = |b: &Bench| {
        object::list(&b.list(&kinds::PODS)[0]["status"]["conditions"])
            .find(|c| c["type"] == "PodScheduled")
            .cloned()
            .unwrap_or_default()
    };
    // The pod may be known before the nodes are.
    let why = "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.";
    bench.until("the reason", |b| condition(b)["message"] == why).await;
    assert_eq!(condition(&bench)["reason"], "Unschedulable");
    bench
        .set(&kinds::NODES, None, "node2", Part::Whole, json!({"metadata": {"labels": {"disk": "ssd"}}}))
        .await;
    bench.until("a node", |b| object::node_of(&b.list(&kinds::PODS)[0]) == Some("node2")).await;
    bench.until("the condition", |b| condition(b)["status"] == "True").await;
}

#[tokio::test]
async fn a_service_has_slices_and_endpoints_and_takes_them_along() {
    let bench = bench(1).await;
    bench.create(&kinds::DEPLOYMENTS, "web", labelled(&json!({"replicas": 3}))).await;
    let spec = json!({"selector": {"app": "x"}, "ports": [{"port": 80}]});
    bench.create(&kinds::SERVICES, "web", spec).await;
    let ready = |b: &Bench| {
        let slices = b.list(&kinds::ENDPOINT_SLICES);
        let ready = |slice: &Arc<Value>| {
            object::list(&slice["endpoints"]).filter(|e| e["conditions"]["ready"] == true).count()
        };
        let addresses = b.list(&kinds::ENDPOINTS).iter().map(|o| o["subsets"][0]["addresses"].clone()).next();
        slices.len() == 1
            && ready(&slices[0]) == 3
            && addresses.is_some_and(|a| object::list(&a).count() == 3)
    };
    bench.until_run("three ready endpoints", ready).await;
    bench.registry.delete(&kinds::SERVICES, Some("default"), "web", DeleteOptions::default()).await.unwrap();
    bench
        .until("slices and Endpoints gone", |b| {
            b.list(&kinds::ENDPOINT_SLICES).is_empty() && b.list(&kinds::ENDPOINTS).is_empty()
        })
        .await;
}

#[tokio::test]
async fn the_slice_of_a_service_without_pods_is_made_once() {
    let bench = bench(1).await;
    let spec = json!({"selector": {"app": "x"}, "ports": [{"port": 80}]});
    bench.create(&kinds::SERVICES, "web", spec).await;
    let slice = |b: &Bench| b.list(&kinds::ENDPOINT_SLICES).first().map(|s| object::uid(s).to_owned());
    bench.until("a slice", |b| slice(b).is_some()).await;
    let first = slice(&bench);
    // What is made later is seen after the slice was.
    bench.create(&kinds::DEPLOYMENTS, "later", labelled(&json!({"replicas": 1}))).await;
    bench.until("a bound pod", |b| b.bound() == 1).await;
    assert_eq!(slice(&bench), first);
}

#[tokio::test]
async fn a_cron_job_starts_jobs() {
    let bench = bench(1).await;
    let spec = json!({"schedule": "@every 1s", "concurrencyPolicy": "Forbid",
        "jobTemplate": {"spec": job(&json!({}))}});
    bench.create(&kinds::CRON_JOBS, "c", spec).await;
    bench.until("a bound pod of its Job", |b| b.bound() == 1).await;
    let jobs = bench.list(&kinds::JOBS);
    assert!(jobs.len() == 1 && object::name(&jobs[0]).starts_with("c-"), "{jobs:?}");
    let told =
        |b: &Bench| b.list(&kinds::CRON_JOBS)[0]["status"]["active"][0]["name"] == object::name(&jobs[0]);
    bench.until("its status", told).await;
}

#[tokio::test]
async fn endpoints_that_a_user_wrote_are_mirrored_once() {
    let bench = bench(1).await;
    bench.create(&kinds::SERVICES, "web", json!({"ports": [{"port": 80}]})).await;
    let subsets = json!([{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 8080}]}]);
    let endpoints = json!({"metadata": {"name": "web"}, "subsets": subsets});
    bench.registry.create(&kinds::ENDPOINTS, Some("default"), endpoints).await.unwrap();
    let slice = |b: &Bench| b.list(&kinds::ENDPOINT_SLICES).first().cloned();
    bench.until("a slice", |b| slice(b).is_some()).await;
    let first = slice(&bench).unwrap();
    assert_eq!(first["endpoints"][0]["addresses"], json!(["192.0.2.1"]));
    assert_eq!(first["ports"], json!([{"name": "", "port": 8080, "protocol": "TCP"}]));
    // What is made later is seen after the slice was.
    bench.create(&kinds::DEPLOYMENTS, "later", labelled(&json!({"replicas": 1}))).await;
    bench.until("a bound pod", |b| b.bound() == 1).await;
    assert_eq!(slice(&bench), Some(first));
    bench.registry.delete(&kinds::ENDPOINTS, Some("default"), "web", DeleteOptions::default()).await.unwrap();
    bench.until("the slice gone", |b| slice(b).is_none()).await;
}

#[tokio::test]
async fn what_an_unknown_kind_owns_is_left_alone() {
    let bench = bench(1).await;
    let owned = |name: &str, api: &str, kind: &str| {
        json!({"metadata": {"name": name, "ownerReferences": [
            {"apiVersion": api, "kind": kind, "name": "gone", "uid": "no-such-uid"}]}})
    };
    let registry = &bench.registry;
    registry.create(&kinds::CONFIG_MAPS, None, owned("kept", "example.org/v1", "Widget")).await.unwrap();
    registry.create(&kinds::CONFIG_MAPS, None, owned("collected", "apps/v1", "Deployment")).await.unwrap();
    bench.until("the orphan gone", |b| b.list(&kinds::CONFIG_MAPS).len() == 1).await;
    assert_eq!(object::name(&bench.list(&kinds::CONFIG_MAPS)[0]), "kept");
}

#[tokio::test]
async fn a_restart_writes_nothing() {
    let mut bench = bench(2).await;
    bench.create(&kinds::DEPLOYMENTS, "web", labelled(&json!({"replicas": 3}))).await;
    bench.create(&kinds::STATEFUL_SETS, "db", labelled(&json!({"replicas": 2}))).await;
    bench.create(&kinds::DAEMON_SETS, "log", labelled(&json!({}))).await;
    bench.create(&kinds::JOBS, "once", job(&json!({}))).await;
    for (name, app) in [("web", "x"), ("nobody", "none")] {
        let spec = json!({"selector": {"app": app}, "ports": [{"port": 80}]});
        bench.create(&kinds::SERVICES, name, spec).await;
    }
    let budget = json!({"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}});
    bench.create(&kinds::POD_DISRUPTION_BUDGETS, "few", budget).await;
    bench
        .until_run("all reported", |b| {
            let empty = |slice: &Arc<Value>| slice["endpoints"].is_null();
            let ready = |slice: &Arc<Value>| {
                object::list(&slice["endpoints"]).filter(|e| e["conditions"]["ready"] == true).count()
            };
            b.list(&kinds::ENDPOINT_SLICES).iter().any(empty)
                && b.list(&kinds::ENDPOINT_SLICES).iter().any(|slice| ready(slice) == 8)
                && b.list(&kinds::POD_DISRUPTION_BUDGETS)[0]["status"]["disruptionsAllowed"] == 7
                && b.list(&kinds::DEPLOYMENTS)[0]["status"]["readyReplicas"] == 3
                && b.list(&kinds::STATEFUL_SETS)[0]["status"]["readyReplicas"] == 2
                && b.list(&kinds::DAEMON_SETS)[0]["status"]["numberReady"] == 2
                && b.list(&kinds::JOBS)[0]["status"]["ready"] == 1
        })
        .await;
    // What a new node brings about is the last that the old and then the new controllers do.
    let config = ControllersConfig::new(vec!["10.244.0.0/16".parse().unwrap()], None);
    bench._controllers = spawn(bench.registry.clone(), config.clone()).unwrap();
    let versions = |b: &Bench| -> BTreeMap<String, u64> {
        let kinds = [
            &kinds::PODS,
            &kinds::REPLICA_SETS,
            &kinds::DEPLOYMENTS,
            &kinds::STATEFUL_SETS,
            &kinds::JOBS,
            &kinds::ENDPOINT_SLICES,
            &kinds::POD_DISRUPTION_BUDGETS,
        ];
        let named =
            |kind: &Resource, o: &Value| (format!("{}/{}", kind.plural, object::name(o)), object::version(o));
        kinds.into_iter().flat_map(|kind| b.list(kind).into_iter().map(move |o| named(kind, &o))).collect()
    };
    let before = versions(&bench);
    bench._controllers = spawn(bench.registry.clone(), config).unwrap();
    let tainted =
        json!({"metadata": {"name": "late"}, "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    bench.registry.create(&kinds::NODES, None, tainted).await.unwrap();
    bench
        .until("the late node's CIDR", |b| {
            b.list(&kinds::NODES)
                .iter()
                .any(|n| object::name(n) == "late" && n["spec"]["podCIDR"].is_string())
        })
        .await;
    assert_eq!(versions(&bench), before);
}

#[tokio::test]
async fn what_cannot_be_made_is_tried_again_gently_and_made_when_it_can() {
    let bench = bench(1).await;
    // The name is taken by a pod of somebody else.
    let spec = json!({"containers": [{"name": "a", "image": "a"}]});
    bench.create(&kinds::PODS, "db-0", spec).await;
    bench.create(&kinds::STATEFUL_SETS, "db", labelled(&json!({"replicas": 2}))).await;
    bench
        .until("the other pod", |b| b.list(&kinds::PODS).iter().any(|pod| object::name(pod) == "db-1"))
        .await;
    let now = DeleteOptions { grace_seconds: Some(0), ..DeleteOptions::default() };
    bench.registry.delete(&kinds::PODS, Some("default"), "db-0", now).await.unwrap();
    bench
        .until("its own pod", |b| {
            b.list(&kinds::PODS).iter().all(|pod| object::controller(pod).is_some())
                && b.list(&kinds::PODS).len() == 2
        })
        .await;
}
