//! Pods onto nodes: what is planned is written at once.

use proptest::prelude::*;

use super::super::sim::Sim;
use super::*;

struct Lab {
    sim: Sim,
}

impl Lab {
    /// Nodes n1, n2, ... in these zones.
    fn new(zones: &[&str]) -> Self {
        let mut lab = Lab { sim: Sim::default() };
        for (i, zone) in zones.iter().enumerate() {
            lab.node(&format!("n{}", i + 1), zone, json!({}));
        }
        lab
    }

    fn node(&mut self, name: &str, zone: &str, allocatable: Value) {
        let labels = json!({"zone": zone, "kubernetes.io/hostname": name});
        self.sim.put(
            "nodes",
            json!({"metadata": {"name": name, "labels": labels}, "spec": {},
            "status": {"allocatable": allocatable}}),
        );
    }

    fn pod(&mut self, name: &str, app: &str, spec: Value) {
        self.sim.put("pods", json!({"metadata": {"name": name, "labels": {"app": app}}, "spec": spec}));
    }

    fn run(&mut self) {
        let plan = |world: &World, dirty: &[Key]| {
            plan(world, dirty, "now").into_iter().map(|(_, action)| action).collect()
        };
        self.sim.settle(plan);
    }

    /// Where a pod is, or why it is nowhere.
    fn place(&mut self, name: &str) -> String {
        self.run();
        let pod = self.sim.get("pods", name);
        match object::node_of(&pod) {
            Some(node) => node.to_owned(),
            None => pod["status"]["conditions"][0]["message"].as_str().unwrap_or_default().to_owned(),
        }
    }
}

fn near(kind: &str, app: &str, topology: &str) -> Value {
    let term = json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": topology});
    json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
}

fn asks(cpu: &str, memory: &str) -> Value {
    json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]})
}

#[test]
fn the_fewest_pods_win_and_then_the_lowest_name() {
    let mut lab = Lab::new(&[]);
    ["n10", "n2", "n1"].iter().for_each(|name| lab.node(name, "a", json!({})));
    for (pod, node) in [("a", "n1"), ("b", "n2"), ("c", "n10"), ("d", "n1")] {
        lab.pod(pod, "x", json!({}));
        assert_eq!(lab.place(pod), node);
    }
    let condition = lab.sim.get("pods", "a")["status"]["conditions"][0].clone();
    assert_eq!(condition, json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": "now"}));
}

#[test]
fn a_pod_without_a_node_says_why_as_kube_scheduler_does() {
    let mut lab = Lab::new(&[]);
    lab.pod("picky", "x", json!({"nodeSelector": {"disk": "ssd"}}));
    assert_eq!(lab.place("picky"), "no nodes available to schedule pods");
    lab.node("full", "a", json!({"pods": "0"}));
    lab.node("plain", "a", json!({"pods": "0"}));
    let mut tainted = lab.sim.get("nodes", "plain");
    tainted["spec"]["taints"] = json!([{"key": "gpu", "effect": "NoSchedule"}]);
    lab.sim.put("nodes", tainted);
    assert_eq!(
        lab.place("picky"),
        "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint {gpu: }."
    );
    lab.pod("any", "x", json!({"tolerations": [{"operator": "Exists"}]}));
    assert_eq!(lab.place("any"), "0/2 nodes are available: 2 Too many pods.");
}

#[test]
fn requests_fill_a_node_until_one_leaves() {
    let mut lab = Lab::new(&[]);
    lab.node("n1", "a", json!({"cpu": "2", "memory": "1Gi", "pods": "10"}));
    lab.pod("a", "x", asks("1500m", "100Mi"));
    assert_eq!(lab.place("a"), "n1");
    lab.pod("b", "x", asks("501m", "925Mi"));
    assert_eq!(lab.place("b"), "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory.");
    lab.pod("c", "x", asks("500m", "924Mi"));
    assert_eq!(lab.place("c"), "n1", "exactly full");
    lab.sim.remove("pods", "a");
    lab.sim.remove("pods", "c");
    assert_eq!(lab.place("b"), "n1");
    let mut init = asks("100m", "0");
    init["initContainers"] = json!([{"name": "i", "resources": {"limits": {"cpu": "1500m"}}}]);
    lab.pod("d", "x", init);
    assert_eq!(lab.place("d"), "0/1 nodes are available: 1 Insufficient cpu.");
}

#[test]
fn a_port_of_the_host_is_given_once() {
    let mut lab = Lab::new(&["a", "a"]);
    let port =
        |ip: &str| json!({"containers": [{"ports": [{"containerPort": 80, "hostPort": 80, "hostIP": ip}]}]});
    lab.pod("a", "x", port(""));
    lab.pod("b", "x", port("10.0.0.1"));
    lab.pod("c", "x", port("10.0.0.2"));
    lab.pod("d", "x", port("10.0.0.1"));
    assert_eq!([lab.place("a"), lab.place("b"), lab.place("c")], ["n1", "n2", "n2"]);
    assert_eq!(
        lab.place("d"),
        "0/2 nodes are available: 2 node(s) didn't have free ports for the requested pod ports."
    );
}

#[test]
fn anti_affinity_holds_both_ways() {
    let mut lab = Lab::new(&["east", "east", "west"]);
    for pod in ["a", "b", "c", "d"] {
        lab.pod(pod, "db", near("podAntiAffinity", "db", "kubernetes.io/hostname"));
    }
    assert_eq!([lab.place("a"), lab.place("b"), lab.place("c")], ["n1", "n2", "n3"]);
    assert_eq!(lab.place("d"), "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules.");
    lab.pod("shy", "shy", near("podAntiAffinity", "loud", "zone"));
    assert_eq!(lab.place("shy"), "n1");
    lab.pod("loud", "loud", json!({}));
    assert_eq!(lab.place("loud"), "n3", "the other zone");
    lab.sim.remove("pods", "a");
    assert_eq!(lab.place("d"), "n1", "as soon as there is room");
}

#[test]
fn affinity_waits_for_company_and_the_first_may_begin() {
    let mut lab = Lab::new(&["east", "west"]);
    lab.pod("web", "web", near("podAffinity", "cache", "zone"));
    assert_eq!(lab.place("web"), "0/2 nodes are available: 2 node(s) didn't match pod affinity rules.");
    lab.pod("filler", "x", json!({}));
    lab.pod("cache", "cache", near("podAffinity", "cache", "zone"));
    assert_eq!(lab.place("cache"), "n1", "it is its own company");
    assert_eq!(lab.place("web"), "n1");
    lab.pod("cache2", "cache", near("podAffinity", "cache", "zone"));
    assert_eq!(lab.place("cache2"), "n1");
}

#[test]
fn affinity_reaches_other_namespaces_by_name_and_label() {
    let mut lab = Lab::new(&["east", "west"]);
    lab.sim.put("namespaces", json!({"metadata": {"name": "other", "labels": {"team": "a"}}}));
    lab.sim.put(
        "pods",
        json!({"metadata": {"name": "db", "namespace": "other", "labels": {"app": "db"}},
        "spec": {"nodeName": "n2"}}),
    );
    let mut spec = near("podAffinity", "db", "zone");
    lab.pod("alone", "web", spec.clone());
    let term = &mut spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0];
    term["namespaces"] = json!(["other"]);
    let named = spec.clone();
    let term = &mut spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0];
    term["namespaces"] = Value::Null;
    term["namespaceSelector"] = json!({"matchLabels": {"team": "a"}});
    lab.pod("named", "web", named);
    lab.pod("selected", "web", spec);
    assert_eq!([lab.place("named"), lab.place("selected")], ["n2", "n2"]);
    assert!(lab.place("alone").ends_with("affinity rules."));
}

#[test]
fn constraints_keep_domains_even() {
    let mut lab = Lab::new(&["east", "east", "west"]);
    lab.node("bare", "", json!({}));
    let mut bare = lab.sim.get("nodes", "bare");
    bare["metadata"]["labels"] = json!({});
    lab.sim.put("nodes", bare);
    let spread = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}]});
    for i in 0..6 {
        lab.pod(&format!("p{i}"), "web", spread.clone());
    }
    let mut count = BTreeMap::<String, usize>::new();
    for i in 0..6 {
        *count.entry(lab.place(&format!("p{i}"))).or_default() += 1;
    }
    assert_eq!(count["n1"] + count["n2"], 3);
    assert_eq!((count["n3"], count.get("bare")), (3, None));
    let mut west = lab.sim.get("nodes", "n3");
    west["spec"]["unschedulable"] = json!(true);
    lab.sim.put("nodes", west);
    lab.pod("q", "web", spread.clone());
    lab.run();
    lab.pod("r", "web", spread);
    assert_eq!(
        lab.place("r"),
        "0/4 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label), 1 node(s) were unschedulable, 2 node(s) didn't match pod topology spread constraints."
    );
}

proptest! {
    #[test]
    fn pods_spread_evenly(nodes in 1..20usize, pods in 0..100usize) {
        let mut lab = Lab::new(&vec!["a"; nodes]);
        (0..pods).for_each(|i| lab.pod(&format!("p{i}"), "x", json!({})));
        lab.run();
        let board = Board::new(&lab.sim.world);
        let held: Vec<usize> = board.nodes().map(|node| board.held(object::name(node)).pods).collect();
        prop_assert_eq!(held.iter().sum::<usize>(), pods);
        prop_assert!(held.iter().max().unwrap() - held.iter().min().unwrap() <= 1);
    }
}
