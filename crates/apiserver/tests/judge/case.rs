//! Cases: requests as data, from `tests/kubernetes/cases`.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};

/// One test: its steps are sent in order to each server.
#[derive(Debug, Clone)]
pub struct Case {
    /// `file/name`, and behind a colon the variant.
    pub name: String,
    pub steps: Vec<Step>,
}

/// One request and how its answers are compared.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// `METHOD PATH`; the method WATCH reads events.
    #[serde(rename = "do")]
    pub call: String,
    /// The body, sent as JSON.
    pub body: Option<Value>,
    /// The body as it is sent, where it is not JSON or bad JSON.
    pub text: Option<String>,
    /// The body is this file of the folder that `scripts/definitions.sh` fetches.
    pub file: Option<String>,
    /// The body's media type, or a short name: json, merge, strategic, apply, yaml.
    #[serde(rename = "as")]
    pub media: Option<String>,
    /// The media type wanted, or a short name: table, metadata, metadatalist.
    pub accept: Option<String>,
    /// Values of the answer kept for later steps, as `$name`: paths with dots.
    #[serde(default)]
    pub save: Map<String, Value>,
    /// The number of events to read from a watch.
    pub events: Option<usize>,
    /// The request is sent again until its code is this one.
    pub until: Option<u16>,
    /// Paths of the answer that are not compared; `*` stands for anything.
    #[serde(default)]
    pub ignore: Vec<String>,
    /// Paths of the answer of which alone anything is compared.
    #[serde(default)]
    pub only: Vec<String>,
    /// Whether managedFields are compared.
    #[serde(default)]
    pub managed: bool,
    /// Whether messages are compared.
    #[serde(default)]
    pub messages: bool,
    /// Whether nothing but the code is compared.
    #[serde(default)]
    pub code_only: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    case: String,
    steps: Vec<Step>,
    /// Each variant is a case of its own: merged (RFC 7386) into the body of the last step.
    #[serde(default)]
    variants: Vec<Variant>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Variant {
    name: String,
    #[serde(default, rename = "with")]
    merged: Value,
    /// A JSON patch (RFC 6902) of the body, for what is deep in lists.
    #[serde(default)]
    patch: Vec<Value>,
}

/// The folder of the cases and of the differences.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/kubernetes")
}

/// The folder of published definitions, if they were fetched.
pub fn published() -> Option<PathBuf> {
    std::env::var_os("WEFT_DEFINITIONS").map(PathBuf::from)
}

impl Case {
    /// Whether all that it needs is there.
    pub fn can_run(&self) -> bool {
        published().is_some() || self.steps.iter().all(|step| step.file.is_none())
    }
}

/// Every case of every file, by name.
pub fn all() -> Vec<Case> {
    let folder = folder().join("cases");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    // As Kubernetes reads YAML: y and n are text.
    let options = serde_saphyr::options! { strict_booleans: true };
    let mut cases = Vec::new();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|e| e == "yaml")) {
        let text = std::fs::read_to_string(path).unwrap();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let written: Vec<Written> = serde_saphyr::from_str_with_options(&text, options.clone())
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for one in written {
            cases.extend(variants(&stem, one));
        }
    }
    let mut names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    names.sort_unstable();
    let double = names.windows(2).find(|pair| pair[0] == pair[1]);
    assert!(double.is_none(), "two cases have one name: {double:?}");
    cases
}

fn variants(file: &str, written: Written) -> Vec<Case> {
    let name = format!("{file}/{}", written.case);
    if written.variants.is_empty() {
        return vec![Case { name, steps: written.steps }];
    }
    let make = |variant: Variant| {
        let mut steps = written.steps.clone();
        let last = steps.last_mut().expect("a case has steps");
        let body = last.body.get_or_insert(Value::Null);
        if !variant.merged.is_null() {
            json_patch::merge(body, &variant.merged);
        }
        let patch: json_patch::Patch = serde_json::from_value(Value::Array(variant.patch)).unwrap();
        let name = format!("{name}: {}", variant.name);
        json_patch::patch(body, &patch).unwrap_or_else(|e| panic!("{name}: {e}"));
        Case { name, steps }
    };
    written.variants.into_iter().map(make).collect()
}
