//! The Node objects as this controller reads and writes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::super::object;
use super::text::{Attributes, Subnet};
use crate::registry::Part;

/// Marks the Node objects that stand for hosts which run flannel and have none of their own.
const MIRROR: &str = "weft.dev/flannel-host";
/// On a node: the revision of its key in etcd that its annotations were last taken from.
const SEEN: &str = "weft.dev/flannel-revision";
/// What a Node object says of its subnet.
const CONDITION: &str = "FlannelSubnetLeased";

/// What is read of a Node object.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) uid: String,
    version: Value,
    /// Whether it stands for a host that runs flannel.
    pub(super) mirror: bool,
    pub(super) leaving: bool,
    addresses: Vec<IpAddr>,
    pub(super) cidrs: Vec<IpNet>,
    annotations: Value,
    conditions: Value,
}

/// A write to a Node object.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Patch {
    pub(super) name: String,
    pub(super) part: Part,
    pub(super) patch: Value,
}

impl Host {
    pub(super) fn of(node: &Value) -> Self {
        let (meta, spec, status) = (&node["metadata"], &node["spec"], &node["status"]);
        let internal = object::list(&status["addresses"]).filter(|address| address["type"] == "InternalIP");
        let parsed = |texts: &mut dyn Iterator<Item = &Value>| {
            texts.filter_map(Value::as_str).filter_map(|text| text.parse().ok()).collect()
        };
        Host {
            name: object::name(node).to_owned(),
            uid: object::uid(node).to_owned(),
            version: meta["resourceVersion"].clone(),
            mirror: meta["labels"][MIRROR] == "true",
            leaving: object::terminating(node),
            addresses: internal.filter_map(|a| a["address"].as_str()?.parse().ok()).collect(),
            cidrs: parsed(&mut object::list(&spec["podCIDRs"])),
            annotations: meta["annotations"].clone(),
            conditions: status["conditions"].clone(),
        }
    }

    /// Whether the host is the one that such packets go to.
    pub(super) fn is_at(&self, attributes: &Attributes) -> bool {
        self.addresses.contains(&IpAddr::V4(attributes.public_ip))
    }

    /// Whether the subnet is the host's.
    pub(super) fn has(&self, subnet: &Subnet) -> bool {
        self.cidrs.contains(&IpNet::V4(subnet.v4))
    }

    /// The subnet that its pod CIDRs are; nothing where they are none.
    pub(super) fn subnet(&self) -> Option<Subnet> {
        let v4 = self.cidrs.iter().find_map(|cidr| match cidr {
            IpNet::V4(v4) => Some(*v4),
            IpNet::V6(_) => None,
        });
        let v6 = self.cidrs.iter().find_map(|cidr| match cidr {
            IpNet::V6(v6) => Some(*v6),
            IpNet::V4(_) => None,
        });
        Some(Subnet { v4: v4?, v6 })
    }

    /// What its agent tells flannel on others; nothing where it does not.
    pub(super) fn told(&self) -> Option<Attributes> {
        Attributes::of(&self.annotations).filter(Attributes::by_weft)
    }

    /// What flannel is told as long as the agent says nothing.
    pub(super) fn silent(&self) -> Option<Attributes> {
        let v4: Option<Ipv4Addr> = self.addresses.iter().find_map(|address| match address {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        });
        let v6: Option<Ipv6Addr> = self.addresses.iter().find_map(|address| match address {
            IpAddr::V6(v6) => Some(*v6),
            IpAddr::V4(_) => None,
        });
        Some(Attributes::of_weft(v4?, v6))
    }

    /// Whether its annotations are from this revision of its key.
    pub(super) fn has_seen(&self, revision: i64) -> bool {
        self.annotations[SEEN].as_str().and_then(|seen| seen.parse().ok()) == Some(revision)
    }

    /// Takes what flannel says of the host, and the subnet where it has none.
    pub(super) fn take(&self, subnet: &Subnet, attributes: &Attributes, revision: i64) -> Patch {
        let mut annotations = attributes.annotations();
        annotations.insert(SEEN.to_owned(), json!(revision.to_string()));
        let mut patch = json!({"metadata": {"uid": self.uid, "annotations": annotations}});
        if self.cidrs.is_empty() {
            let cidrs: Vec<IpNet> = subnet.cidrs().collect();
            patch["spec"] = json!({"podCIDR": cidrs.first(), "podCIDRs": cidrs});
        }
        Patch { name: self.name.clone(), part: Part::Whole, patch }
    }

    /// Says how things stand, if it does not yet.
    pub(super) fn tell(&self, state: &Result<String, String>, now: &str) -> Option<Patch> {
        let (status, reason, message) = match state {
            Ok(message) => (true, "SubnetLeased", message),
            Err(message) => (false, "Refused", message),
        };
        let text = if status { "True" } else { "False" };
        let said = |c: &Value| c["type"] == CONDITION && c["status"] == text && c["message"] == **message;
        if object::list(&self.conditions).any(said) {
            return None;
        }
        let conditions = object::with_condition(&self.conditions, CONDITION, status, reason, message, now);
        // The version makes a concurrent writer of the list a conflict and not a loss.
        let meta = json!({"uid": self.uid, "resourceVersion": self.version});
        let patch = json!({"metadata": meta, "status": {"conditions": conditions}});
        Some(Patch { name: self.name.clone(), part: Part::Status, patch })
    }

    /// Brings the Node object of a host that runs flannel up to date, if it is not.
    pub(super) fn follow(&self, attributes: &Attributes) -> Option<Patch> {
        let wanted = attributes.annotations();
        if wanted.iter().all(|(key, text)| self.annotations[key] == *text) {
            return None;
        }
        let patch = json!({"metadata": {"uid": self.uid, "annotations": wanted},
            "status": {"addresses": addresses(attributes)}});
        Some(Patch { name: self.name.clone(), part: Part::Both, patch })
    }
}

fn addresses(attributes: &Attributes) -> Value {
    attributes.addresses().map(|address| json!({"type": "InternalIP", "address": address})).collect()
}

/// The name of the Node object of a host that runs flannel and has none of its own.
pub(super) fn mirror_name(subnet: &Subnet) -> String {
    format!("flannel-{}-{}", subnet.v4.addr(), subnet.v4.prefix_len())
}

/// That Node object. Nothing runs on it that needs a kubelet.
pub(super) fn mirror(subnet: &Subnet, attributes: &Attributes) -> Value {
    let mut annotations = attributes.annotations();
    annotations.retain(|_, text| !text.is_null());
    let cidrs: Vec<IpNet> = subnet.cidrs().collect();
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": mirror_name(subnet), "labels": {MIRROR: "true"}, "annotations": annotations},
        "spec": {"podCIDR": cidrs.first(), "podCIDRs": cidrs, "unschedulable": true,
            "taints": [{"key": MIRROR, "effect": "NoSchedule"}]},
        "status": {"addresses": addresses(attributes)},
    })
}
