//! Lists in pages and at versions, and watches that begin with a state, over HTTPS.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::Running;
use common::raw::{get, get_as, post, watch, watch_as};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

async fn put(server: &Running, names: &[&str]) {
    for name in names {
        assert_eq!(post(server, MAPS, &json!({"metadata": {"name": name}, "data": {"a": "b"}})).await.0, 201);
    }
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].as_str().unwrap()).collect()
}

fn version(value: &Value) -> &str {
    value["metadata"]["resourceVersion"].as_str().unwrap()
}

#[tokio::test]
async fn pages_are_of_one_state_and_say_what_is_left() {
    let server = Running::start();
    put(&server, &["a", "b", "c", "d", "e"]).await;
    let first = get(&server, &format!("{MAPS}?limit=2")).await.1;
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["a", "b"], &json!(3)));
    let delete = common::raw::send(&server, "DELETE", &format!("{MAPS}/d"), "", b"").await;
    assert_eq!(delete.0, 200);
    put(&server, &["bb"]).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let rest = get(&server, &format!("{MAPS}?limit=9&continue={token}")).await.1;
    assert_eq!((names(&rest), version(&rest)), (vec!["c", "d", "e"], version(&first)), "as it was");
    assert_eq!(rest["metadata"].get("remainingItemCount"), None);
    let selected = get(&server, &format!("{MAPS}?limit=2&labelSelector=!x")).await.1;
    assert_eq!(selected["metadata"].get("remainingItemCount"), None, "nobody counts behind a selector");
    let at = version(&first);
    let exact = get(&server, &format!("{MAPS}?resourceVersion={at}&resourceVersionMatch=Exact")).await.1;
    assert_eq!((names(&exact), version(&exact)), (vec!["a", "b", "c", "d", "e"], at));
    let newest = get(&server, &format!("{MAPS}?resourceVersion={at}")).await.1;
    assert_eq!(names(&newest), ["a", "b", "bb", "c", "e"]);
}

#[tokio::test]
async fn a_version_that_is_not_there_yet_times_out() {
    let server = Running::start();
    put(&server, &["a"]).await;
    for query in [
        "?resourceVersion=999999",
        "?resourceVersion=999999&resourceVersionMatch=Exact",
        "/a?resourceVersion=999999",
    ] {
        let (code, status) = get(&server, &format!("{MAPS}{query}")).await;
        assert_eq!((code, &status["reason"]), (504, &json!("Timeout")), "{query}");
        assert_eq!(status["details"]["causes"][0]["reason"], "ResourceVersionTooLarge", "{query}");
    }
    let (code, status) = get(&server, &format!("{MAPS}?resourceVersionMatch=Exact")).await;
    assert_eq!((code, &status["details"]["kind"]), (422, &json!("ListOptions")));
}

#[tokio::test]
async fn an_expired_page_can_be_gone_on_with() {
    let server = Running::start();
    put(&server, &["a", "b"]).await;
    // From a store that was ahead of this one.
    let token = "OTk5OTk5IGNvcmUvY29uZmlnbWFwcy9kZWZhdWx0L2E";
    let (code, status) = get(&server, &format!("{MAPS}?limit=1&continue={token}")).await;
    assert_eq!((code, &status["reason"]), (410, &json!("Expired")), "{status}");
    let fresh = status["metadata"]["continue"].as_str().unwrap();
    let rest = get(&server, &format!("{MAPS}?limit=1&continue={fresh}")).await.1;
    assert_eq!(names(&rest), ["b"]);
}

/// The next event that is no bookmark: on a slow machine one comes between.
async fn change(events: &mut tokio::sync::mpsc::UnboundedReceiver<Value>) -> Value {
    loop {
        let event = events.recv().await.unwrap();
        if event["type"] != "BOOKMARK" {
            return event;
        }
    }
}

#[tokio::test]
async fn a_watch_begins_with_the_state_and_tells_its_end() {
    let server = Running::start();
    put(&server, &["a", "b"]).await;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut events = watch(&server, &format!("{MAPS}?{query}")).await;
    for name in ["a", "b"] {
        let event = events.recv().await.unwrap();
        assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!("ADDED"), &json!(name)));
    }
    let end = events.recv().await.unwrap();
    assert_eq!(end["type"], "BOOKMARK");
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    put(&server, &["c"]).await;
    assert_eq!(change(&mut events).await["object"]["metadata"]["name"], "c");
    let mut later = watch(&server, &format!("{MAPS}?{}", query.replace("Events=true", "Events=false"))).await;
    put(&server, &["d"]).await;
    assert_eq!(change(&mut later).await["object"]["metadata"]["name"], "d");
    let from = format!("{MAPS}?{query}&resourceVersion=999999");
    let error = watch(&server, &from).await.recv().await.unwrap();
    assert_eq!((&error["type"], &error["object"]["code"]), (&json!("ERROR"), &json!(504)));
    assert_eq!(get(&server, &format!("{MAPS}?watch=1&sendInitialEvents=true")).await.0, 422);
}

#[tokio::test]
async fn metadata_alone_is_shown_when_asked_for() {
    let server = Running::start();
    put(&server, &["a"]).await;
    let one = get_as(&server, &format!("{MAPS}/a"), METADATA).await.1;
    assert_eq!(
        (&one["kind"], &one["apiVersion"]),
        (&json!("PartialObjectMetadata"), &json!("meta.k8s.io/v1"))
    );
    assert!(one["metadata"]["uid"].is_string() && one.get("data").is_none());
    let list = get_as(&server, MAPS, &METADATA.replace("Metadata;", "MetadataList;")).await.1;
    assert_eq!((&list["kind"], &list["items"][0]), (&json!("PartialObjectMetadataList"), &one));
    let event = watch_as(&server, &format!("{MAPS}?watch=1"), METADATA).await.recv().await.unwrap();
    assert_eq!(event["object"], one);
    assert_eq!(get_as(&server, MAPS, "application/json;as=Foo").await.0, 406);
    let (_, body) = common::raw::text(&server, &format!("{MAPS}/a?pretty=true")).await;
    assert!(body.contains("\n  \"metadata\": {"), "{body}");
}
