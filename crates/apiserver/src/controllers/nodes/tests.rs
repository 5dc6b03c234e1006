//! Nodes that fall silent and come back, on a clock of the test's own.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::sim::Sim;
use super::*;

const LEASE: &str = "leases.coordination.k8s.io";

struct Lab {
    sim: Sim,
    alarms: Alarms,
    written: Vec<String>,
}

impl Lab {
    /// So many ready nodes with Leases and one pod each.
    fn new(nodes: usize) -> Self {
        let mut lab = Lab { sim: Sim::default(), alarms: Alarms::default(), written: Vec::new() };
        lab.sim.world.now = "2026-01-01T00:00:00Z".parse().unwrap();
        for i in 0..nodes {
            lab.node(i, "True");
            lab.renew(i);
            lab.pod(&format!("p{i}"), i, json!([]));
        }
        lab.run();
        lab
    }

    fn node(&mut self, i: usize, ready: &str) {
        let name = format!("n{i}");
        let conditions =
            json!([{"type": "Ready", "status": ready}, {"type": "NetworkUnavailable", "status": "False"}]);
        let mut node = self.sim.get("nodes", &name);
        node["metadata"]["name"] = json!(name);
        node["status"]["conditions"] = conditions;
        self.sim.put("nodes", node);
    }

    fn renew(&mut self, i: usize) {
        let now = self.sim.world.now.to_string();
        self.sim.put(
            LEASE,
            json!({"metadata": {"name": format!("n{i}"), "namespace": "kube-node-lease"},
            "spec": {"renewTime": now}}),
        );
    }

    fn pod(&mut self, name: &str, node: usize, tolerations: Value) {
        self.sim.put(
            "pods",
            json!({"metadata": {"name": name},
            "spec": {"nodeName": format!("n{node}"), "tolerations": tolerations},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}),
        );
    }

    fn run(&mut self) {
        let alarms = &mut self.alarms;
        let plan = |world: &World, dirty: &[Key]| {
            plan(world, dirty, alarms).into_iter().map(|(_, action)| action).collect()
        };
        let written = self.sim.settle(plan);
        self.written.extend(written.iter().map(|action| action.kind().to_owned()));
    }

    /// Lets seconds pass, as the loop would: from alarm to alarm.
    fn pass(&mut self, seconds: i64) {
        let end = self.sim.world.now + SignedDuration::from_secs(seconds);
        while let Some(next) = self.alarms.next().filter(|at| *at <= end) {
            self.advance(next);
        }
        self.advance(end);
    }

    fn advance(&mut self, to: Timestamp) {
        self.sim.world.now = to;
        let due = self.alarms.take(to);
        self.sim.world.dirty.extend(due);
        self.run();
    }

    fn taints(&self, i: usize) -> Vec<String> {
        let node = self.sim.get("nodes", &format!("n{i}"));
        let text = |taint: &Value| {
            format!("{}:{}", taint["key"].as_str().unwrap(), taint["effect"].as_str().unwrap())
        };
        object::list(&node["spec"]["taints"]).map(text).collect()
    }

    fn ready(&self, i: usize) -> String {
        ready_status(&self.sim.get("nodes", &format!("n{i}"))).to_owned()
    }
}

#[test]
fn a_silent_node_is_tainted_and_its_pods_leave_in_time() {
    let mut lab = Lab::new(2);
    lab.pod(
        "patient",
        1,
        json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}]),
    );
    lab.pod("hasty", 1, json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}]));
    lab.run();
    for _ in 0..4 {
        lab.pass(20);
        lab.renew(0);
        lab.run();
    }
    assert_eq!((lab.ready(0).as_str(), lab.ready(1).as_str()), ("True", "Unknown"));
    let node = lab.sim.get("nodes", "n1");
    assert_eq!(node["status"]["conditions"][0]["reason"], "NodeStatusUnknown");
    assert_eq!(node["status"]["conditions"][0]["lastTransitionTime"], "2026-01-01T00:00:40Z");
    assert_eq!(
        node["status"]["conditions"][1]["status"], "False",
        "the network was not the kubelet's to tell"
    );
    assert_eq!(
        lab.taints(1),
        ["node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"]
    );
    assert!(lab.taints(0).is_empty());
    assert!(lab.sim.get("pods", "hasty").is_null());
    let pod = lab.sim.get("pods", "p1");
    assert_eq!(
        (&pod["status"]["conditions"][0]["status"], &pod["status"]["conditions"][0]["reason"]),
        (&json!("False"), &json!("NodeNotReady"))
    );
    assert!(object::ready(&lab.sim.get("pods", "p0")));
    for _ in 0..26 {
        lab.pass(10);
        lab.renew(0);
        lab.run();
    }
    assert!(lab.sim.get("pods", "p1").is_null(), "after 300 seconds");
    assert!(!lab.sim.get("pods", "patient").is_null());
    lab.renew(1);
    lab.node(1, "True");
    lab.run();
    assert!(lab.taints(1).is_empty());
    lab.pass(39);
    assert_eq!(lab.ready(1), "True");
}

#[test]
fn a_container_of_a_silent_node_stays_registered_and_is_no_longer_ready() {
    let mut lab = Lab::new(2);
    // As agents register containers of podman and others: like static pods, they tolerate everything.
    lab.pod("container", 1, json!([{"operator": "Exists"}]));
    lab.run();
    for _ in 0..60 {
        lab.pass(20);
        lab.renew(0);
        lab.run();
    }
    assert!(lab.sim.get("pods", "p1").is_null(), "others are driven out");
    let container = lab.sim.get("pods", "container");
    assert!(!container.is_null() && !object::terminating(&container) && !object::ready(&container));
}

#[test]
fn where_all_are_silent_nobody_is_driven_out() {
    let mut lab = Lab::new(3);
    lab.pass(1000);
    for i in 0..3 {
        assert_eq!(lab.ready(i), "Unknown");
        assert_eq!(lab.taints(i), ["node.kubernetes.io/unreachable:NoSchedule"]);
        assert!(!lab.sim.get("pods", &format!("p{i}")).is_null());
    }
    lab.renew(0);
    lab.node(0, "True");
    lab.run();
    assert!(lab.taints(0).is_empty());
    assert_eq!(lab.taints(1).len(), 2, "now it is the others' trouble");
    for _ in 0..11 {
        lab.pass(30);
        lab.renew(0);
        lab.run();
    }
    assert!(lab.sim.get("pods", "p1").is_null() && lab.sim.get("pods", "p2").is_null());
}

#[test]
fn a_process_that_stood_still_blames_nobody() {
    let mut lab = Lab::new(2);
    let later = lab.sim.world.now + SignedDuration::from_secs(3600);
    lab.sim.world.advance(later);
    lab.advance(later);
    assert_eq!((lab.ready(0).as_str(), lab.ready(1).as_str()), ("True", "True"));
    lab.pass(41);
    assert_eq!(lab.ready(0), "Unknown");
}

#[test]
fn conditions_and_cordons_become_taints_and_others_taints_stay() {
    let mut lab = Lab::new(1);
    let mut node = lab.sim.get("nodes", "n0");
    node["spec"] = json!({"unschedulable": true, "taints": [{"key": "gpu", "effect": "NoSchedule"}]});
    node["status"]["conditions"][1]["status"] = json!("True");
    lab.sim.put("nodes", node);
    lab.run();
    assert_eq!(
        lab.taints(0),
        [
            "gpu:NoSchedule",
            "node.kubernetes.io/network-unavailable:NoSchedule",
            "node.kubernetes.io/unschedulable:NoSchedule"
        ]
    );
    let mut node = lab.sim.get("nodes", "n0");
    node["spec"]["unschedulable"] = json!(false);
    node["status"]["conditions"] = json!([{"type": "Ready", "status": "False"}]);
    lab.sim.put("nodes", node);
    lab.run();
    assert_eq!(lab.taints(0), ["gpu:NoSchedule", "node.kubernetes.io/not-ready:NoSchedule"]);
}

#[test]
fn a_node_that_never_had_a_lease_is_not_judged() {
    let mut lab = Lab::new(0);
    lab.node(7, "True");
    lab.sim.put("nodes", json!({"metadata": {"name": "bare"}}));
    lab.run();
    lab.pass(10_000);
    assert_eq!(lab.ready(7), "True");
    assert!(lab.taints(7).is_empty());
    assert_eq!(lab.written, [""; 0]);
}

#[test]
fn a_pod_says_why_it_goes_before_it_goes() {
    let mut lab = Lab::new(1);
    let mut node = lab.sim.get("nodes", "n0");
    node["spec"]["taints"] = json!([{"key": "a", "effect": "NoExecute"}]);
    lab.sim.put("nodes", node.clone());
    let key = Key::new("pods", "shop", "p0");
    let mut alarms = Alarms::default();
    let mut plan =
        |sim: &Sim| eviction::plan(&sim.world, &key, &sim.get("pods", "p0"), &node, &mut alarms).unwrap();
    let Action::Patch { patch, .. } = plan(&lab.sim) else { panic!("it goes without a word") };
    let mut pod = lab.sim.get("pods", "p0");
    json_patch::merge(&mut pod, &patch);
    let told = object::list(&pod["status"]["conditions"]).find(|c| c["type"] == "DisruptionTarget").unwrap();
    assert_eq!((&told["status"], &told["reason"]), (&json!("True"), &json!("DeletionByTaintManager")));
    lab.sim.put("pods", pod);
    assert!(matches!(plan(&lab.sim), Action::Delete { .. }));
}
