//! etcd as operators run it: with TLS, in several members, compacted.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_apiserver::{EtcdConfig, Part, Patch, Registry, RegistryConfig, kinds};

use super::alike::add_one;
use super::etcd::Etcd;
use super::mirror::watch;
use super::{block_on, map};

const NS: Option<&str> = Some("default");

async fn open(config: EtcdConfig) -> Registry {
    Registry::open_etcd(&config, RegistryConfig::default()).await.unwrap()
}

async fn refused(config: EtcdConfig) -> String {
    let registry = Registry::open_etcd(&config, RegistryConfig::default()).await;
    registry.err().expect("it is refused").to_string()
}

/// Adds one until it is done; a write of which nobody knows may be done twice.
async fn surely(registry: &Registry, name: &str) {
    let end = Instant::now() + Duration::from_secs(60);
    while let Err(error) = add_one(registry, name).await {
        assert_eq!((error.code, &*error.reason), (503, "ServiceUnavailable"), "{error}");
        assert!(Instant::now() < end, "{error}");
    }
}

fn number(object: &Value) -> u64 {
    object["data"]["n"].as_str().unwrap().parse().unwrap()
}

#[test]
fn an_etcd_with_tls_knows_its_clients_and_they_know_it() {
    block_on(async {
        let (etcd, other) = (Etcd::start_with_tls(), Etcd::start_with_tls());
        let registry = open(etcd.config()).await;
        registry.create(&kinds::CONFIG_MAPS, NS, map("a", 0)).await.unwrap();
        add_one(&registry, "a").await.unwrap();
        // These are refused at once: no time brings a file back.
        let no_file = EtcdConfig { ca_file: Some("/no/such/file".into()), ..etcd.config() };
        let told = refused(no_file).await;
        assert!(told.contains("/no/such/file cannot be read"), "{told}");
        let told = refused(EtcdConfig { ca_file: None, ..etcd.config() }).await;
        assert!(told.contains("--etcd-cafile"), "{told}");
        let told = refused(EtcdConfig { key_file: None, ..etcd.config() }).await;
        assert!(told.contains("--etcd-certfile and --etcd-keyfile go together"), "{told}");
        let (strange, nobody) = tokio::join!(
            refused(EtcdConfig { ca_file: other.config().ca_file, ..etcd.config() }),
            refused(EtcdConfig { cert_file: None, key_file: None, ..etcd.config() }),
        );
        assert!(strange.contains("certificate"), "{strange}");
        assert!(nobody.contains("https://127.0.0.1"), "{nobody}");
    });
}

#[test]
fn what_is_no_url_is_told() {
    block_on(async {
        let told = refused(EtcdConfig::new(vec!["10.0.0.1:2379".to_owned()])).await;
        assert!(told.contains("10.0.0.1:2379 is no URL such as https://10.0.0.1:2379"), "{told}");
    });
}

#[test]
fn members_that_die_or_stand_still_are_gone_around() {
    block_on(async {
        let mut members = Etcd::three();
        let servers: Vec<String> = members.iter().flat_map(|member| member.config().servers).collect();
        // The first that is asked is away from the start.
        members[0].kill();
        let registry = open(EtcdConfig::new(servers)).await;
        registry.create(&kinds::CONFIG_MAPS, NS, map("a", 0)).await.unwrap();
        let mut events = watch(&registry, registry.list(&kinds::CONFIG_MAPS, NS).1);
        members[0].resume();
        // The one that answers: no write is lost or done twice where it could not be sent.
        members[1].kill();
        surely(&registry, "a").await;
        members[1].resume();
        members[2].signal("STOP");
        surely(&registry, "a").await;
        members[2].signal("CONT");
        members[0].signal("STOP");
        surely(&registry, "a").await;
        members[0].signal("CONT");
        surely(&registry, "a").await;
        let last = registry.get(&kinds::CONFIG_MAPS, NS, "a").await.unwrap();
        assert!(number(&last) >= 4, "{last}");
        let mut seen = 0;
        while seen < number(&last) {
            let event = events.next().await.unwrap();
            seen += 1;
            assert_eq!(number(&event.object.parse()), seen, "no gap");
        }
    });
}

#[test]
fn etcd_forgets_what_is_old_and_servers_go_on() {
    block_on(async {
        let etcd = Etcd::start();
        let config = || EtcdConfig { compaction_interval: Duration::from_millis(100), ..etcd.config() };
        let servers = [open(config()).await, open(config()).await];
        servers[0].create(&kinds::CONFIG_MAPS, NS, map("a", 0)).await.unwrap();
        let start = servers[0].list(&kinds::CONFIG_MAPS, NS).1;
        // Waits until the other one has seen it.
        servers[1].get(&kinds::CONFIG_MAPS, NS, "a").await.unwrap();
        let mut events = [watch(&servers[0], start), watch(&servers[1], start)];
        let old = start.to_string();
        let end = Instant::now() + Duration::from_secs(30);
        let mut writes = 0;
        while etcd.ctl(&["get", "x", "--rev", &old]).is_some() {
            add_one(&servers[writes % 2], "a").await.unwrap();
            writes += 1;
            assert!(Instant::now() < end, "etcd still holds revision {old}");
        }
        add_one(&servers[0], "a").await.unwrap();
        for events in &mut events {
            for n in 1..=writes + 1 {
                assert_eq!(number(&events.next().await.unwrap().object.parse()), n as u64);
            }
        }
        // A new server cannot tell what was before.
        let late = open(etcd.config()).await;
        assert_eq!(late.watch(&kinds::CONFIG_MAPS, NS, start).err().map(|e| e.code), Some(410));
    });
}

#[test]
fn a_full_etcd_is_told_and_goes_on_when_there_is_room() {
    block_on(async {
        let etcd = Etcd::start_with_quota(16 * 1024 * 1024);
        let registry = open(etcd.config()).await;
        registry.create(&kinds::CONFIG_MAPS, NS, map("a", 0)).await.unwrap();
        let fill = "x".repeat(512 * 1024);
        let write = async |n: usize| {
            let patch = Patch::Merge(json!({"data": {"fill": fill, "n": n.to_string()}}));
            registry.patch(&kinds::CONFIG_MAPS, NS, "a", Part::Whole, patch).await
        };
        let mut writes = 0;
        let error = loop {
            writes += 1;
            assert!(writes < 200, "it is never full");
            if let Err(error) = write(writes).await {
                break error;
            }
        };
        assert_eq!((error.code, &*error.reason), (507, "InsufficientStorage"));
        assert!(error.message.contains("nothing was written") && error.message.contains("alarm disarm"));
        let kept = registry.get(&kinds::CONFIG_MAPS, NS, "a").await.unwrap();
        assert_eq!(number(&kept), writes as u64 - 1, "reads go on");
        let status = etcd.ctl(&["get", "x", "-w", "json"]).unwrap();
        let status: Value = serde_json::from_str(&status).unwrap();
        let revision = status["header"]["revision"].to_string();
        // Of the write with which it became full, etcd said so and did it: that one is no error.
        for does in [&["compact", &revision][..], &["defrag"], &["alarm", "disarm"]] {
            etcd.ctl(does).unwrap();
        }
        write(writes).await.unwrap();
    });
}
