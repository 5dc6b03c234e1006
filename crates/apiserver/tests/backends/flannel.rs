//! Flannel's subnets in a real etcd, kept beside flannel.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_apiserver::{
    Controllers, ControllersConfig, DeleteOptions, FlannelEtcd, Registry, kinds, spawn_controllers,
};

use super::etcd::Etcd;
use super::{Bed, block_on};

const PREFIX: &str = "/coreos.com/network";
const SOON: Duration = Duration::from_secs(60);
const VXLAN: &str = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#;
const HOST: &str = r#"{"PublicIP":"192.168.7.2","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"3a:0f:2e:0c:9d:51"}}"#;

struct Bench {
    bed: Bed,
    registry: Registry,
    _controllers: Controllers,
}

impl Bench {
    async fn start(config: &str) -> Self {
        let etcd = Etcd::start();
        let flannel = FlannelEtcd { etcd: etcd.config(), prefix: PREFIX.to_owned() };
        etcd.ctl(&["put", &format!("{PREFIX}/config"), config]).unwrap();
        let bed = Bed::Etcd(Box::new(etcd));
        let registry = bed.open().await;
        let config = ControllersConfig { flannel: Some(flannel), ..ControllersConfig::default() };
        let controllers = spawn_controllers(registry.clone(), config).unwrap();
        Bench { bed, registry, _controllers: controllers }
    }

    fn ctl(&self, arguments: &[&str]) -> String {
        let Bed::Etcd(etcd) = &self.bed else { panic!("the bed is an etcd") };
        etcd.ctl(arguments).unwrap()
    }

    /// A new lease of these seconds.
    fn grant(&self, seconds: &str) -> String {
        let told = self.ctl(&["lease", "grant", seconds]);
        told.split_whitespace().nth(1).unwrap().to_owned()
    }

    /// A subnet's key as flannel writes it, with a lease.
    fn write(&self, subnet: &str, value: &str, lease: &str) {
        let key = format!("{PREFIX}/subnets/{subnet}");
        self.ctl(&["put", &key, value, "--lease", lease]);
    }

    /// The value of a subnet's key and its lease; nothing where it is gone.
    fn read(&self, subnet: &str) -> Option<(Value, i64)> {
        let found = self.ctl(&["get", &format!("{PREFIX}/subnets/{subnet}"), "-w", "json"]);
        let found: Value = serde_json::from_str(&found).unwrap();
        let pair = found["kvs"].get(0)?;
        let value = self.ctl(&["get", &format!("{PREFIX}/subnets/{subnet}"), "--print-value-only"]);
        // Deleted between the two questions.
        if value.trim().is_empty() {
            return None;
        }
        Some((serde_json::from_str(&value).unwrap(), pair["lease"].as_i64().unwrap_or(0)))
    }

    /// Seconds that a lease has left.
    fn left(&self, lease: i64) -> i64 {
        let told = self.ctl(&["lease", "timetolive", &format!("{lease:x}"), "-w", "json"]);
        let told: Value = serde_json::from_str(&told).unwrap();
        told["ttl"].as_i64().unwrap()
    }

    async fn node(&self, name: &str, address: &str) {
        let status = json!({"addresses": [{"type": "InternalIP", "address": address}]});
        let node = json!({"metadata": {"name": name}, "status": status});
        self.registry.create(&kinds::NODES, None, node).await.unwrap();
    }

    async fn get(&self, name: &str) -> Option<Value> {
        self.registry.get(&kinds::NODES, None, name).await.ok().map(|node| Value::clone(&node))
    }

    /// The Node as soon as it is as it should be.
    async fn until(&self, name: &str, what: impl Fn(Option<&Value>) -> bool) -> Option<Value> {
        let deadline = Instant::now() + SOON;
        loop {
            let node = self.get(name).await;
            if what(node.as_ref()) {
                return node;
            }
            assert!(Instant::now() < deadline, "{name}: {node:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_key(&self, subnet: &str, what: impl Fn(Option<&(Value, i64)>) -> bool) {
        let deadline = Instant::now() + SOON;
        loop {
            let found = self.read(subnet);
            if what(found.as_ref()) {
                return;
            }
            assert!(Instant::now() < deadline, "{subnet}: {found:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn condition(node: &Value) -> Option<&Value> {
    node["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == "FlannelSubnetLeased")
}

#[test]
fn a_host_that_runs_flannel_is_a_node_until_its_lease_ends() {
    block_on(async {
        let bench = Bench::start(VXLAN).await;
        let lease = bench.grant("86400");
        bench.write("10.5.7.0-24", HOST, &lease);
        let node = bench.until("flannel-10.5.7.0-24", |node| node.is_some()).await.unwrap();
        assert_eq!(node["spec"]["podCIDRs"], json!(["10.5.7.0/24"]));
        assert_eq!(node["status"]["addresses"][0]["address"], "192.168.7.2");
        assert_eq!(node["metadata"]["annotations"]["flannel.alpha.coreos.com/backend-type"], "vxlan");
        let networks = bench.registry.kind("weft.dev", "v1", "networks");
        if let Some(networks) = networks {
            let network = bench.registry.get(&networks, None, "default").await.unwrap();
            assert_eq!(network["spec"]["vxlan"]["port"], 8472);
        }
        // What no host of flannel wrote does no harm.
        bench.ctl(&["put", &format!("{PREFIX}/subnets/nonsense"), "{"]);
        bench.ctl(&["put", &format!("{PREFIX}/subnets/10.5.8.0-24"), "{"]);
        // As at the end of its time.
        bench.ctl(&["lease", "revoke", &lease]);
        bench.until("flannel-10.5.7.0-24", |node| node.is_none()).await;
    });
}

#[test]
fn a_node_leases_its_subnet_renews_it_and_gives_it_back() {
    block_on(async {
        let bench = Bench::start(VXLAN).await;
        bench.node("n", "192.168.7.1").await;
        let node =
            bench.until("n", |node| node.is_some_and(|n| n["spec"]["podCIDR"].is_string())).await.unwrap();
        assert_eq!(node["spec"]["podCIDRs"], json!(["10.5.1.0/24"]));
        let (value, lease) = bench.read("10.5.1.0-24").unwrap();
        assert_eq!(value["PublicIP"], "192.168.7.1");
        assert!(bench.left(lease) > 86_000);
        bench.until("n", |node| node.and_then(condition).is_some_and(|c| c["status"] == "True")).await;

        // As it is after 23 and a half hours.
        let (value, old) = (value.to_string(), bench.grant("1800"));
        bench.write("10.5.1.0-24", &value, &old);
        let renewed =
            |found: Option<&(Value, i64)>| found.is_some_and(|(_, lease)| bench.left(*lease) > 86_000);
        bench.until_key("10.5.1.0-24", renewed).await;
        assert_eq!(bench.read("10.5.1.0-24").unwrap().0.to_string(), value);
        // With an hour left and more nobody writes it: the Node that is made meanwhile is looked at later.
        let young = bench.grant("4000");
        bench.write("10.5.1.0-24", &value, &young);
        bench.node("later", "192.168.7.9").await;
        bench.until("later", |node| node.is_some_and(|n| n["spec"]["podCIDR"].is_string())).await;
        assert!(bench.left(bench.read("10.5.1.0-24").unwrap().1) <= 4000);

        bench.registry.delete(&kinds::NODES, None, "n", DeleteOptions::default()).await.unwrap();
        bench.until_key("10.5.1.0-24", |found| found.is_none()).await;
        assert!(bench.read("10.5.2.0-24").is_some(), "the other one keeps its own");
    });
}

#[test]
fn a_node_takes_over_the_subnet_that_flannel_had_on_its_host() {
    block_on(async {
        let bench = Bench::start(VXLAN).await;
        bench.write("10.5.7.0-24", HOST, &bench.grant("86400"));
        bench.until("flannel-10.5.7.0-24", |node| node.is_some()).await;
        bench.node("n", "192.168.7.2").await;
        bench.until("flannel-10.5.7.0-24", |node| node.is_none()).await;
        let node = bench.get("n").await.unwrap();
        assert_eq!(node["spec"]["podCIDRs"], json!(["10.5.7.0/24"]));
        let annotations = &node["metadata"]["annotations"];
        assert_eq!(annotations["flannel.alpha.coreos.com/public-ip"], "192.168.7.2");
        // The agent announces the host as its own.
        let data = r#"{"VNI":1,"VtepMAC":"66:00:00:00:00:01","Weft":true}"#;
        let patch = json!({"metadata": {"annotations": {"flannel.alpha.coreos.com/backend-data": data}}});
        let patch = weft_apiserver::Patch::Merge(patch);
        bench.registry.patch(&kinds::NODES, None, "n", weft_apiserver::Part::Whole, patch).await.unwrap();
        let ours = |found: Option<&(Value, i64)>| {
            found.is_some_and(|(value, _)| value["BackendData"]["Weft"] == true)
        };
        bench.until_key("10.5.7.0-24", ours).await;
    });
}

#[test]
fn what_conflicts_with_flannel_s_configuration_is_told_at_the_nodes() {
    block_on(async {
        let bench = Bench::start(r#"{"Network":"10.5.0.0/16","Backend":{"Type":"ipsec"}}"#).await;
        bench.node("n", "192.168.7.1").await;
        let refused = |node: Option<&Value>| node.and_then(condition).is_some_and(|c| c["status"] == "False");
        let node = bench.until("n", refused).await.unwrap();
        assert!(condition(&node).unwrap()["message"].as_str().unwrap().contains("ipsec"), "{node}");
        assert!(node["spec"]["podCIDR"].is_null());
        bench.ctl(&["put", &format!("{PREFIX}/config"), VXLAN]);
        bench.until("n", |node| node.is_some_and(|n| n["spec"]["podCIDR"].is_string())).await;
    });
}
