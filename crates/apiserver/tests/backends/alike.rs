//! The suite that both backends pass.

use std::sync::Arc;

use serde_json::{Value, json};
use weft_apiserver::{ApiError, DeleteOptions, Part, Patch, Registry, kinds};

use super::mirror::{Mirror, watch};
use super::{Bed, map};

const NS: Option<&str> = Some("default");

fn number(object: &Value) -> u64 {
    object["data"]["n"].as_str().unwrap().parse().unwrap()
}

pub(crate) async fn add_one(registry: &Registry, name: &str) -> Result<Arc<Value>, ApiError> {
    let add = |object: &mut Value| {
        object["data"]["n"] = json!((number(object) + 1).to_string());
        Ok(())
    };
    registry.modify(&kinds::CONFIG_MAPS, NS, name, Part::Whole, add).await
}

pub(crate) async fn churn(registry: Registry, writer: usize, rounds: usize) {
    let r = &kinds::CONFIG_MAPS;
    for round in 0..rounds {
        let name = format!("w{writer}-{}", round % 7);
        let patch = Patch::Merge(json!({"data": {"n": round.to_string()}}));
        if registry.patch(r, NS, &name, Part::Whole, patch).await.is_err() {
            registry.create(r, NS, map(&name, 0)).await.unwrap();
        }
        if round % 5 == 4 {
            registry.delete(r, NS, &name, DeleteOptions::default()).await.unwrap();
        }
    }
}

pub(crate) async fn a_stale_update_conflicts(bed: &Bed) {
    let registry = bed.open().await;
    let r = &kinds::CONFIG_MAPS;
    let first = registry.create(r, NS, map("a", 0)).await.unwrap();
    let mut mine = (*first).clone();
    mine["data"]["n"] = json!("1");
    let mut other = mine.clone();
    other["data"]["n"] = json!("2");
    let updated = registry.update(r, NS, mine).await.unwrap();
    let error = registry.update(r, NS, other).await.unwrap_err();
    assert_eq!((error.code, &*error.reason), (409, "Conflict"));
    assert_eq!(registry.get(r, NS, "a").await.unwrap(), updated);
    let gone = registry.delete(r, NS, "a", DeleteOptions::default()).await.unwrap();
    assert_eq!(gone["data"], updated["data"]);
    let error = registry.delete(r, NS, "a", DeleteOptions::default()).await.unwrap_err();
    assert_eq!(error.code, 404);
}

pub(crate) async fn no_change_is_lost_between_concurrent_writers(bed: &Bed) {
    let registry = bed.open().await;
    registry.create(&kinds::CONFIG_MAPS, NS, map("sum", 0)).await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let registry = registry.clone();
        writers.spawn(async move {
            for _ in 0..10 {
                add_one(&registry, "sum").await.unwrap();
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    assert_eq!(number(&registry.get(&kinds::CONFIG_MAPS, NS, "sum").await.unwrap()), 80);
}

pub(crate) async fn a_name_is_taken_once(bed: &Bed) {
    let registry = bed.open().await;
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..16 {
        let registry = registry.clone();
        writers.spawn(async move { registry.create(&kinds::CONFIG_MAPS, NS, map("one", n)).await });
    }
    let mut made = 0;
    while let Some(done) = writers.join_next().await {
        match done.unwrap() {
            Ok(_) => made += 1,
            Err(error) => assert_eq!(&*error.reason, "AlreadyExists"),
        }
    }
    assert_eq!(made, 1);
}

pub(crate) async fn watches_see_everything_in_order(bed: &Bed) {
    let registry = bed.open().await;
    let start = registry.list(&kinds::CONFIG_MAPS, NS).1;
    let mut watchers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let events = watch(&registry, start);
        watchers.spawn(Mirror::default().follow(events, "end"));
    }
    let mut writers = tokio::task::JoinSet::new();
    (0..4).for_each(|n| drop(writers.spawn(churn(registry.clone(), n, 60))));
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    registry.create(&kinds::CONFIG_MAPS, NS, map("end", 0)).await.unwrap();
    let objects = registry.list(&kinds::CONFIG_MAPS, NS).0;
    let objects: Vec<&Value> = objects.iter().map(|o| &**o).collect();
    let mut orders = Vec::new();
    while let Some(mirror) = watchers.join_next().await {
        let mirror = mirror.unwrap();
        assert_eq!(mirror.objects.values().collect::<Vec<_>>(), objects);
        orders.push(mirror.seen);
    }
    assert!(orders.windows(2).all(|pair| pair[0] == pair[1]));
}

pub(crate) async fn a_restarted_server_goes_on_where_it_was(bed: &Bed) {
    let registry = bed.open().await;
    let start = registry.list(&kinds::CONFIG_MAPS, NS).1;
    churn(registry.clone(), 0, 40).await;
    let middle = registry.list(&kinds::CONFIG_MAPS, NS).1;
    churn(registry.clone(), 1, 40).await;
    registry.create(&kinds::CONFIG_MAPS, NS, map("end", 0)).await.unwrap();
    let before = registry.list(&kinds::CONFIG_MAPS, NS);
    let whole = Mirror::default().follow(watch(&registry, start), "end").await;
    drop(registry);
    let registry = bed.open().await;
    let after = registry.list(&kinds::CONFIG_MAPS, NS);
    assert_eq!(before.0, after.0);
    assert!(after.1 >= before.1, "resourceVersions never go back");
    let again = Mirror::default().follow(watch(&registry, start), "end").await;
    assert_eq!((&again.seen, &again.objects), (&whole.seen, &whole.objects));
    // From the middle, one sees the rest.
    let mut rest = watch(&registry, middle);
    for (rv, _) in whole.seen.iter().filter(|(rv, _)| *rv > middle) {
        assert_eq!(rest.next().await.unwrap().rv, *rv);
    }
    let made = registry.create(&kinds::CONFIG_MAPS, NS, map("new", 0)).await.unwrap();
    assert_eq!(
        rest.next().await.unwrap().rv.to_string(),
        made["metadata"]["resourceVersion"].as_str().unwrap()
    );
}

pub(crate) async fn positions_outside_the_history_expire(bed: &Bed) {
    let registry = bed.open().await;
    let now = registry.list(&kinds::CONFIG_MAPS, NS).1;
    let code = |watch: Result<_, ApiError>| watch.err().map(|e| e.code);
    assert_eq!(code(registry.watch(&kinds::CONFIG_MAPS, NS, now + 1_000_000)), Some(410));
    let mut slow = registry.watch(&kinds::CONFIG_MAPS, NS, now).unwrap();
    registry.create(&kinds::CONFIG_MAPS, NS, map("a", 0)).await.unwrap();
    // Former objects of half a megabyte: the history holds bytes, not only a number of events.
    let large = "x".repeat(512 * 1024);
    for n in 0..48 {
        let patch = Patch::Merge(json!({"data": {"fill": large, "n": n.to_string()}}));
        registry.patch(&kinds::CONFIG_MAPS, NS, "a", Part::Whole, patch).await.unwrap();
    }
    assert_eq!(slow.next().await.err().map(|e| e.code), Some(410));
    assert_eq!(code(registry.watch(&kinds::CONFIG_MAPS, NS, now)), Some(410));
    // Kinds that had no events since go on.
    assert!(registry.watch(&kinds::SECRETS, NS, now).is_ok());
}

pub(crate) async fn a_write_is_seen_by_the_next_read(bed: &Bed) {
    let registry = bed.open().await;
    for n in 0..50 {
        let name = format!("m{n}");
        registry.create(&kinds::CONFIG_MAPS, NS, map(&name, n)).await.unwrap();
        assert_eq!(registry.list(&kinds::CONFIG_MAPS, NS).0.len() as u64, n + 1);
        registry.delete(&kinds::CONFIG_MAPS, NS, &name, DeleteOptions::default()).await.unwrap();
        assert_eq!(registry.get(&kinds::CONFIG_MAPS, NS, &name).await.unwrap_err().code, 404);
        registry.create(&kinds::CONFIG_MAPS, NS, map(&name, n)).await.unwrap();
    }
}

pub(crate) async fn what_is_too_large_or_too_deep_is_refused(bed: &Bed) {
    let registry = bed.open().await;
    let fill = "x".repeat(4 * 1024 * 1024);
    let large = json!({"metadata": {"name": "large"}, "revision": 1, "data": {"fill": fill}});
    let error = registry.create(&kinds::CONTROLLER_REVISIONS, NS, large).await.unwrap_err();
    assert_eq!((error.code, &*error.reason), (413, "RequestEntityTooLarge"));
    let mut deep = json!(1);
    for _ in 0..200 {
        deep = json!({"a": deep});
    }
    let mut object = map("deep", 0);
    object["metadata"]["annotations"] = json!({});
    registry.create(&kinds::CONFIG_MAPS, NS, object).await.unwrap();
    let nest = move |object: &mut Value| {
        object["nested"] = deep.clone();
        Ok(())
    };
    let error = registry.modify(&kinds::CONFIG_MAPS, NS, "deep", Part::Whole, nest).await.unwrap_err();
    assert!(matches!(error.code, 400 | 422), "{error}");
    registry.create(&kinds::CONFIG_MAPS, NS, map("after", 0)).await.unwrap();
}

pub(crate) async fn a_write_that_panics_harms_no_other(bed: &Bed) {
    let registry = bed.open().await;
    registry.create(&kinds::CONFIG_MAPS, NS, map("a", 0)).await.unwrap();
    let fail = |_: &mut Value| panic!("as a bug would");
    let error = registry.modify(&kinds::CONFIG_MAPS, NS, "a", Part::Whole, fail).await.unwrap_err();
    assert_eq!(error.code, 500);
    add_one(&registry, "a").await.unwrap();
}
