//! Watches miss nothing and repeat nothing, however many write, and resume where they were.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use weft_apiserver::{DeleteOptions, Event, EventKind, Part, Patch, Registry, RegistryConfig, Watch, kinds};

const WRITERS: usize = 8;
const ROUNDS: usize = 150;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

async fn registry() -> (tempfile::TempDir, Registry) {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path(), RegistryConfig::default()).await.unwrap();
    (dir, registry)
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"n": "0"}})
}

async fn churn(registry: Registry, writer: usize) {
    let (r, ns) = (&kinds::CONFIG_MAPS, Some("default"));
    for round in 0..ROUNDS {
        let name = format!("w{writer}-{}", round % 7);
        let patch = Patch::Merge(json!({"data": {"n": round.to_string()}}));
        if registry.patch(r, ns, &name, Part::Whole, patch).await.is_err() {
            registry.create(r, ns, map(&name)).await.unwrap();
        }
        if round % 5 == 4 {
            registry.delete(r, ns, &name, DeleteOptions::default()).await.unwrap();
        }
    }
}

/// A client's view, kept from events alone.
#[derive(Default)]
struct Mirror {
    objects: BTreeMap<String, Arc<Value>>,
    rv: u64,
}

impl Mirror {
    fn take(&mut self, event: &Event) {
        assert!(event.rv > self.rv, "events come once and in order");
        self.rv = event.rv;
        let object = event.object.parse();
        assert_eq!(object["metadata"]["resourceVersion"], event.rv.to_string());
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let known = match event.kind {
            EventKind::Deleted => self.objects.remove(&name),
            _ => self.objects.insert(name, object),
        };
        assert_eq!(known.is_none(), event.kind == EventKind::Added);
        assert_eq!(known, event.previous.as_ref().map(|o| o.parse()));
    }
}

async fn follow(
    mut watch: Watch,
    until: tokio::sync::watch::Receiver<Option<u64>>,
    restart: bool,
    registry: Registry,
) -> Mirror {
    let mut mirror = Mirror::default();
    let mut seen = 0;
    loop {
        let end = *until.borrow();
        match watch.try_next().unwrap() {
            Some(event) => mirror.take(&event),
            None if end.is_some_and(|end| mirror.rv >= end) => return mirror,
            None => tokio::task::yield_now().await,
        }
        seen += 1;
        // Dropped and taken up again from what was seen last.
        if restart && seen % 50 == 0 && mirror.rv > 0 {
            watch = registry.watch(&kinds::CONFIG_MAPS, Some("default"), mirror.rv).unwrap();
        }
    }
}

#[test]
fn nothing_is_missed_under_concurrent_writers() {
    block_on(async {
        let (_dir, registry) = registry().await;
        let (r, ns) = (&kinds::CONFIG_MAPS, Some("default"));
        let start = registry.list(r, ns).1;
        let (end, until) = tokio::sync::watch::channel(None);
        let mut watchers = tokio::task::JoinSet::new();
        for n in 0..6 {
            let watch = registry.watch(r, ns, start).unwrap();
            watchers.spawn(follow(watch, until.clone(), n % 2 == 1, registry.clone()));
        }
        let mut writers = tokio::task::JoinSet::new();
        (0..WRITERS).for_each(|n| drop(writers.spawn(churn(registry.clone(), n))));
        while let Some(done) = writers.join_next().await {
            done.unwrap();
        }
        registry.create(r, ns, map("last")).await.unwrap();
        let (objects, rv) = registry.list(r, ns);
        end.send_replace(Some(rv));
        let expected: Vec<_> = objects.iter().map(|o| (**o).clone()).collect();
        while let Some(mirror) = watchers.join_next().await {
            let mirror = mirror.unwrap();
            assert_eq!(mirror.objects.values().map(|o| (**o).clone()).collect::<Vec<_>>(), expected);
        }
    });
}

#[test]
fn a_watch_waits_and_wakes() {
    block_on(async {
        let (_dir, registry) = registry().await;
        let (r, ns) = (&kinds::CONFIG_MAPS, Some("default"));
        let mut watch = registry.watch(r, ns, registry.list(r, ns).1).unwrap();
        let waiting = tokio::spawn(async move { watch.next().await.unwrap() });
        // Another kind and another namespace do not wake it.
        registry.create(&kinds::SECRETS, ns, json!({"metadata": {"name": "s"}})).await.unwrap();
        registry.create(r, Some("kube-system"), map("other")).await.unwrap();
        registry.create(r, ns, map("mine")).await.unwrap();
        assert_eq!(waiting.await.unwrap().object.parse()["metadata"]["name"], "mine");
    });
}

#[test]
fn a_restarted_server_resumes() {
    block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let (r, ns) = (&kinds::CONFIG_MAPS, Some("default"));
        let open = async || loop {
            // The last server's writer may still hold the file.
            if let Ok(registry) = Registry::open(dir.path(), RegistryConfig::default()).await {
                return registry;
            }
        };
        let registry = open().await;
        registry.create(r, ns, map("a")).await.unwrap();
        let before = registry.list(r, ns).1;
        registry.create(r, ns, map("b")).await.unwrap();
        let after = registry.list(r, ns).1;
        // Other kinds' writes do not make a position of this kind older.
        registry.create(&kinds::SECRETS, ns, json!({"metadata": {"name": "s"}})).await.unwrap();
        drop(registry);
        let registry = open().await;
        // The history is on the disk too: nothing is missed.
        for (from, names) in [(before, &["b", "c"][..]), (after, &["c"])] {
            let mut watch = registry.watch(r, ns, from).unwrap();
            let _ = registry.create(r, ns, map("c")).await;
            for name in names {
                assert_eq!(watch.next().await.unwrap().object.parse()["metadata"]["name"], *name);
            }
        }
        assert_eq!(registry.watch(r, ns, 1_000_000).err().map(|e| e.code), Some(410));
    });
}

#[test]
fn a_position_beyond_the_history_expires() {
    block_on(async {
        let (_dir, registry) = registry().await;
        let (r, ns) = (&kinds::CONFIG_MAPS, Some("default"));
        registry.create(r, ns, map("a")).await.unwrap();
        let start = registry.list(r, ns).1;
        let mut slow = registry.watch(r, ns, start).unwrap();
        let mut writes = tokio::task::JoinSet::new();
        for n in 0..9000 {
            let registry = registry.clone();
            writes.spawn(async move {
                let patch = Patch::Merge(json!({"data": {"n": format!("x{n}")}}));
                registry.patch(&kinds::CONFIG_MAPS, Some("default"), "a", Part::Whole, patch).await.unwrap();
            });
        }
        while writes.join_next().await.is_some() {}
        assert_eq!(slow.next().await.err().map(|e| e.code), Some(410));
        assert_eq!(registry.watch(r, ns, start).err().map(|e| e.code), Some(410));
    });
}

#[test]
fn a_stale_update_conflicts() {
    block_on(async {
        let (_dir, registry) = registry().await;
        let (r, ns) = (&kinds::CONFIG_MAPS, Some("default"));
        let first = registry.create(r, ns, map("a")).await.unwrap();
        let mut mine = (*first).clone();
        mine["data"]["n"] = json!("1");
        let mut other = mine.clone();
        other["data"]["n"] = json!("2");
        registry.update(r, ns, mine).await.unwrap();
        let error = registry.update(r, ns, other).await.unwrap_err();
        assert_eq!((error.code, &*error.reason), (409, "Conflict"));
        assert_eq!(registry.get(r, ns, "a").await.unwrap()["data"]["n"], "1");
    });
}
