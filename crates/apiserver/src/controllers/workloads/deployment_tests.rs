use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::kinds::REPLICA_SETS;

fn deployment(replicas: usize, image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop", "uid": "d", "generation": 1},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"image": image}]}}}})
}

/// ReplicaSets under a deployment, whose pods become ready when the test says so.
struct Sim {
    world: World,
    version: u64,
}

impl Sim {
    fn put(&mut self, mut set: Value) {
        self.version += 1;
        set["metadata"]["resourceVersion"] = json!(self.version.to_string());
        set["metadata"]["namespace"] = json!("shop");
        set["metadata"]["uid"] = set["metadata"]["name"].clone();
        self.world.learn(&REPLICA_SETS, Arc::new(set));
    }

    /// Plans once and does what is planned; how many writes to sets there were.
    fn step(&mut self, deployment: &Value) -> usize {
        let key = Key::new("deployments.apps", "shop", "web");
        let mut writes = 0;
        for action in plan(&self.world, &key, deployment, "now") {
            match action {
                Action::Create { object, .. } => self.put(object),
                Action::Patch { key, patch, .. } if &*key.kind == "replicasets.apps" => {
                    let mut set = (**self.world.get(&key).unwrap()).clone();
                    set["spec"]["replicas"] = patch["spec"]["replicas"].clone();
                    self.put(set);
                }
                Action::Delete { key, .. } => {
                    let set = self.world.get(&key).unwrap().clone();
                    self.world.end(&Key::of(&REPLICA_SETS, &set), &set);
                }
                _ => continue,
            }
            writes += 1;
        }
        writes
    }

    fn sets(&self) -> Vec<Value> {
        self.world.of_kind("replicasets.apps").map(|(_, set)| (**set).clone()).collect()
    }

    /// The sets' pods follow their specs; up to `more` of those not ready become ready.
    fn settle(&mut self, more: usize) {
        let mut more = more;
        for mut set in self.sets() {
            let size = replicas(&set);
            let ready = count(&set["status"]["readyReplicas"]).unwrap_or(0).min(size);
            let now = (ready + more).min(size);
            more -= now - ready;
            set["status"] = json!({"replicas": size, "readyReplicas": now});
            self.put(set);
        }
    }

    fn totals(&self) -> (usize, usize) {
        let sum = |f: &dyn Fn(&Value) -> usize| self.sets().iter().map(f).sum();
        (sum(&|s| replicas(s)), sum(&|s| count(&s["status"]["readyReplicas"]).unwrap_or(0)))
    }
}

fn sim() -> Sim {
    Sim { world: World::default(), version: 0 }
}

#[test]
fn a_deployment_gets_a_replica_set_with_kubernetes_names_and_labels() {
    let mut sim = sim();
    let deployment = deployment(3, "a");
    assert_eq!(sim.step(&deployment), 1);
    assert_eq!(sim.step(&deployment), 0, "once");
    let set = &sim.sets()[0];
    let hash = set["metadata"]["labels"][HASH].as_str().unwrap().to_owned();
    assert_eq!(object::name(set), format!("web-{hash}"));
    assert_eq!(set["spec"]["replicas"], 3);
    assert_eq!(set["spec"]["selector"]["matchLabels"], json!({"app": "web", HASH: hash}));
    assert_eq!(set["spec"]["template"]["metadata"]["labels"][HASH], hash);
    assert_eq!(set["metadata"]["annotations"][REVISION], "1");
    assert_eq!(object::controller(set), Some("d"));
}

#[test]
fn recreate_waits_until_the_old_pods_are_gone() {
    let mut sim = sim();
    sim.step(&deployment(3, "a"));
    sim.settle(3);
    let mut next = deployment(3, "b");
    next["spec"]["strategy"] = json!({"type": "Recreate"});
    sim.step(&next);
    sim.step(&next);
    assert_eq!(sim.totals().0, 0, "no new pod beside old ones");
    sim.step(&next);
    assert_eq!(sim.totals().0, 0, "whose status says they are still there");
    sim.settle(0);
    sim.step(&next);
    assert_eq!(sim.totals().0, 3);
}

#[test]
fn old_empty_sets_are_forgotten() {
    let mut sim = sim();
    for image in ["a", "b", "c", "d"] {
        let mut next = deployment(1, image);
        next["spec"]["revisionHistoryLimit"] = json!(1);
        for _ in 0..10 {
            sim.step(&next);
            sim.settle(5);
        }
    }
    let revisions: Vec<u64> = sim.sets().iter().map(revision).collect();
    assert_eq!(revisions.len(), 2);
    assert!(revisions.contains(&4) && revisions.contains(&3));
}

proptest! {
    /// A roll-out keeps within its limits at every step and comes to its end, whatever the numbers.
    #[test]
    fn a_roll_out_keeps_its_limits_and_ends(
        wanted in 0..12usize, surge in 0..4usize, fewer in 0..4usize, ready in prop::collection::vec(1..4usize, 60),
    ) {
        let limit = |mut d: Value| {
            d["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": surge, "maxUnavailable": fewer}});
            d
        };
        let mut sim = sim();
        sim.step(&limit(deployment(wanted, "a")));
        sim.settle(usize::MAX);
        let next = limit(deployment(wanted, "b"));
        let fewest = wanted - if surge == 0 && fewer == 0 { 1.min(wanted) } else { fewer.min(wanted) };
        for ready in ready {
            sim.step(&next);
            let (total, _) = sim.totals();
            prop_assert!(total <= wanted + surge, "{total} pods for {wanted} and {surge} more");
            sim.settle(0);
            prop_assert!(sim.totals().1 >= fewest, "{} ready of {wanted}, {fewer} fewer allowed", sim.totals().1);
            sim.settle(ready);
        }
        let (new, old): (Vec<Value>, Vec<Value>) = sim.sets().into_iter().partition(|set| same_template(&next, set));
        prop_assert_eq!(replicas(&new[0]), wanted);
        prop_assert!(old.iter().all(|set| replicas(set) == 0));
    }
}
