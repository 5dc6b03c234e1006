//! Cases: configurations and calls as data, from `cases/*.yaml`.

use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// One test: its steps are made in order on each node.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Case {
    /// `file/name`, and behind a colon the variant.
    #[serde(rename = "case")]
    pub name: String,
    /// Shell lines that are run on the node before the first step.
    #[serde(default)]
    pub prepare: Vec<String>,
    /// Shell lines that are run in the first pod's namespace after that.
    #[serde(default)]
    pub prepare_pod: Vec<String>,
    /// A network configuration: with `plugins` a list, else one plugin's.
    pub config: Value,
    /// What the runtime knows of this container, given to plugins with the capability.
    #[serde(default)]
    pub runtime_config: Map<String, Value>,
    /// CNI_ARGS.
    #[serde(default = "pod_arguments")]
    pub args: String,
    /// CNI_IFNAME.
    #[serde(default = "eth0")]
    pub ifname: String,
    #[serde(default = "whole_life")]
    pub steps: Vec<Step>,
    /// Kinds of links (and `bridge-vlan`) without which the kernel cannot run the case.
    #[serde(default)]
    pub needs: Vec<String>,
    /// Whether one side's containers are given to the other.
    #[serde(default = "yes")]
    pub swap: bool,
    /// Each variant is a case of its own: merged (RFC 7386) into this one.
    #[serde(default)]
    variants: Vec<Variant>,
}

#[derive(Debug, Clone, Deserialize)]
struct Variant {
    name: String,
    #[serde(default, rename = "with")]
    merged: Value,
    /// A list behind a list: each of these is merged again.
    #[serde(default)]
    each: Vec<Variant>,
}

/// One call, or one change between calls.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "Written")]
pub enum Step {
    Call(CallStep),
    /// Shell lines in a namespace: the node's, or a pod's by its name.
    Run {
        script: String,
        place: Option<String>,
    },
}

/// A call, as a runtime makes it for every plugin of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CallStep {
    /// ADD, CHECK, DEL, GC or STATUS.
    #[serde(rename = "do")]
    pub command: String,
    /// CNI_CONTAINERID.
    #[serde(default = "first")]
    pub id: String,
    /// The name of the pod's namespace; `none` for no CNI_NETNS, `gone` for a path that is none.
    pub pod: Option<String>,
    pub ifname: Option<String>,
    pub args: Option<String>,
    pub runtime_config: Option<Map<String, Value>>,
    /// Merged into the configuration.
    pub config: Option<Value>,
    /// GC: the container IDs that stay; absent, the key is not given.
    pub valid: Option<Vec<String>>,
    /// Whether prevResult is left out.
    #[serde(default)]
    pub forgotten: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Written {
    Short(String),
    Run { run: String, r#in: Option<String> },
    Call(CallStep),
}

impl From<Written> for Step {
    fn from(written: Written) -> Step {
        match written {
            Written::Short(command) => Step::Call(CallStep::new(&command)),
            Written::Run { run, r#in } => Step::Run { script: run, place: r#in },
            Written::Call(call) => Step::Call(call),
        }
    }
}

impl CallStep {
    fn new(command: &str) -> CallStep {
        serde_json::from_value(json!({"do": command})).unwrap()
    }

    /// The pod's namespace: that of its own ID unless said otherwise.
    pub fn pod(&self) -> &str {
        self.pod.as_deref().unwrap_or(&self.id)
    }
}

impl Step {
    pub fn label(&self) -> &str {
        match self {
            Step::Call(call) => &call.command,
            Step::Run { .. } => "run",
        }
    }
}

impl Case {
    /// Every pod that a step names; the first is made in any case.
    pub fn pods(&self) -> Vec<String> {
        let mut pods = vec![first()];
        for step in &self.steps {
            let Step::Call(call) = step else { continue };
            let pod = call.pod();
            if !["none", "gone"].contains(&pod) && !pods.iter().any(|known| known == pod) {
                pods.push(pod.to_owned());
            }
        }
        pods
    }

    fn expand(mut self, file: &str) -> Vec<Case> {
        let variants = std::mem::take(&mut self.variants);
        self.name = format!("{file}/{}", self.name);
        expand(&self, &variants)
    }
}

fn expand(case: &Case, variants: &[Variant]) -> Vec<Case> {
    if variants.is_empty() {
        return vec![case.clone()];
    }
    let mut all = Vec::new();
    for variant in variants {
        let mut made = case.clone();
        let separator = if case.name.contains(": ") { ", " } else { ": " };
        made.name = format!("{}{separator}{}", case.name, variant.name);
        if let Value::Object(merged) = &variant.merged {
            merge_case(&mut made, merged);
        }
        all.extend(expand(&made, &variant.each));
    }
    all
}

fn merge_case(case: &mut Case, with: &Map<String, Value>) {
    for (key, value) in with {
        let value = value.clone();
        match key.as_str() {
            "config" => merge(&mut case.config, &value),
            "runtimeConfig" => case.runtime_config = read(&case.name, value),
            "prepare" => case.prepare = read(&case.name, value),
            "preparePod" => case.prepare_pod = read(&case.name, value),
            "steps" => case.steps = read(&case.name, value),
            "needs" => case.needs = read(&case.name, value),
            "args" => case.args = read(&case.name, value),
            "ifname" => case.ifname = read(&case.name, value),
            "swap" => case.swap = read(&case.name, value),
            other => panic!("{}: a variant cannot change {other}", case.name),
        }
    }
}

fn read<T: DeserializeOwned>(case: &str, value: Value) -> T {
    serde_json::from_value(value).unwrap_or_else(|e| panic!("{case}: {e}"))
}

/// A merge patch (RFC 7386), but lists are merged by place where the patch has a list of objects
/// under `plugins`, so that a variant can change one plugin of a chain.
pub fn merge(into: &mut Value, with: &Value) {
    let (Value::Object(into), Value::Object(with)) = (&mut *into, with) else {
        *into = with.clone();
        return;
    };
    for (key, value) in with {
        match (into.get_mut(key), value) {
            (_, Value::Null) => drop(into.remove(key)),
            (Some(Value::Array(old)), Value::Array(new)) if key == "plugins" => {
                for (place, one) in new.iter().enumerate() {
                    match old.get_mut(place) {
                        Some(old) => merge(old, one),
                        None => old.push(one.clone()),
                    }
                }
            }
            (Some(old), value) => merge(old, value),
            (None, value) => drop(into.insert(key.clone(), value.clone())),
        }
    }
}

/// The folder of the cases and of the lists.
pub fn folder() -> PathBuf {
    let source = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/reference");
    std::env::var_os("REFERENCE_LISTS").map_or_else(source, PathBuf::from)
}

/// Every case of every file, by name.
pub fn all() -> Vec<Case> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder().join("cases")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut cases = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let written: Vec<Case> =
            serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        cases.extend(written.into_iter().flat_map(|case| case.expand(&stem)));
    }
    let mut names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    names.sort_unstable();
    let double = names.windows(2).find(|pair| pair[0] == pair[1]);
    assert!(double.is_none(), "two cases have one name: {double:?}");
    cases
}

fn pod_arguments() -> String {
    "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0".to_owned()
}

fn eth0() -> String {
    "eth0".to_owned()
}

fn first() -> String {
    "c1".to_owned()
}

fn yes() -> bool {
    true
}

fn whole_life() -> Vec<Step> {
    ["ADD", "CHECK", "DEL", "DEL"].map(|command| Step::Call(CallStep::new(command))).to_vec()
}
