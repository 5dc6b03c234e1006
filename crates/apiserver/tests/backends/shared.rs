//! Several servers over one etcd, and an etcd that goes away.

use std::time::{Duration, Instant};

use serde_json::json;
use weft_apiserver::{DeleteOptions, Part, Patch, Registry, RegistryConfig, kinds};

use super::alike::{add_one, churn};
use super::etcd::Etcd;
use super::mirror::{Mirror, watch};
use super::{block_on, map};

const NS: Option<&str> = Some("default");

async fn open(etcd: &Etcd) -> Registry {
    Registry::open_etcd(&etcd.config(), RegistryConfig::default()).await.unwrap()
}

#[test]
fn racing_servers_agree_on_one_order() {
    block_on(async {
        let etcd = Etcd::start();
        let servers = [open(&etcd).await, open(&etcd).await];
        servers[0].create(&kinds::CONFIG_MAPS, NS, map("sum", 0)).await.unwrap();
        servers[1].get(&kinds::CONFIG_MAPS, NS, "sum").await.unwrap();
        let mut watchers = tokio::task::JoinSet::new();
        for server in &servers {
            let start = server.list(&kinds::NAMESPACES, None).0[0]["metadata"]["resourceVersion"].clone();
            let start: u64 = start.as_str().unwrap().parse().unwrap();
            watchers.spawn(Mirror::default().follow(watch(server, start), "end"));
        }
        let mut writers = tokio::task::JoinSet::new();
        for n in 0..6 {
            let server = servers[n % 2].clone();
            writers.spawn(async move {
                churn(server.clone(), n, 40).await;
                for _ in 0..10 {
                    add_one(&server, "sum").await.unwrap();
                }
            });
        }
        while let Some(done) = writers.join_next().await {
            done.unwrap();
        }
        servers[1].create(&kinds::CONFIG_MAPS, NS, map("end", 0)).await.unwrap();
        let (a, b) =
            (watchers.join_next().await.unwrap().unwrap(), watchers.join_next().await.unwrap().unwrap());
        assert_eq!(a.seen, b.seen);
        assert_eq!(a.objects, b.objects);
        assert_eq!(a.objects["sum"]["data"]["n"], "60");
    });
}

#[test]
fn a_read_sees_what_another_server_wrote() {
    block_on(async {
        let etcd = Etcd::start();
        let (one, other) = (open(&etcd).await, open(&etcd).await);
        for n in 0..100 {
            let name = format!("m{n}");
            let made = one.create(&kinds::CONFIG_MAPS, NS, map(&name, n)).await.unwrap();
            assert_eq!(other.get(&kinds::CONFIG_MAPS, NS, &name).await.unwrap(), made);
            other.delete(&kinds::CONFIG_MAPS, NS, &name, DeleteOptions::default()).await.unwrap();
            // A refusal, too, is by what is, not by what this server saw last.
            one.create(&kinds::CONFIG_MAPS, NS, map(&name, n)).await.unwrap();
        }
    });
}

#[test]
fn a_definition_made_on_one_server_is_served_by_all() {
    block_on(async {
        let etcd = Etcd::start();
        let (one, other) = (open(&etcd).await, open(&etcd).await);
        let version = json!({"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object"}}});
        let definition = json!({"metadata": {"name": "widgets.example.org"}, "spec": {"group": "example.org",
            "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"}, "versions": [version]}});
        one.create(&kinds::CUSTOM_RESOURCE_DEFINITIONS, None, definition).await.unwrap();
        other.get(&kinds::CUSTOM_RESOURCE_DEFINITIONS, None, "widgets.example.org").await.unwrap();
        let widgets = other.kind("example.org", "v1", "widgets").unwrap();
        other.create(&widgets, NS, json!({"metadata": {"name": "w"}})).await.unwrap();
    });
}

#[test]
fn an_etcd_that_is_away_is_told_and_nothing_is_lost() {
    block_on(async {
        let mut etcd = Etcd::start();
        let registry = open(&etcd).await;
        registry.create(&kinds::CONFIG_MAPS, NS, map("a", 0)).await.unwrap();
        let start = registry.list(&kinds::CONFIG_MAPS, NS).1;
        let mut events = watch(&registry, start);
        etcd.kill();
        let began = Instant::now();
        let error = registry.get(&kinds::CONFIG_MAPS, NS, "a").await.unwrap_err();
        assert_eq!((error.code, &*error.reason), (503, "ServiceUnavailable"));
        assert!(error.message.contains("etcd at http://127.0.0.1"), "{error}");
        let error = registry.create(&kinds::CONFIG_MAPS, NS, map("b", 0)).await.unwrap_err();
        assert_eq!((error.code, &*error.reason), (503, "ServiceUnavailable"));
        assert!(began.elapsed() < Duration::from_secs(20), "a refusal comes soon");
        assert!(events.try_next().unwrap().is_none(), "a watch stays");
        etcd.resume();
        let other = open(&etcd).await;
        add_one(&other, "a").await.unwrap();
        assert_eq!(events.next().await.unwrap().object.parse()["data"]["n"], "1");
        assert_eq!(registry.get(&kinds::CONFIG_MAPS, NS, "a").await.unwrap()["data"]["n"], "1");
        add_one(&registry, "a").await.unwrap();
        assert_eq!(events.next().await.unwrap().object.parse()["data"]["n"], "2");
    });
}

#[test]
fn a_server_that_missed_what_etcd_forgot_reads_again() {
    block_on(async {
        let mut etcd = Etcd::start();
        let away = open(&etcd).await;
        away.create(&kinds::CONFIG_MAPS, NS, map("a", 0)).await.unwrap();
        let start = away.list(&kinds::CONFIG_MAPS, NS).1;
        let mut events = watch(&away, start);
        etcd.kill();
        assert_eq!(away.get(&kinds::CONFIG_MAPS, NS, "a").await.unwrap_err().code, 503);
        // It cannot follow from here on: its runtime stands still while others write.
        etcd.resume();
        let data = format!("{}/a", "/weft/objects/core/configmaps/default");
        let text = etcd.ctl(&["get", &data, "--print-value-only"]).unwrap();
        for n in 0..5 {
            etcd.ctl(&["put", &data, &text.trim().replace("\"n\":\"0\"", &format!("\"n\":\"{n}\""))])
                .unwrap();
        }
        let status = etcd.ctl(&["get", &data, "-w", "json"]).unwrap();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        etcd.ctl(&["compact", &status["header"]["revision"].to_string()]).unwrap();
        loop {
            let seen = away.list(&kinds::CONFIG_MAPS, NS).0;
            if seen.iter().any(|o| o["data"]["n"] == "4") {
                break;
            }
            tokio::task::yield_now().await;
        }
        // Either it was quick and saw all, or it says that it did not.
        let mut last = json!(null);
        let told = loop {
            match events.try_next() {
                Ok(Some(event)) => last = event.object.parse()["data"]["n"].clone(),
                Ok(None) => break last == "4",
                Err(error) => break error.code == 410,
            }
        };
        assert!(told);
    });
}

#[test]
fn an_etcd_that_was_set_back_is_read_anew() {
    block_on(async {
        let mut etcd = Etcd::start();
        let registry = open(&etcd).await;
        for n in 0..20 {
            registry.create(&kinds::CONFIG_MAPS, NS, map(&format!("m{n}"), n)).await.unwrap();
        }
        let mut events = watch(&registry, registry.list(&kinds::CONFIG_MAPS, NS).1);
        etcd.kill();
        std::fs::remove_dir_all(etcd.dir().join("data")).unwrap();
        etcd.resume();
        assert_eq!(events.next().await.err().map(|e| e.code), Some(410));
        assert_eq!(registry.list(&kinds::CONFIG_MAPS, NS).0.len(), 0);
        let namespace = json!({"metadata": {"name": "default"}});
        registry.create(&kinds::NAMESPACES, None, namespace).await.unwrap();
        registry.create(&kinds::CONFIG_MAPS, NS, map("new", 0)).await.unwrap();
    });
}

#[test]
fn writes_to_others_objects_do_not_disturb() {
    block_on(async {
        let etcd = Etcd::start();
        let (one, other) = (open(&etcd).await, open(&etcd).await);
        let service = |name: &str| json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
        let mut writers = tokio::task::JoinSet::new();
        for n in 0..20 {
            let server = if n % 2 == 0 { one.clone() } else { other.clone() };
            let service = service(&format!("s{n}"));
            writers.spawn(async move { server.create(&kinds::SERVICES, NS, service).await.unwrap() });
        }
        let mut addresses = std::collections::BTreeSet::new();
        while let Some(made) = writers.join_next().await {
            addresses.insert(made.unwrap()["spec"]["clusterIP"].as_str().unwrap().to_owned());
        }
        assert_eq!(addresses.len(), 20, "no address is given twice");
        let labels = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
        one.patch(&kinds::SERVICES, NS, "s1", Part::Whole, labels).await.unwrap();
    });
}
