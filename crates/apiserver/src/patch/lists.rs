//! How the lists and maps of built-in kinds merge: the `patchMergeKey`, `listType`, `listMapKey` and
//! `mapType` marks of k8s.io/api, for strategic merge patches and for server-side apply.

use serde_json::{Value, json};

/// How a strategic merge patch treats a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strategy {
    /// The patch's list takes its place.
    Replace,
    /// Plain values: the union.
    Set,
    /// Objects that are the same when this field is.
    Key(&'static str),
}

/// How server-side apply treats a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ownership {
    /// One value with one owner.
    Atomic,
    /// Each plain value has owners.
    Set,
    /// Each object has owners, and is known by these fields.
    Keys(&'static [&'static str]),
}

/// A list's two marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) strategy: Strategy,
    pub(super) ownership: Ownership,
}

const PLAIN: Rule = Rule { strategy: Strategy::Replace, ownership: Ownership::Atomic };
const SET: Rule = Rule { strategy: Strategy::Set, ownership: Ownership::Set };
const NAME: Rule = keyed("name", &["name"]);
const TYPE: Rule = keyed("type", &["type"]);

const fn keyed(key: &'static str, keys: &'static [&'static str]) -> Rule {
    Rule { strategy: Strategy::Key(key), ownership: Ownership::Keys(keys) }
}

/// Merged by key in a strategic merge patch, but with one owner.
const fn patched(key: &'static str) -> Rule {
    Rule { strategy: Strategy::Key(key), ownership: Ownership::Atomic }
}

/// A field of an object of a built-in kind, at any depth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place<'a> {
    kind: &'a str,
    parent: &'a str,
    field: &'a str,
}

impl<'a> Place<'a> {
    /// The object itself.
    pub(super) fn root(kind: &'a str) -> Self {
        Self { kind, parent: "", field: "" }
    }

    /// A field of what is here; of its items where it is a list.
    pub(super) fn field(self, field: &'a str) -> Self {
        Self { kind: self.kind, parent: self.field, field }
    }

    /// The marks of the list that is here.
    pub(super) fn list(self) -> Rule {
        let has_pods = has_pods(self.kind);
        match self.field {
            "containers"
            | "initContainers"
            | "ephemeralContainers"
            | "env"
            | "volumes"
            | "resourceClaims"
            | "schedulingGates"
            | "imagePullSecrets"
                if has_pods =>
            {
                NAME
            }
            "claims" if has_pods && self.parent == "resources" => {
                Rule { strategy: Strategy::Replace, ownership: Ownership::Keys(&["name"]) }
            }
            "volumeMounts" if has_pods => keyed("mountPath", &["mountPath"]),
            "volumeDevices" if has_pods => keyed("devicePath", &["devicePath"]),
            "hostAliases" | "podIPs" if has_pods => keyed("ip", &["ip"]),
            "hostIPs" if has_pods => patched("ip"),
            "topologySpreadConstraints" if has_pods => {
                keyed("topologyKey", &["topologyKey", "whenUnsatisfiable"])
            }
            "ports"
                if has_pods
                    && matches!(self.parent, "containers" | "initContainers" | "ephemeralContainers") =>
            {
                keyed("containerPort", &["containerPort", "protocol"])
            }
            "ports" if self.kind == "Service" && self.parent == "spec" => {
                keyed("port", &["port", "protocol"])
            }
            "secrets" if self.kind == "ServiceAccount" => NAME,
            "webhooks" | "matchConditions" => NAME,
            "conditions" if self.kind == "Job" => patched("type"),
            "conditions" => TYPE,
            "addresses" if self.kind == "Node" => TYPE,
            "podCIDRs" if self.kind == "Node" => SET,
            "ownerReferences" if self.parent == "metadata" => keyed("uid", &["uid"]),
            "finalizers" if self.parent == "metadata" => SET,
            _ => PLAIN,
        }
    }

    /// Whether a field of what is here is written by Kubernetes even when it is empty, and so never new:
    /// a struct that is no pointer, or a list that must be there.
    pub(super) fn is_part(self, name: &str) -> bool {
        match (self.parent, self.field) {
            ("", "") => matches!(name, "metadata" | "spec" | "status"),
            (_, "spec") => match name {
                "containers" => has_pods(self.kind) && (self.kind == "Pod" || self.parent == "template"),
                "template" => self.kind != "ReplicationController",
                "strategy" => self.kind == "Deployment",
                "updateStrategy" | "jobTemplate" | "names" => true,
                _ => false,
            },
            (_, "template" | "jobTemplate") => matches!(name, "metadata" | "spec"),
            (_, "status") => {
                matches!(name, "loadBalancer" | "nodeInfo" | "daemonEndpoints" | "acceptedNames")
            }
            (_, "daemonEndpoints") => name == "kubeletEndpoint",
            _ => false,
        }
    }

    /// Whether the object that is here is one value with one owner.
    pub(super) fn is_atomic(self) -> bool {
        match self.field {
            "selector" | "podSelector" | "namespaceSelector" | "labelSelector" | "objectSelector"
            | "nodeSelector" | "scopeSelector" => true,
            "secretKeyRef" | "configMapKeyRef" | "fieldRef" | "resourceFieldRef" => true,
            "roleRef" | "scaleTargetRef" | "involvedObject" | "regarding" | "related" | "dataSource" => true,
            "requiredDuringSchedulingIgnoredDuringExecution" => true,
            "secretRef" => self.parent != "envFrom",
            "port" | "resource" => self.kind == "Ingress",
            _ => false,
        }
    }
}

fn has_pods(kind: &str) -> bool {
    matches!(
        kind,
        "Pod"
            | "Deployment"
            | "ReplicaSet"
            | "StatefulSet"
            | "DaemonSet"
            | "Job"
            | "CronJob"
            | "ReplicationController"
            | "PodTemplate"
    )
}

/// What a key of a list has where an item does not say it.
pub(super) fn default_of(key: &str) -> Option<Value> {
    Some(match key {
        "protocol" => json!("TCP"),
        "port" | "containerPort" => json!(0),
        _ => json!(""),
    })
}
