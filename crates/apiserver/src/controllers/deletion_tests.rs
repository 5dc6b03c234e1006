//! Deletions and what they do to dependents, over a real registry.

use serde_json::{Value, json};

use super::object;
use super::tests::{Bench, bench, labelled};
use crate::kinds;
use crate::options::{DeleteOptions, Part, Propagation};
use crate::resource::Resource;

async fn delete(bench: &Bench, kind: &Resource, name: &str, propagation: Propagation) {
    let options = DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
    bench.registry.delete(kind, Some("default"), name, options).await.unwrap();
}

async fn with_pods(replicas: usize) -> Bench {
    let bench = bench(1).await;
    bench.create(&kinds::DEPLOYMENTS, "web", labelled(&json!({"replicas": replicas}))).await;
    let all = |b: &Bench| b.list(&kinds::PODS).iter().filter(|pod| object::ready(pod)).count() == replicas;
    bench.until_run("the pods run", all).await;
    bench
}

fn owners(object: &Value) -> usize {
    object::owners(object).count()
}

#[tokio::test]
async fn orphans_stay_without_their_owner() {
    let bench = with_pods(2).await;
    delete(&bench, &kinds::DEPLOYMENTS, "web", Propagation::Orphan).await;
    bench.until_run("the deployment gone", |b| b.list(&kinds::DEPLOYMENTS).is_empty()).await;
    let sets = bench.list(&kinds::REPLICA_SETS);
    assert_eq!((sets.len(), owners(&sets[0])), (1, 0));
    delete(&bench, &kinds::REPLICA_SETS, object::name(&sets[0]), Propagation::Orphan).await;
    bench.until_run("the set gone", |b| b.list(&kinds::REPLICA_SETS).is_empty()).await;
    let pods = bench.list(&kinds::PODS);
    assert!(pods.len() == 2 && pods.iter().all(|pod| owners(pod) == 0 && !object::terminating(pod)));
}

#[tokio::test]
async fn orphans_are_taken_in_by_who_selects_them() {
    let bench = with_pods(2).await;
    let uids = |b: &Bench, kind: &Resource| -> Vec<String> {
        b.list(kind).iter().map(|o| object::uid(o).to_owned()).collect()
    };
    let before = (uids(&bench, &kinds::REPLICA_SETS), uids(&bench, &kinds::PODS));
    delete(&bench, &kinds::DEPLOYMENTS, "web", Propagation::Orphan).await;
    bench.until_run("the deployment gone", |b| b.list(&kinds::DEPLOYMENTS).is_empty()).await;
    bench.create(&kinds::DEPLOYMENTS, "web", labelled(&json!({"replicas": 2}))).await;
    let reported = |b: &Bench| b.list(&kinds::DEPLOYMENTS)[0]["status"]["readyReplicas"] == 2;
    bench.until_run("the deployment has its pods", reported).await;
    assert_eq!((uids(&bench, &kinds::REPLICA_SETS), uids(&bench, &kinds::PODS)), before);
}

#[tokio::test]
async fn a_pod_with_other_labels_is_let_go_and_replaced() {
    let bench = with_pods(2).await;
    let name = object::name(&bench.list(&kinds::PODS)[0]).to_owned();
    let other = json!({"metadata": {"labels": {"app": "looked-at"}}});
    bench.set(&kinds::PODS, Some("default"), &name, Part::Whole, other).await;
    let alone = |b: &Bench| b.list(&kinds::PODS).into_iter().find(|pod| object::name(pod) == name).unwrap();
    let replaced = |b: &Bench| b.list(&kinds::PODS).len() == 3 && owners(&alone(b)) == 0;
    bench.until_run("it is alone and another in its place", replaced).await;
    assert!(!object::terminating(&alone(&bench)));
}

#[tokio::test]
async fn in_the_foreground_the_owner_goes_last() {
    let bench = with_pods(2).await;
    delete(&bench, &kinds::DEPLOYMENTS, "web", Propagation::Foreground).await;
    let ending = |b: &Bench| b.list(&kinds::PODS).iter().all(|pod| object::terminating(pod));
    // No kubelet lets the pods go, so all of their owners are still there.
    bench.until("the pods are being deleted", ending).await;
    assert_eq!(bench.list(&kinds::PODS).len(), 2);
    let deployment = bench.list(&kinds::DEPLOYMENTS)[0].clone();
    assert_eq!(deployment["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    assert!(bench.list(&kinds::REPLICA_SETS).iter().all(|set| object::terminating(set)));
    bench.until_run("all gone", |b| b.list(&kinds::DEPLOYMENTS).is_empty()).await;
    assert!(bench.list(&kinds::REPLICA_SETS).is_empty() && bench.list(&kinds::PODS).is_empty());
}

#[tokio::test]
async fn an_object_with_another_owner_stays() {
    let bench = bench(0).await;
    let map = |name: &str, owners: &[&Value]| {
        let one = |owner: &&Value| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "blockOwnerDeletion": true,
            "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]})
        };
        json!({"metadata": {"name": name, "ownerReferences": owners.iter().map(one).collect::<Vec<_>>()}})
    };
    let make = |object| bench.registry.create(&kinds::CONFIG_MAPS, Some("default"), object);
    let (a, b) = (make(map("a", &[])).await.unwrap(), make(map("b", &[])).await.unwrap());
    make(map("c", &[&a, &b])).await.unwrap();
    delete(&bench, &kinds::CONFIG_MAPS, "a", Propagation::Foreground).await;
    bench.until("a gone", |b| b.list(&kinds::CONFIG_MAPS).len() == 2).await;
    assert_eq!(owners(&bench.registry.get(&kinds::CONFIG_MAPS, Some("default"), "c").await.unwrap()), 1);
    delete(&bench, &kinds::CONFIG_MAPS, "b", Propagation::Background).await;
    bench.until("c gone", |b| b.list(&kinds::CONFIG_MAPS).is_empty()).await;
}

#[tokio::test]
async fn a_budget_counts_and_refuses() {
    let bench = with_pods(3).await;
    let spec = json!({"maxUnavailable": 1, "selector": {"matchLabels": {"app": "x"}}});
    bench.create(&kinds::POD_DISRUPTION_BUDGETS, "web", spec).await;
    let status = |b: &Bench| b.list(&kinds::POD_DISRUPTION_BUDGETS)[0]["status"].clone();
    bench.until("the budget is counted", |b| status(b)["disruptionsAllowed"] == 1).await;
    let counts = status(&bench);
    assert_eq!(
        (&counts["expectedPods"], &counts["desiredHealthy"], &counts["currentHealthy"]),
        (&json!(3), &json!(2), &json!(3))
    );
    let pods = bench.list(&kinds::PODS);
    let evict =
        |i: usize| bench.registry.evict(Some("default"), object::name(&pods[i]), DeleteOptions::default());
    evict(0).await.unwrap();
    let error = evict(1).await.unwrap_err();
    assert_eq!((error.code, &error.details["causes"][0]["reason"]), (429, &json!("DisruptionBudget")));
    let run = |b: &Bench| status(b)["disruptionsAllowed"] == 1 && status(b)["disruptedPods"] == json!({});
    bench.until_run("another runs in its place", run).await;
    evict(1).await.unwrap();
    let none = json!({"spec": {"maxUnavailable": 0}});
    bench.set(&kinds::POD_DISRUPTION_BUDGETS, Some("default"), "web", Part::Whole, none).await;
    evict(2).await.unwrap_err();
}
