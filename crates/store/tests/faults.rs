//! What the store does when the API fails (F22 to F27): the old state serves, nothing is
//! removed that is not gone, and it catches up.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

mod fake;

use std::time::{Duration, Instant, SystemTime};

use fake::{Fake, Fault, eventually, follow, has, pod};
use serde_json::json;
use weft_store::{Freshness, Update};

const PODS: usize = 1200;

fn fresh(update: &Update) -> bool {
    update.freshness == Freshness::Fresh
}

/// Runs one fault on a request of a store in step: a change made meanwhile must arrive, a
/// deletion made meanwhile too, and no other pod may ever be missing.
async fn survives(faults: &[(&'static str, Fault)]) -> Fake {
    let fake = Fake::start(PODS).await;
    fake.put("pods", pod("doomed", "10.245.0.1"));
    let mut store = fake.store(None).await;
    let first = follow(&mut store, PODS, fresh).await;
    assert_eq!(first[0].changes.pods.len(), PODS + 1, "the first update names every key");
    // From now on faults: the next watch of pods meets them, after this one has ended.
    for (request, fault) in faults {
        fake.fault(request, fault.clone());
    }
    let before = fake.count("watch pods");
    eventually("another watch", || fake.count("watch pods") > before).await;
    fake.put("pods", pod("late", "10.245.0.2"));
    fake.remove("pods", "doomed");
    follow(&mut store, PODS, |u| has(u, "late") && !has(u, "doomed") && fresh(u)).await;
    fake
}

#[tokio::test]
async fn a_watch_torn_inside_an_event() {
    let line = json!({"type": "ADDED", "object": pod("half", "10.245.0.9")}).to_string();
    let fake = survives(&[("watch pods", Fault::Torn(line[..line.len() / 2].to_owned()))]).await;
    assert_eq!(fake.count("list pods"), 3, "a torn watch needs no new list");
}

#[tokio::test]
async fn a_watch_that_ends_inside_an_event() {
    let line = json!({"type": "ADDED", "object": pod("half", "10.245.0.9")}).to_string();
    survives(&[("watch pods", Fault::Whole(line[..line.len() / 2].to_owned()))]).await;
}

#[tokio::test]
async fn a_watch_of_garbage() {
    survives(&[("watch pods", Fault::Whole("<html>bad gateway</html>\n".to_owned()))]).await;
}

#[tokio::test]
async fn a_watch_answered_with_410_lists_again_whole() {
    let fake = survives(&[("watch pods", Fault::Refuse(410, None))]).await;
    assert_eq!(fake.count("list pods"), 6);
}

#[tokio::test]
async fn an_error_event_lists_again() {
    let status = json!({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}});
    let fake = survives(&[("watch pods", Fault::Whole(format!("{status}\n")))]).await;
    assert_eq!(fake.count("list pods"), 6);
}

#[tokio::test]
async fn a_watch_that_stutters_bookmarks_and_repeats_itself() {
    let old = json!({"type": "DELETED", "object": {"metadata": {"name": "base-7", "namespace": "default", "resourceVersion": "1"}}});
    let bad = json!({"type": "MODIFIED", "object": {"metadata": {"name": "base-8", "namespace": "default", "resourceVersion": "1201"}, "status": {"podIP": "nonsense"}}});
    let back = json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "3"}}});
    let text = format!("{old}\n{bad}\n{back}\n{old}\n");
    let parts = text.as_bytes().chunks(7).map(|c| String::from_utf8_lossy(c).into_owned()).collect();
    survives(&[("watch pods", Fault::Stutter(parts))]).await;
}

#[tokio::test]
async fn a_storm_of_503_and_429_in_the_middle_of_a_list() {
    let fake = survives(&[
        ("watch pods", Fault::Refuse(410, None)),
        ("list pods", Fault::Refuse(503, None)),
        ("list pods", Fault::Refuse(429, Some(1))),
        ("list pods", Fault::Refuse(500, None)),
    ])
    .await;
    assert_eq!(fake.count("list pods"), 3 + 3 + 3);
}

#[tokio::test]
async fn a_list_cut_short_is_never_applied() {
    let cut = r#"{"kind":"PodList","metadata":{"resourceVersion":"5000"},"items":[{"metadata":{"name":"ba"#;
    survives(&[
        ("watch pods", Fault::Refuse(410, None)),
        ("list pods", Fault::Torn(cut.to_owned())),
        ("list pods", Fault::Whole(cut.to_owned())),
        ("list pods", Fault::Whole("{}".to_owned())),
        ("list pods", Fault::Whole(r#"{"kind":"Status","code":200}"#.to_owned())),
    ])
    .await;
}

#[tokio::test]
async fn a_continue_token_that_expires_restarts_the_list() {
    let fake = Fake::start(PODS).await;
    let first = json!({"metadata": {"resourceVersion": "9", "continue": "500"}, "items": []}).to_string();
    fake.fault("list pods", Fault::Whole(first));
    fake.fault("list pods", Fault::Refuse(410, None));
    let mut store = fake.store(None).await;
    follow(&mut store, PODS, fresh).await;
    assert_eq!(fake.count("list pods"), 3, "a page, the refusal, and one list without pages");
}

#[tokio::test]
async fn a_black_hole_is_noticed_without_a_reset() {
    survives(&[("watch pods", Fault::Silence), ("watch pods", Fault::Hang)]).await;
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let fake = Fake::start(1).await;
    fake.fault("list pods", Fault::Refuse(429, Some(2)));
    let began = Instant::now();
    let mut store = fake.store(None).await;
    follow(&mut store, 1, fresh).await;
    assert!(began.elapsed() >= Duration::from_secs(2));
}

#[tokio::test]
async fn an_expired_token_is_read_again() {
    let fake = Fake::start(1).await;
    fake.lock().token = Some("right".to_owned());
    let mut store = fake.store(None).await;
    follow(&mut store, 1, fresh).await;
    fake.lock().token = Some("renewed".to_owned());
    follow(&mut store, 1, |update| !fresh(update)).await;
    fake.write_kubeconfig("renewed");
    fake.put("pods", pod("late", "10.245.0.2"));
    follow(&mut store, 1, |update| has(update, "late") && fresh(update)).await;
}

#[tokio::test]
async fn the_first_update_waits_for_both_kinds() {
    let fake = Fake::start(3).await;
    fake.fault("list nodes", Fault::Refuse(503, None));
    fake.fault("list pods", Fault::Refuse(503, None));
    fake.fault("list pods", Fault::Refuse(503, None));
    let mut store = fake.store(None).await;
    assert!(store.cluster().is_none());
    let update = store.changed().await;
    assert_eq!((update.cluster.nodes.len(), update.cluster.pods.len()), (1, 3));
    assert!(store.cluster().is_some());
}

#[tokio::test]
async fn an_api_that_goes_and_returns_costs_no_list() {
    let fake = Fake::start(5).await;
    let mut store = fake.store(None).await;
    follow(&mut store, 5, fresh).await;
    let began = SystemTime::now();
    fake.stop().await;
    let seen = follow(&mut store, 5, |update| !fresh(update)).await;
    let Some(Update { freshness: Freshness::Stale { since, reason }, .. }) = seen.last() else {
        unreachable!()
    };
    assert!(*since <= SystemTime::now() && *since + Duration::from_secs(10) > began);
    assert!(reason.contains("not reachable"), "{reason}");
    fake.put("pods", pod("meanwhile", "10.245.0.3"));
    fake.serve().await;
    follow(&mut store, 5, |update| has(update, "meanwhile") && fresh(update)).await;
    assert_eq!((fake.count("list pods"), fake.count("list nodes")), (1, 1));
}

#[tokio::test]
async fn a_start_without_the_api_serves_the_snapshot_from_disk() {
    let fake = Fake::start(5).await;
    fake.put("pods", pod("doomed", "10.245.0.1"));
    let cache = fake.folder.path().join("cluster.json");
    let mut store = fake.store(Some(&cache)).await;
    follow(&mut store, 5, fresh).await;
    eventually("a snapshot", || cache.exists()).await;
    drop(store);
    fake.stop().await;
    fake.remove("pods", "doomed");

    let mut store = fake.store(Some(&cache)).await;
    let seen = follow(&mut store, 5, |_| true).await;
    assert!(has(&seen[0], "doomed"), "the last known state");
    assert_eq!(seen[0].changes.pods.len(), 6, "with every key");
    let Freshness::Stale { since, .. } = seen[0].freshness else { panic!("{:?}", seen[0].freshness) };
    assert!(since.elapsed().unwrap() < Duration::from_secs(60));
    fake.serve().await;
    let seen = follow(&mut store, 5, |update| fresh(update) && !has(update, "doomed")).await;
    let named: Vec<_> =
        seen.iter().flat_map(|update| &update.changes.pods).map(|key| key.to_string()).collect();
    assert_eq!(named, ["default/doomed"], "only what differs from the snapshot");
}

#[tokio::test]
async fn without_the_api_and_with_a_broken_snapshot_nothing_is_served() {
    let fake = Fake::without_server(2).await;
    let cache = fake.folder.path().join("cluster.json");
    std::fs::write(&cache, "{\"version\":1,\"at\":1,\"no").unwrap();
    let mut store = fake.store(Some(&cache)).await;
    let early = tokio::time::timeout(Duration::from_millis(500), store.changed()).await;
    assert!(early.is_err(), "an unknown cluster is not an empty one");
    fake.serve().await;
    follow(&mut store, 2, fresh).await;
}

#[tokio::test]
async fn ten_thousand_events_are_coalesced_by_key() {
    let fake = Fake::start(50).await;
    let mut store = fake.store(None).await;
    follow(&mut store, 50, fresh).await;
    for i in 0..10_000 {
        fake.put("pods", pod(&format!("busy-{}", i % 100), &format!("10.250.{}.{}", i / 250, i % 250)));
        if i % 500 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let last = |update: &Update| {
        let busy = update.cluster.pods.get(&weft_model::PodKey::new("default", "busy-99"));
        busy.is_some_and(|pod| pod.ips == ["10.250.39.249".parse::<std::net::IpAddr>().unwrap()])
    };
    // A slow reader: it finds one update with each key once, however many events there were.
    eventually("the last event", || {
        store.cluster().is_some_and(|cluster| {
            let busy = cluster.pods.get(&weft_model::PodKey::new("default", "busy-99"));
            busy.is_some_and(|pod| pod.ips == ["10.250.39.249".parse::<std::net::IpAddr>().unwrap()])
        })
    })
    .await;
    let seen = follow(&mut store, 50, last).await;
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].changes.pods.len(), 100);
}
