//! Services and pools that come, change and go in any order, with writes that are lost or late: nobody ever gets
//! an address that another has, and in the end everybody has what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use weft_model::load_balancer::{Claim, LoadBalancerPool, is_buggy};
use weft_model::pools::Labels;
use weft_model::service::ServiceKey;

use super::{Input, Plan, plan, pool_patch, service_patch};

const NOW: &str = "2026-01-01T00:00:00Z";

/// The API: objects by name, with versions.
#[derive(Clone, Default)]
pub(super) struct Api {
    services: BTreeMap<String, Value>,
    pools: BTreeMap<String, Value>,
    nodes: BTreeSet<IpAddr>,
    clock: u64,
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else { return *target = patch.clone() };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        match (value, target.as_object_mut()) {
            (Value::Null, Some(target)) => drop(target.remove(key)),
            _ => merge(&mut target[key], value),
        }
    }
}

impl Api {
    fn put(kind: &mut BTreeMap<String, Value>, clock: &mut u64, name: &str, patch: &Value) {
        *clock += 1;
        let created = json!({"metadata": {"name": name, "namespace": "shop", "uid": format!("{name}-{clock}"),
            "creationTimestamp": format!("2026-01-01T00:00:00Z{clock:06}")}});
        let object = kind.entry(name.to_owned()).or_insert(created);
        merge(object, patch);
        object["metadata"]["resourceVersion"] = json!(clock.to_string());
    }

    pub(super) fn service(&mut self, name: &str, patch: &Value) {
        Self::put(&mut self.services, &mut self.clock, name, patch);
        let service = self.services.get_mut(name).unwrap();
        if service["spec"]["type"] != "LoadBalancer" {
            // As the API server has it.
            merge(service, &json!({"status": {"loadBalancer": {"ingress": null}}}));
        }
    }

    pub(super) fn pool(&mut self, name: &str, patch: &Value) {
        Self::put(&mut self.pools, &mut self.clock, name, patch);
    }

    pub(super) fn delete_pool(&mut self, name: &str) {
        self.pools.remove(name);
    }

    pub(super) fn delete_service(&mut self, name: &str) {
        self.services.remove(name);
    }

    pub(super) fn node(&mut self, ip: &str) {
        self.nodes.insert(ip.parse().unwrap());
    }

    fn claims(&self) -> BTreeMap<ServiceKey, Arc<Claim>> {
        let read = self.services.values().map(|object| Claim::read(object).unwrap());
        read.filter(Claim::matters).map(|claim| (claim.key.clone(), Arc::new(claim))).collect()
    }

    fn all_pools(&self) -> Vec<Arc<LoadBalancerPool>> {
        self.pools.values().map(|object| Arc::new(LoadBalancerPool::read(object).unwrap())).collect()
    }

    /// Plans from what the API says, and nothing else.
    pub(super) fn plan(&self) -> Plan {
        let namespaces: BTreeMap<Arc<str>, Labels> =
            [("shop".into(), [("tier".into(), "gold".into())].into())].into();
        plan(Input {
            claims: &self.claims(),
            pools: &self.all_pools(),
            namespaces: &namespaces,
            others: &[("10.244.0.0/16".parse().unwrap(), "the pods' network")],
            nodes: &self.nodes,
        })
    }

    /// Writes of a plan what `lost` does not name, in the order of `turn`; how many.
    fn write(&mut self, plan: &Plan, turn: usize, lost: &dyn Fn(usize) -> bool) -> usize {
        let mut writes = Vec::new();
        for claim in self.claims().into_values() {
            let patch = plan.services.get(&claim.key).and_then(|outcome| service_patch(&claim, outcome, NOW));
            writes.extend(patch.map(|patch| (claim.key.name.to_string(), patch.patch)));
        }
        let pools = self.all_pools();
        for pool in &pools {
            if let Some(patch) = pool_patch(pool, &plan.pools[&pool.name], NOW) {
                self.pool(&pool.name, &patch.patch);
            }
        }
        let count = writes.len();
        if count > 0 {
            writes.rotate_left(turn % count);
        }
        for (index, (name, patch)) in writes.into_iter().enumerate() {
            if lost(index) {
                continue;
            }
            let before = self.ips(&name);
            self.service(&name, &patch);
            for ip in self.ips(&name).into_iter().filter(|ip| !before.contains(ip)) {
                self.check_alone(&name, ip);
            }
        }
        count
    }

    /// A Service that just got an address shares it with nobody who would not.
    fn check_alone(&self, name: &str, ip: IpAddr) {
        let claims = self.claims();
        let own = claims.values().find(|claim| &*claim.key.name == name).unwrap();
        for other in claims.values().filter(|other| other.key != own.key && other.ips().any(|o| o == ip)) {
            assert!(other.share.with(&own.share), "{name} got {ip}, which is {}'s", other.key);
        }
    }

    pub(super) fn settle(&mut self) {
        for turn in 0.. {
            assert!(turn < 50, "it never settles");
            let plan = self.plan();
            if self.write(&plan, turn, &|_| false) == 0 {
                return;
            }
        }
    }

    pub(super) fn ips(&self, name: &str) -> Vec<IpAddr> {
        let claim = Claim::read(&self.services[name]).unwrap();
        claim.ips().collect()
    }

    /// `True Assigned: …`, the Service's condition.
    pub(super) fn told(&self, name: &str) -> String {
        let Some(verdict) = Claim::read(&self.services[name]).unwrap().verdict() else {
            return String::new();
        };
        format!("{} {}: {}", verdict.good, verdict.reason, verdict.message)
    }

    pub(super) fn status(&self, pool: &str) -> &Value {
        &self.pools[pool]["status"]
    }

    /// What holds once nothing is written any more.
    fn check(&self) {
        let claims = self.claims();
        let all: Vec<&Arc<Claim>> = claims.values().collect();
        for (index, one) in all.iter().enumerate() {
            for ip in one.ips() {
                let others = all[index + 1..].iter().filter(|other| other.ips().any(|o| o == ip));
                others.for_each(|other| {
                    assert!(one.share.with(&other.share), "{} {}: {ip}", one.key, other.key)
                });
            }
        }
        let pools = self.all_pools();
        let usable = |pool: &&Arc<LoadBalancerPool>| {
            let gold = [("tier".into(), "gold".into())].into();
            pool.auto_assign
                && pool.status["conditions"][0]["status"] == "True"
                && pool.namespaces.matches(&gold)
        };
        for claim in all.iter().filter(|claim| claim.is_ours() && claim.families.len() == 1) {
            let plain = claim.request.as_ref().is_ok_and(|request| *request == Default::default());
            if !plain || claim.ips().next().is_some() {
                continue;
            }
            for pool in pools.iter().filter(usable).filter(|pool| pool.services.matches(&claim.labels)) {
                for range in pool.addresses.iter().flatten().filter(|r| r.is_ipv4() == claim.families[0]) {
                    let mut at = Some(range.first());
                    while let Some(ip) = at {
                        let free = !all.iter().any(|other| other.ips().any(|o| o == ip));
                        let unfit = self.nodes.contains(&ip) || (pool.avoid_buggy && is_buggy(ip));
                        assert_ne!((free, unfit), (true, false), "{} has none, and {ip} is free", claim.key);
                        at = range.after(ip);
                    }
                }
            }
        }
    }
}

/// What somebody does.
#[derive(Clone, Debug)]
enum Step {
    Service(usize, Value),
    DeleteService(usize),
    Pool(usize, Value),
    DeletePool(usize),
    Node(u8),
    /// Plans and writes, of which some are lost.
    Plan(usize, u8),
}

fn services() -> impl Strategy<Value = Value> {
    let kinds = prop_oneof![4 => Just("LoadBalancer"), 1 => Just("ClusterIP")];
    let families = prop_oneof![4 => Just(json!(["IPv4"])), 1 => Just(json!(["IPv6"])), 2 => Just(json!(["IPv4", "IPv6"]))];
    let policy = prop_oneof![Just("PreferDualStack"), Just("RequireDualStack")];
    let key = prop_oneof![3 => Just(Value::Null), 2 => Just(json!("k")), 1 => Just(json!("j"))];
    let ip = prop_oneof![4 => Just(Value::Null), 4 => (0u8..6).prop_map(|n| json!(format!("192.0.2.{n}"))),
        1 => Just(json!("nonsense"))];
    let pool = prop_oneof![6 => Just(Value::Null), 1 => (0usize..3).prop_map(|n| json!(format!("pool{n}")))];
    let class = prop_oneof![5 => Just(Value::Null), 1 => Just(json!("weft.dev/load-balancer")), 1 => Just(json!("other"))];
    let label = prop_oneof![Just(json!("a")), Just(json!("b"))];
    let rest = (80u16..83, any::<bool>(), class, label);
    (kinds, families, policy, key, ip, pool, rest).prop_map(
        |(kind, families, policy, key, ip, pool, (port, local, class, label))| {
            json!({"metadata": {"labels": {"app": label}, "annotations": {"weft.dev/allow-shared-ip": key,
                "weft.dev/load-balancer-ips": ip, "weft.dev/load-balancer-pool": pool}},
                "spec": {"type": kind, "ipFamilies": families, "ipFamilyPolicy": policy,
                    "loadBalancerClass": class, "ports": [{"port": port}], "selector": {"app": label},
                    "externalTrafficPolicy": if local { "Local" } else { "Cluster" }}})
        },
    )
}

fn pools() -> impl Strategy<Value = Value> {
    let v4 = (0u8..6, 0u8..6).prop_map(|(from, count)| format!("192.0.2.{from}-192.0.2.{}", from + count));
    let addresses = prop_oneof![
        4 => v4.clone().prop_map(|range| json!([range])),
        2 => v4.prop_map(|range| json!([range, "2001:db8::/126"])),
        1 => Just(json!(["192.0.2.9-192.0.2.1"])),
        1 => Just(json!(["10.244.1.0/24"])),
        1 => Just(json!(["2001:db8:1::/64"])),
    ];
    let selector = prop_oneof![3 => Just(Value::Null), 1 => Just(json!({"matchLabels": {"app": "a"}}))];
    let tier = prop_oneof![3 => Just(Value::Null), 1 => Just(json!({"matchLabels": {"tier": "tin"}}))];
    let priority = prop_oneof![Just(Value::Null), (0u32..3).prop_map(|n| json!(n))];
    (addresses, selector, tier, priority, any::<bool>(), prop::bool::weighted(0.8)).prop_map(
        |(addresses, selector, tier, priority, buggy, auto)| {
            json!({"spec": {"addresses": addresses, "serviceSelector": selector, "namespaceSelector": tier,
                "priority": priority, "avoidBuggyIPs": buggy, "autoAssign": auto}})
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0usize..6, services()).prop_map(|(n, spec)| Step::Service(n, spec)),
        2 => (0usize..6).prop_map(Step::DeleteService),
        3 => (0usize..3, pools()).prop_map(|(n, spec)| Step::Pool(n, spec)),
        1 => (0usize..3).prop_map(Step::DeletePool),
        1 => (0u8..14).prop_map(Step::Node),
        6 => (any::<usize>(), any::<u8>()).prop_map(|(turn, lost)| Step::Plan(turn, lost)),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn nobody_gets_what_another_has(steps in steps()) {
        let mut api = Api::default();
        for step in steps {
            match step {
                Step::Service(n, spec) => api.service(&format!("s{n}"), &spec),
                Step::DeleteService(n) => api.delete_service(&format!("s{n}")),
                Step::Pool(n, spec) => api.pool(&format!("pool{n}"), &spec),
                Step::DeletePool(n) => api.delete_pool(&format!("pool{n}")),
                Step::Node(n) => api.node(&format!("192.0.2.{n}")),
                Step::Plan(turn, lost) => {
                    let plan = api.plan();
                    api.write(&plan, turn, &|index| lost >> (index % 8) & 1 == 1);
                }
            }
        }
        api.settle();
        api.check();
        // What there is stays when pools go and the planner starts anew.
        let before: Vec<Vec<IpAddr>> = api.services.keys().map(|name| api.ips(name)).collect();
        api.pools.clear();
        api.settle();
        let after: Vec<Vec<IpAddr>> = api.services.keys().map(|name| api.ips(name)).collect();
        prop_assert_eq!(before, after);
    }
}
