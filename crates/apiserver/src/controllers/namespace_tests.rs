//! The end of namespaces over a real registry.

use serde_json::json;

use super::tests::{Bench, bench, labelled};
use super::*;
use crate::kinds;
use crate::registry::{DeleteOptions, Part};

#[tokio::test]
async fn a_namespace_goes_with_all_that_is_in_it() {
    let bench = bench(1).await;
    let registry = &bench.registry;
    registry.create(&kinds::NAMESPACES, None, json!({"metadata": {"name": "shop"}})).await.unwrap();
    let deployment = json!({"metadata": {"name": "web"}, "spec": labelled(&json!({"replicas": 3}))});
    registry.create(&kinds::DEPLOYMENTS, Some("shop"), deployment).await.unwrap();
    registry.create(&kinds::CONFIG_MAPS, Some("shop"), json!({"metadata": {"name": "c"}})).await.unwrap();
    bench.until("three bound pods", |b| b.bound() == 3).await;
    registry.delete(&kinds::NAMESPACES, None, "shop", DeleteOptions::default()).await.unwrap();
    bench
        .until_run("the namespace gone", |b| {
            b.list(&kinds::NAMESPACES).iter().all(|n| object::name(n) != "shop")
        })
        .await;
    for kind in [&kinds::PODS, &kinds::DEPLOYMENTS, &kinds::REPLICA_SETS, &kinds::CONFIG_MAPS] {
        assert!(bench.registry.list(kind, Some("shop")).0.is_empty(), "{}", kind.plural);
    }
}

#[tokio::test]
async fn a_namespace_tells_what_holds_it_and_goes_when_nothing_does() {
    let bench = bench(1).await;
    let registry = &bench.registry;
    registry.create(&kinds::NAMESPACES, None, json!({"metadata": {"name": "shop"}})).await.unwrap();
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let definition = json!({"metadata": {"name": "widgets.example.org"}, "spec": {"group": "example.org",
        "scope": "Namespaced", "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}});
    registry.create(&kinds::CUSTOM_RESOURCE_DEFINITIONS, None, definition).await.unwrap();
    let widgets = registry.kind("example.org", "v1", "widgets").unwrap();
    for (name, finalizers) in [("held", json!(["example.org/hold"])), ("free", json!([]))] {
        let widget = json!({"metadata": {"name": name, "finalizers": finalizers}});
        registry.create(&widgets, Some("shop"), widget).await.unwrap();
    }
    registry.delete(&kinds::NAMESPACES, None, "shop", DeleteOptions::default()).await.unwrap();
    let told = |b: &Bench, kind: &str| {
        let spaces = b.list(&kinds::NAMESPACES);
        let space = spaces.iter().find(|space| object::name(space) == "shop");
        let conditions = space.map(|space| space["status"]["conditions"].clone()).unwrap_or_default();
        let found = object::list(&conditions).find(|c| c["type"] == kind);
        found.map(|c| c["message"].as_str().unwrap_or_default().to_owned())
    };
    let holds =
        "Some content in the namespace has finalizers remaining: example.org/hold in 1 resource instances";
    bench
        .until("the finalizer is named", |b| {
            told(b, "NamespaceFinalizersRemaining").as_deref() == Some(holds)
        })
        .await;
    let remain = "Some resources are remaining: widgets.example.org has 1 resource instances";
    assert_eq!(told(&bench, "NamespaceContentRemaining").as_deref(), Some(remain));
    let free = crate::Patch::Merge(json!({"metadata": {"finalizers": null}}));
    registry.patch(&widgets, Some("shop"), "held", Part::Whole, free).await.unwrap();
    bench
        .until("the namespace gone", |b| b.list(&kinds::NAMESPACES).iter().all(|n| object::name(n) != "shop"))
        .await;
}
