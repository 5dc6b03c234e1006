//! Servers over one etcd, as clients see them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::common::Running;
use super::common::raw::{get, post, send, watch};
use super::etcd::Etcd;
use super::{block_on, map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn serve(etcd: &Etcd) -> Running {
    Running::start_with(|config| config.etcd = Some(etcd.config()))
}

fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap()
}

async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_so().await {
        assert!(Instant::now() < end, "not in time: {what}");
    }
}

#[test]
fn what_one_server_wrote_is_in_the_other_s_lists_and_watches() {
    block_on(async {
        let etcd = Etcd::start();
        let (one, other) = (serve(&etcd), serve(&etcd));
        let start = get(&one, MAPS).await.1;
        let path = format!("{MAPS}?watch=1&resourceVersion={}", version(&start));
        let mut events = watch(&other, &path).await;
        for n in 0..30 {
            let name = format!("m{n}");
            let (code, made) = post(&one, MAPS, &map(&name, n)).await;
            assert_eq!(code, 201, "{made}");
            // The most recent, and what is not older than what the client has seen elsewhere.
            for query in [String::new(), format!("?resourceVersion={}", version(&made))] {
                let (code, list) = get(&other, &format!("{MAPS}{query}")).await;
                let newest = |o: &Value| o["metadata"]["name"] == name;
                assert!(code == 200 && list["items"].as_array().unwrap().iter().any(newest), "{query}");
                let at = |object: &Value| version(object).parse::<u64>().unwrap();
                assert!(at(&list) >= at(&made));
            }
            let seen = events.recv().await.unwrap();
            assert_eq!((&seen["type"], &seen["object"]["metadata"]), (&json!("ADDED"), &made["metadata"]));
            let (code, _) = send(&other, "DELETE", &format!("{MAPS}/{name}"), "", b"").await;
            assert_eq!(code, 200);
            assert_eq!(get(&one, &format!("{MAPS}/{name}")).await.0, 404);
            assert_eq!(events.recv().await.unwrap()["type"], "DELETED");
        }
    });
}

#[test]
fn an_etcd_that_is_away_is_told_to_clients_and_all_go_on_after_it() {
    block_on(async {
        let mut etcd = Etcd::start();
        let server = serve(&etcd);
        let (_, made) = post(&server, MAPS, &map("a", 0)).await;
        let path = format!("{MAPS}?watch=1&resourceVersion={}", version(&made));
        let mut events = watch(&server, &path).await;
        assert_eq!(get(&server, "/readyz").await.0, 200);
        etcd.kill();
        for (code, status) in [get(&server, MAPS).await, post(&server, MAPS, &map("b", 1)).await] {
            assert_eq!((code, &status["kind"], &status["code"]), (503, &json!("Status"), &json!(503)));
            assert_eq!(status["reason"], "ServiceUnavailable");
            let message = status["message"].as_str().unwrap();
            assert!(message.contains("etcd at http://127.0.0.1") && message.contains("refused"), "{message}");
        }
        assert_eq!((get(&server, "/readyz").await.0, get(&server, "/livez").await.0), (503, 200));
        // What any version of satisfies is told from memory.
        assert_eq!(get(&server, &format!("{MAPS}?resourceVersion=0")).await.0, 200);
        assert_eq!(get(&server, &path).await.0, 503, "who watches anew is told");
        assert!(events.try_recv().is_err_and(|e| e == tokio::sync::mpsc::error::TryRecvError::Empty));
        etcd.resume();
        eventually("it is ready", async || get(&server, "/readyz").await.0 == 200).await;
        assert_eq!(post(&server, MAPS, &map("c", 2)).await.0, 201);
        assert_eq!(events.recv().await.unwrap()["object"]["metadata"]["name"], "c", "no gap, nothing twice");
    });
}

#[test]
fn the_service_kubernetes_leads_to_every_server() {
    block_on(async {
        let etcd = Etcd::start();
        let serve = |address: &str| {
            Running::start_with(|config| {
                config.etcd = Some(etcd.config());
                config.controllers = true;
                config.advertise_url = Some(format!("https://{address}:6443"));
            })
        };
        let (one, other) = (serve("192.0.2.1"), serve("192.0.2.2"));
        let addresses = async || {
            let (_, found) = get(&one, "/api/v1/namespaces/default/endpoints/kubernetes").await;
            let slice = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
            let (_, slice) = get(&one, slice).await;
            let told = found["subsets"][0]["addresses"].as_array().cloned().unwrap_or_default();
            let count = slice["endpoints"].as_array().map_or(0, Vec::len);
            (told.iter().map(|a| a["ip"].as_str().unwrap().to_owned()).collect::<Vec<_>>(), count)
        };
        let both = ["192.0.2.1", "192.0.2.2"].map(str::to_owned).to_vec();
        eventually("both are there", async || addresses().await == (both.clone(), 2)).await;
        drop(other);
        let first = both[..1].to_vec();
        eventually("the one that ended is gone", async || addresses().await == (first.clone(), 1)).await;
    });
}
