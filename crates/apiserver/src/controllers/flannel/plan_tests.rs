use serde_json::{Value, json};

use super::super::settings::read_settings;
use super::super::text::read_attributes;
use super::*;

const WEFT: &str = r#"{"VNI":1,"VtepMAC":"66:00:00:00:00:01","Weft":true}"#;
const FLANNEL: &str = r#"{"VNI":1,"VtepMAC":"3a:0f:2e:0c:9d:51"}"#;
const NOW: &str = "2026-01-01T00:00:00Z";

/// Both sides, and what the steps make of them.
#[derive(Default)]
struct Sides {
    nodes: BTreeMap<String, Value>,
    leases: Vec<Lease>,
    refused: Option<String>,
    revision: i64,
}

fn attributes(address: &str, data: &str) -> Attributes {
    let text =
        format!(r#"{{"PublicIP":"{address}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{data}}}"#);
    read_attributes(text.as_bytes()).unwrap()
}

fn subnet(text: &str) -> Subnet {
    text.parse().unwrap()
}

fn merge(target: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else { return *target = patch.clone() };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

impl Sides {
    fn node(&mut self, name: &str, address: &str) {
        let status = json!({"addresses": [{"type": "InternalIP", "address": address}]});
        let node = json!({"metadata": {"name": name, "uid": name}, "spec": {}, "status": status});
        self.nodes.insert(name.to_owned(), node);
    }

    /// A key as somebody writes it.
    fn write(&mut self, text: &str, attributes: Result<Attributes, String>) {
        self.revision += 1;
        let subnet = subnet(text);
        self.leases.retain(|lease| lease.subnet != subnet);
        let left = Some(Duration::from_secs(24 * 60 * 60));
        self.leases.push(Lease { subnet, attributes, revision: self.revision, left });
    }

    fn plan(&self) -> Vec<Step> {
        let settings = read_settings(br#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#);
        let settings = self.refused.clone().map_or(settings, Err);
        let hosts: Vec<Host> = self.nodes.values().map(Host::of).collect();
        plan(&Scene { settings: &settings, hosts: &hosts, leases: &self.leases }, NOW)
    }

    /// Does what is planned until nothing is, and says what was done in words.
    fn settle(&mut self) -> Vec<String> {
        let mut done = Vec::new();
        for _ in 0..10 {
            let steps = self.plan();
            if steps.is_empty() {
                return done;
            }
            for step in steps {
                done.push(self.perform(step));
            }
        }
        panic!("it does not settle: {done:?}");
    }

    fn perform(&mut self, step: Step) -> String {
        match step {
            Step::Put { subnet, attributes, revision } => {
                let found = self.leases.iter().find(|lease| lease.subnet == subnet);
                assert_eq!(found.map_or(0, |lease| lease.revision), revision);
                let told = format!("put {subnet} {}", attributes.backend);
                self.write(&subnet.to_string(), Ok(attributes));
                told
            }
            Step::Delete { subnet, revision } => {
                self.leases.retain(|lease| (lease.subnet, lease.revision) != (subnet, revision));
                format!("delete {subnet}")
            }
            Step::Patch(Patch { name, patch, .. }) => {
                merge(self.nodes.get_mut(&name).unwrap(), &patch);
                format!("patch {name}")
            }
            Step::Mirror(mut node) => {
                let name = node["metadata"]["name"].as_str().unwrap().to_owned();
                node["metadata"]["uid"] = json!(name);
                assert!(self.nodes.insert(name.clone(), node).is_none(), "{name} is there");
                format!("mirror {name}")
            }
            Step::Retire { name, .. } => {
                self.nodes.remove(&name).unwrap();
                format!("retire {name}")
            }
        }
    }

    /// As the agent of a node does.
    fn announce(&mut self, name: &str, address: &str) {
        let annotations = attributes(address, WEFT).annotations();
        merge(self.nodes.get_mut(name).unwrap(), &json!({"metadata": {"annotations": annotations}}));
    }

    fn condition(&self, name: &str) -> (String, String) {
        let conditions = &self.nodes[name]["status"]["conditions"];
        let one = conditions.as_array().unwrap().iter().find(|c| c["type"] == "FlannelSubnetLeased").unwrap();
        let text = |field: &str| one[field].as_str().unwrap().to_owned();
        (text("status"), text("message"))
    }

    fn data(&self, name: &str) -> String {
        let data = &self.nodes[name]["metadata"]["annotations"]["flannel.alpha.coreos.com/backend-data"];
        data.as_str().unwrap_or_default().to_owned()
    }
}

#[test]
fn a_host_that_runs_flannel_has_a_node_as_long_as_its_key() {
    let mut sides = Sides::default();
    sides.write("10.5.7.0-24", Ok(attributes("192.168.7.2", FLANNEL)));
    assert_eq!(sides.settle(), ["mirror flannel-10.5.7.0-24"]);
    let node = &sides.nodes["flannel-10.5.7.0-24"];
    assert_eq!(node["spec"]["podCIDRs"], json!(["10.5.7.0/24"]));
    assert_eq!(node["status"]["addresses"][0]["address"], "192.168.7.2");
    assert_eq!(sides.data("flannel-10.5.7.0-24"), FLANNEL);
    // Flannel there was started anew and has another MAC.
    let other = FLANNEL.replace("3a", "3e");
    sides.write("10.5.7.0-24", Ok(attributes("192.168.7.2", &other)));
    assert_eq!(sides.settle(), ["patch flannel-10.5.7.0-24"]);
    assert_eq!(sides.data("flannel-10.5.7.0-24"), other);
    // A value that makes no sense changes nothing, as with flannel.
    sides.write("10.5.7.0-24", Err("broken".to_owned()));
    assert!(sides.settle().is_empty());
    sides.leases.clear();
    assert_eq!(sides.settle(), ["retire flannel-10.5.7.0-24"]);
}

#[test]
fn a_node_gets_a_key_first_and_then_its_pod_cidr_and_gives_it_back() {
    let mut sides = Sides::default();
    sides.write("10.5.1.0-24", Ok(attributes("192.168.7.2", FLANNEL)));
    sides.node("n", "192.168.7.1");
    let all = sides.settle();
    assert_eq!(all, ["put 10.5.2.0-24 weft", "mirror flannel-10.5.1.0-24", "patch n", "patch n"]);
    assert_eq!(sides.nodes["n"]["spec"]["podCIDR"], "10.5.2.0/24");
    assert_eq!(sides.condition("n").0, "True");
    assert_eq!(sides.data("n"), "", "its agent has said nothing yet");
    sides.announce("n", "192.168.7.1");
    assert_eq!(sides.settle(), ["put 10.5.2.0-24 vxlan"]);
    assert_eq!(sides.leases[1].attributes, Ok(attributes("192.168.7.1", WEFT)));
    sides.nodes.remove("n");
    assert_eq!(sides.settle(), ["delete 10.5.2.0-24"]);
}

#[test]
fn a_host_that_moves_over_keeps_its_subnet_and_back() {
    let mut sides = Sides::default();
    sides.write("10.5.7.0-24", Ok(attributes("192.168.7.2", FLANNEL)));
    sides.settle();
    sides.node("n", "192.168.7.2");
    // Its own Node stands for it before the other one goes.
    assert_eq!(sides.settle(), ["patch n", "patch n", "retire flannel-10.5.7.0-24"]);
    assert_eq!(sides.nodes["n"]["spec"]["podCIDRs"], json!(["10.5.7.0/24"]));
    assert_eq!(sides.data("n"), FLANNEL, "it is reached as flannel says until the agent has it");
    sides.announce("n", "192.168.7.2");
    assert_eq!(sides.settle(), ["put 10.5.7.0-24 vxlan"]);
    // Flannel is started there again, and finds its subnet by its address.
    sides.write("10.5.7.0-24", Ok(attributes("192.168.7.2", FLANNEL)));
    assert_eq!(sides.settle(), ["patch n"]);
    assert_eq!(sides.data("n"), FLANNEL);
    // And the agent again.
    sides.announce("n", "192.168.7.2");
    assert_eq!(sides.settle(), ["put 10.5.7.0-24 vxlan"]);
    // No other host runs flannel any more: what the agent takes back stays in the key.
    let none: Value = attributes("192.168.7.2", WEFT)
        .annotations()
        .into_iter()
        .map(|(key, _)| (key, Value::Null))
        .collect();
    merge(sides.nodes.get_mut("n").unwrap(), &json!({"metadata": {"annotations": none}}));
    assert!(sides.settle().is_empty());
}

#[test]
fn a_key_is_renewed_with_less_than_an_hour_left_and_no_other() {
    let mut sides = Sides::default();
    sides.node("n", "192.168.7.1");
    sides.settle();
    sides.write("10.5.9.0-24", Ok(attributes("192.168.7.2", FLANNEL)));
    sides.settle();
    let mut after = |minutes: u64| {
        sides.leases.iter_mut().for_each(|lease| lease.left = Some(Duration::from_secs(minutes * 60)));
        sides.plan().len()
    };
    assert_eq!((after(61), after(60)), (0, 0));
    assert_eq!(after(59), 1, "flannel renews its own");
    assert_eq!(sides.settle(), ["put 10.5.1.0-24 weft"]);
    sides.leases.iter_mut().for_each(|lease| lease.left = None);
    assert!(sides.settle().is_empty(), "a reservation stays as it is");
}

#[test]
fn a_key_that_ended_is_claimed_again_for_the_same_subnet() {
    let mut sides = Sides::default();
    sides.node("n", "192.168.7.1");
    sides.settle();
    sides.leases.clear();
    assert_eq!(sides.settle(), ["put 10.5.1.0-24 weft"]);
    // Meanwhile flannel elsewhere got it: then somebody has to choose.
    sides.leases.clear();
    sides.write("10.5.1.0-24", Ok(attributes("192.168.7.2", FLANNEL)));
    sides.settle();
    let (status, message) = sides.condition("n");
    assert_eq!(status, "False");
    assert!(message.contains("192.168.7.2"), "{message}");
    assert_eq!(sides.nodes.len(), 1, "two Nodes of one pod CIDR help nobody");
}

#[test]
fn what_does_not_fit_is_told_and_nothing_new_is_made() {
    let mut sides = Sides { refused: Some("the VNIs differ".to_owned()), ..Sides::default() };
    sides.node("n", "192.168.7.1");
    sides.write("10.5.9.0-24", Ok(attributes("192.168.7.2", FLANNEL)));
    assert_eq!(sides.settle(), ["patch n"]);
    assert_eq!(sides.condition("n"), ("False".to_owned(), "the VNIs differ".to_owned()));
    sides.refused = None;
    sides.settle();
    assert_eq!(sides.condition("n").0, "True");
    // What is there is kept even so.
    sides.refused = Some("the VNIs differ".to_owned());
    sides.settle();
    assert_eq!(sides.condition("n").1, "the VNIs differ");
    sides.leases.iter_mut().for_each(|lease| lease.left = Some(Duration::from_secs(60)));
    assert_eq!(sides.settle(), ["put 10.5.1.0-24 weft"]);
    sides.leases.retain(|lease| lease.subnet != subnet("10.5.9.0-24"));
    assert_eq!(sides.settle(), ["retire flannel-10.5.9.0-24"]);

    let mut sides = Sides::default();
    sides.node("v6", "fd00::1");
    sides.node("other", "192.168.7.3");
    sides.nodes.get_mut("other").unwrap()["spec"]["podCIDRs"] = json!(["10.244.0.0/24"]);
    assert_eq!(sides.settle(), ["patch other", "patch v6"]);
    assert!(sides.condition("v6").1.contains("InternalIP"));
    assert!(sides.condition("other").1.contains("none of flannel's subnets"));
}

#[test]
fn a_second_subnet_of_flannel_on_a_host_of_ours_is_told() {
    let mut sides = Sides::default();
    sides.node("n", "192.168.7.1");
    sides.settle();
    sides.write("10.5.9.0-24", Ok(attributes("192.168.7.1", FLANNEL)));
    sides.settle();
    assert!(sides.condition("n").1.contains("10.5.9.0-24"));
}
