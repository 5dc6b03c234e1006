use std::path::Path;

use serde_json::json;

use super::collect::{add_nodes, add_pods, add_services, add_workload};
use super::table::stored;
use super::*;
use crate::config::LabConfig;

#[test]
fn a_status_reads_as_a_table_and_says_what_is_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    let agent = folder.path().join("node/node1/agent");
    std::fs::create_dir_all(&agent).unwrap();
    let said = json!({"node": "node1", "ready": true, "staleSince": null, "errors": [],
        "peers": [{"node": "node2", "programmed": false, "reason": "not on the same segment"}],
        "repairs": {"count": 2, "last": null}});
    std::fs::write(agent.join("status.json"), said.to_string()).unwrap();
    let mut status = Status { lab: "weft".into(), ..Status::default() };
    let nodes = json!({"items": [{"metadata": {"name": "node1"}, "spec": {"podCIDRs": ["10.244.0.0/24"]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}}]});
    add_nodes(&mut status, &LabConfig { nodes: 2, ..LabConfig::default() }, &nodes, folder.path());
    let pods = json!({"items": [
        {"metadata": {"namespace": "shop", "name": "web"}, "spec": {"nodeName": "node1",
            "containers": [{"ports": [{"containerPort": 80}]}]},
         "status": {"phase": "Running", "podIP": "10.244.0.2", "conditions": [{"type": "Ready", "status": "True"}]}},
        {"metadata": {"namespace": "shop", "name": "big"}, "spec": {}, "status": {"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node has disk=ssd"}]}},
        {"metadata": {"namespace": "shop", "name": "once"}, "spec": {"nodeName": "node1"}, "status": {"phase": "Succeeded"}},
    ]});
    add_pods(&mut status, &pods);
    let services = json!({"items": [
        {"metadata": {"namespace": "default", "name": "kubernetes"}, "spec": {}},
        {"metadata": {"namespace": "shop", "name": "web"}, "spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 80}]}}]});
    add_services(&mut status, &services);
    status.not_acting_yet = [("NetworkPolicy".into(), 3), ("Service".into(), 12)].into();
    let expected = "\
NODE   ADDRESS     POD CIDR       READY  AGENT      PEERS
node1  10.168.0.2  10.244.0.0/24  yes    ready      0/1
node2  10.168.0.3  -              no     no status  0/0

NAMESPACE  POD   NODE   IP          PHASE      READY
shop       big   -      -           Pending    no
shop       once  node1  -           Succeeded  yes
shop       web   node1  10.244.0.2  Running    yes

NAMESPACE  SERVICE  TYPE       CLUSTER IP  PORTS
shop       web      ClusterIP  10.96.0.7   80/TCP

Stored, not acting yet: NetworkPolicy 3, Service 12
Not ready:
  node/node1: refused peer node2: not on the same segment
  node/node2: it has no Node object yet
  shop/big: Unschedulable: no node has disk=ssd
";
    assert_eq!(render(&status, false, false), expected);
    assert_eq!(
        summary(&status),
        "1 of 2 nodes ready, 2 of 3 pods ready; node/node1: refused peer node2: not on the same segment"
    );
    assert_eq!(stored(&Status::default()), "");
}

#[test]
fn a_workload_is_ready_when_all_its_pods_are() {
    let why = |kind: &str, object: serde_json::Value| {
        let mut status = Status::default();
        add_workload(&mut status, kind, &object);
        status.not_ready.first().map(|entry| format!("{}: {}", entry.object, entry.why))
    };
    let meta = json!({"namespace": "shop", "name": "a", "generation": 2});
    let of = |generation: u64, ready: u64| {
        json!({"metadata": meta, "spec": {"replicas": 3},
               "status": {"observedGeneration": generation, "readyReplicas": ready}})
    };
    assert_eq!(why("deployment", of(2, 3)), None);
    assert_eq!(why("deployment", of(2, 1)).unwrap(), "deployment shop/a: 1 of 3 pods are ready");
    assert!(why("statefulset", of(1, 3)).unwrap().contains("has not looked at it"));
    assert!(why("deployment", json!({"metadata": meta})).is_some());
    let daemons = json!({"metadata": meta, "status": {"observedGeneration": 2, "desiredNumberScheduled": 3, "numberReady": 3}});
    assert_eq!(why("daemonset", daemons), None);
}

#[test]
fn a_lab_without_nodes_in_the_api_is_not_ready() {
    let mut status = Status::default();
    add_nodes(&mut status, &LabConfig::default(), &json!({}), Path::new("/nowhere"));
    assert_eq!(status.not_ready.len(), 3);
}
