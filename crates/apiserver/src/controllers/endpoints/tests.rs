//! Services and pods in a world of their own: what is planned is written at once.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::sim::Sim;
use super::*;

struct Lab {
    sim: Sim,
}

impl Lab {
    fn with_nodes(zones: &[&str]) -> Self {
        let mut sim = Sim::default();
        for (i, zone) in zones.iter().enumerate() {
            let labels = json!({"topology.kubernetes.io/zone": zone});
            sim.put("nodes", json!({"metadata": {"name": format!("n{i}"), "labels": labels},
                "status": {"allocatable": {"cpu": "4"}, "conditions": [{"type": "Ready", "status": "True"}]}}));
        }
        Lab { sim }
    }

    fn service(&mut self, name: &str, spec: Value) {
        self.sim.put("services", json!({"metadata": {"name": name, "labels": {"team": "a"}}, "spec": spec}));
    }

    fn pod(&mut self, name: &str, app: &str, node: &str, ip: &str, ready: bool) {
        self.sim.put("pods", pod(name, app, node, ip, ready));
    }

    /// Writes until nothing is left to write; how many writes of slices that took.
    fn settle(&mut self) -> usize {
        let plan = |world: &World, dirty: &[Key]| dirty.iter().flat_map(|key| plan(world, key)).collect();
        self.sim.settle(plan).iter().filter(|action| action.kind() == SLICES).count()
    }

    fn slices(&self, service: &str) -> Vec<&Value> {
        let slices = self.sim.world.of_kind(SLICES).map(|(_, slice)| &**slice);
        slices.filter(|slice| slice["metadata"]["labels"][NAME] == service).collect()
    }

    /// All endpoints of a Service as address, ready.
    fn shown(&self, service: &str) -> BTreeSet<(String, bool)> {
        let endpoints = self.slices(service).into_iter().flat_map(|slice| object::list(&slice["endpoints"]));
        let one = |endpoint: &Value| {
            (endpoint["addresses"][0].as_str().unwrap().to_owned(), endpoint["conditions"]["ready"] == true)
        };
        endpoints.map(one).collect()
    }

    fn endpoints(&self, service: &str) -> Value {
        self.sim.get("endpoints", service)
    }
}

fn pod(name: &str, app: &str, node: &str, ip: &str, ready: bool) -> Value {
    json!({"metadata": {"name": name, "uid": name, "labels": {"app": app, "tier": "x"}},
        "spec": {"nodeName": node, "containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}, {"ip": format!("fd00::{}", ip.replace('.', ":"))}],
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
}

fn web() -> Value {
    json!({"selector": {"app": "web"}, "clusterIP": "10.96.0.9", "ipFamilies": ["IPv4"],
        "ports": [{"name": "main", "port": 80, "targetPort": "http", "protocol": "TCP"}]})
}

#[test]
fn a_slice_tells_all_of_an_endpoint() {
    let mut lab = Lab::with_nodes(&["east"]);
    lab.service("web", web());
    lab.pod("a", "web", "n0", "10.0.0.1", true);
    lab.pod("other", "db", "n0", "10.0.0.2", true);
    lab.settle();
    let [slice] = &lab.slices("web")[..] else { panic!() };
    assert!(object::name(slice).starts_with("web-"));
    assert_eq!(slice["addressType"], "IPv4");
    assert_eq!(slice["ports"], json!([{"name": "main", "port": 8080, "protocol": "TCP"}]));
    assert_eq!(
        slice["metadata"]["labels"],
        json!({"team": "a", NAME: "web", MANAGED_BY: "endpointslice-controller.k8s.io"})
    );
    assert_eq!(slice["metadata"]["ownerReferences"][0]["uid"], "uid-web");
    assert_eq!(slice["metadata"]["annotations"][TRIGGER], "2026-01-01T00:00:00Z");
    assert_eq!(
        slice["endpoints"],
        json!([{"addresses": ["10.0.0.1"], "nodeName": "n0", "zone": "east",
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "targetRef": {"kind": "Pod", "namespace": "shop", "name": "a", "uid": "a"}}])
    );
    let endpoints = lab.endpoints("web");
    assert_eq!(
        endpoints["subsets"],
        json!([{"addresses": [{"ip": "10.0.0.1", "nodeName": "n0",
            "targetRef": {"kind": "Pod", "namespace": "shop", "name": "a", "uid": "a"}}],
            "ports": [{"name": "main", "port": 8080, "protocol": "TCP"}]}])
    );
    lab.sim.remove("services", "web");
    lab.settle();
    assert!(lab.endpoints("web").is_null(), "Endpoints have no owner, and go with their Service");
}

#[test]
fn families_port_sets_and_headless_names_have_slices_of_their_own() {
    let mut lab = Lab::with_nodes(&["east"]);
    let mut spec = web();
    spec["ipFamilies"] = json!(["IPv4", "IPv6"]);
    spec["clusterIP"] = json!("None");
    lab.service("web", spec);
    let mut second = pod("b", "web", "n0", "10.0.0.2", true);
    second["spec"]["containers"][0]["ports"][0]["containerPort"] = json!(9090);
    second["spec"]["hostname"] = json!("b-0");
    second["spec"]["subdomain"] = json!("web");
    lab.pod("a", "web", "n0", "10.0.0.1", true);
    lab.sim.put("pods", second);
    lab.settle();
    let kinds: BTreeSet<String> =
        lab.slices("web").iter().map(|s| format!("{} {}", s["addressType"], s["ports"][0]["port"])).collect();
    assert_eq!(
        kinds.into_iter().collect::<Vec<_>>(),
        ["\"IPv4\" 8080", "\"IPv4\" 9090", "\"IPv6\" 8080", "\"IPv6\" 9090"]
    );
    for slice in lab.slices("web") {
        assert_eq!(slice["metadata"]["labels"][HEADLESS], "");
        let named = slice["ports"][0]["port"] == 9090;
        assert_eq!(slice["endpoints"][0]["hostname"], if named { json!("b-0") } else { Value::Null });
    }
    assert_eq!(lab.endpoints("web")["subsets"].as_array().unwrap().len(), 2);
}

#[test]
fn readiness_ends_in_steps() {
    let mut lab = Lab::with_nodes(&["east"]);
    lab.service("web", web());
    let mut all = web();
    all["publishNotReadyAddresses"] = json!(true);
    lab.service("all", all);
    let mut ending = pod("a", "web", "n0", "10.0.0.1", true);
    ending["metadata"]["deletionTimestamp"] = json!("2026-01-02T00:00:00Z");
    lab.sim.put("pods", ending.clone());
    lab.settle();
    let conditions = |lab: &Lab, service: &str| lab.slices(service)[0]["endpoints"][0]["conditions"].clone();
    assert_eq!(conditions(&lab, "web"), json!({"ready": false, "serving": true, "terminating": true}));
    assert_eq!(conditions(&lab, "all"), json!({"ready": true, "serving": true, "terminating": true}));
    assert_eq!(lab.endpoints("web")["subsets"], json!([]));
    ending["status"]["phase"] = json!("Succeeded");
    lab.sim.put("pods", ending);
    lab.settle();
    let [slice] = &lab.slices("web")[..] else { panic!() };
    assert_eq!((&slice["endpoints"], &slice["ports"]), (&json!([]), &json!([])), "one empty slice is left");
}

#[test]
fn hints_follow_the_traffic_distribution() {
    let mut lab = Lab::with_nodes(&["east", "west"]);
    for (service, distribution) in [("zone", "PreferClose"), ("node", "PreferSameNode")] {
        let mut spec = web();
        spec["trafficDistribution"] = json!(distribution);
        lab.service(service, spec);
    }
    lab.service("auto", web());
    let mut auto = lab.sim.get("services", "auto");
    auto["metadata"]["annotations"] = json!({"service.kubernetes.io/topology-mode": "Auto"});
    lab.sim.put("services", auto);
    for i in 0..4 {
        lab.pod(&format!("p{i}"), "web", "n0", &format!("10.0.0.{i}"), true);
    }
    lab.settle();
    let hints = |service: &str| lab.slices(service)[0]["endpoints"][0]["hints"].clone();
    assert_eq!(hints("zone"), json!({"forZones": [{"name": "east"}]}));
    assert_eq!(hints("node"), json!({"forZones": [{"name": "east"}], "forNodes": [{"name": "n0"}]}));
    let zones: Vec<Value> = object::list(&lab.slices("auto")[0]["endpoints"])
        .map(|endpoint| endpoint["hints"]["forZones"][0]["name"].clone())
        .collect();
    assert_eq!(zones, ["east", "east", "west", "west"], "the other zone is served too");
}

#[test]
fn services_without_selector_are_left_alone() {
    let mut lab = Lab::with_nodes(&["east"]);
    lab.service("manual", json!({"clusterIP": "None", "ports": [{"port": 80}]}));
    lab.service("outside", json!({"type": "ExternalName", "externalName": "x", "selector": {"app": "web"}}));
    lab.pod("a", "web", "n0", "10.0.0.1", true);
    assert_eq!(lab.settle(), 0);
    assert!(lab.endpoints("manual").is_null());
}

#[test]
fn ten_thousand_pods_change_one_slice_at_a_time() {
    let mut lab = Lab::with_nodes(&["east"]);
    lab.service("web", web());
    let name = |i: usize| (format!("p{i}"), format!("10.{}.{}.{}", i >> 16, (i >> 8) & 255, i & 255));
    for i in 0..10_000 {
        let (name, ip) = name(i);
        lab.pod(&name, "web", "n0", &ip, true);
    }
    assert_eq!(lab.settle(), 100);
    assert!(lab.slices("web").iter().all(|slice| slice["endpoints"].as_array().unwrap().len() == 100));
    assert_eq!(lab.endpoints("web")["subsets"][0]["addresses"].as_array().unwrap().len(), 1000);
    let annotations = lab.endpoints("web")["metadata"]["annotations"].clone();
    assert_eq!(annotations["endpoints.kubernetes.io/over-capacity"], "truncated");
    lab.pod("unrelated", "db", "n0", "10.9.9.9", true);
    assert_eq!(lab.sim.world.dirty.len(), 1, "it concerns no Service");
    for (i, ready) in [(77, false), (5_000, false), (77, true)] {
        let (name, ip) = name(i);
        lab.pod(&name, "web", "n0", &ip, ready);
        assert_eq!(lab.settle(), 1);
    }
    let (gone, ip) = name(123);
    lab.sim.remove("pods", &gone);
    lab.pod("new", "web", "n0", &ip, true);
    assert_eq!(lab.settle(), 1, "the new one takes the place of the old");
}

proptest! {
    #[test]
    fn slices_hold_what_an_oracle_says(steps in prop::collection::vec(
        prop::collection::vec((0..250usize, 0..4u8), 1..60), 1..8)) {
        let mut lab = Lab::with_nodes(&["east", "west"]);
        lab.service("web", web());
        let mut oracle: BTreeMap<usize, bool> = BTreeMap::new();
        for step in steps {
            let touched = step.len();
            for (i, what) in step {
                let (name, ip) = (format!("p{i}"), format!("10.0.1.{i}"));
                if what == 0 {
                    lab.sim.remove("pods", &name);
                    oracle.remove(&i);
                } else {
                    let ready = what > 1;
                    lab.pod(&name, if what == 3 { "db" } else { "web" }, "n1", &ip, ready);
                    if what == 3 { oracle.remove(&i); } else { oracle.insert(i, ready); }
                }
            }
            let writes = lab.settle();
            prop_assert!(writes <= touched + 1);
            let expected: BTreeSet<_> = oracle.iter().map(|(i, ready)| (format!("10.0.1.{i}"), *ready)).collect();
            prop_assert_eq!(lab.shown("web"), expected);
            let sizes: Vec<usize> = lab.slices("web").iter().map(|s| s["endpoints"].as_array().unwrap().len()).collect();
            prop_assert!(sizes.iter().all(|size| *size <= 100));
            prop_assert_eq!(sizes.iter().sum::<usize>(), oracle.len(), "none twice");
            prop_assert!(sizes.len() == 1 || sizes.iter().all(|size| *size > 0));
        }
    }
}

#[test]
fn a_node_that_moves_concerns_the_services_on_it_and_those_that_look_at_all_nodes() {
    let mut lab = Lab::with_nodes(&["east", "west"]);
    for (name, node) in [("web", "n0"), ("db", "n1"), ("far", "n1")] {
        lab.service(
            name,
            json!({"selector": {"app": name}, "ipFamilies": ["IPv4"], "ports": [{"port": 80}]}),
        );
        lab.pod(name, name, node, "10.0.0.1", true);
    }
    let mut far = lab.sim.get("services", "far");
    far["metadata"]["annotations"] = json!({"service.kubernetes.io/topology-mode": "Auto"});
    lab.sim.put("services", far);
    lab.settle();
    let mut node = lab.sim.get("nodes", "n0");
    node["metadata"]["labels"]["topology.kubernetes.io/zone"] = json!("north");
    lab.sim.put("nodes", node);
    let marked = lab.sim.world.dirty.iter().filter(|key| &*key.kind == "services");
    assert_eq!(marked.map(|key| &*key.name).collect::<Vec<_>>(), ["far", "web"]);
    lab.settle();
    assert_eq!(lab.slices("web")[0]["endpoints"][0]["zone"], "north");
    assert_eq!(lab.slices("db")[0]["endpoints"][0]["zone"], "west");
}

#[test]
fn an_empty_slice_that_reads_null_is_kept_and_filled() {
    let mut lab = Lab::with_nodes(&["east"]);
    lab.service("web", web());
    lab.settle();
    let mut slice = lab.slices("web")[0].clone();
    slice["endpoints"] = Value::Null;
    slice["ports"] = Value::Null;
    lab.sim.put(SLICES, slice);
    lab.sim.world.dirty.insert(Key::new("services", "shop", "web"));
    assert_eq!(lab.settle(), 0, "it is as it should be");
}
