//! Which cases a run plays: what was asked for, and what the kernel and the reference can do.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::Value;
use weft_judge::matches;
use weft_kernel::testing::TestNs;

use crate::case::{self, Case};

/// The reference and the kernel of this run.
#[derive(Debug)]
pub struct Choice {
    /// The folder of the reference plugins.
    pub reference: PathBuf,
    /// Whether it is Debian's 1.1.1, which knows no 1.1.0 of the specification.
    pub older: bool,
    /// What 1.1.1 has not got.
    missing: Vec<Missing>,
    /// Whether only cases that need one of some kinds were asked for.
    part: bool,
    /// The kinds of links that cases need and this kernel has.
    kinds: BTreeSet<String>,
    /// Every case; those that this run plays have `true`.
    all: Vec<(Case, bool)>,
}

/// Cases that an older release cannot play.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Missing {
    /// Their names; `*` stands for anything.
    case: String,
    /// The reason.
    #[serde(rename = "why")]
    _why: String,
}

impl Choice {
    /// Looks at the environment, the reference and the kernel; none without a reference.
    pub fn of(all: Vec<Case>) -> Option<Choice> {
        let reference = reference()?;
        let needed: BTreeSet<String> = all.iter().flat_map(|case| case.needs.iter().cloned()).collect();
        let kinds: BTreeSet<String> = needed.into_iter().filter(|kind| supported(kind)).collect();
        let wanted = std::env::var("REFERENCE_NEEDS").ok();
        let wanted: Option<Vec<&str>> = wanted.as_ref().map(|text| text.split_whitespace().collect());
        let lacks = |kind: &&&str| !kinds.contains(**kind);
        assert!(wanted.iter().flatten().find(lacks).is_none(), "{wanted:?}: this kernel has only {kinds:?}");
        let older = older(&reference);
        let missing = std::fs::read_to_string(case::folder().join("1.1.1/missing.yaml")).unwrap();
        let missing = serde_saphyr::from_str(&missing).unwrap();
        let mut choice = Choice { reference, older, missing, part: wanted.is_some(), kinds, all: Vec::new() };
        let asked = |case: &Case| {
            let one = |kinds: &Vec<&str>| case.needs.iter().any(|kind| kinds.contains(&kind.as_str()));
            wanted.as_ref().is_none_or(one)
        };
        let played = |case: Case| (asked(&case) && choice.can(&case), case);
        choice.all = all.into_iter().map(played).map(|(plays, case)| (case, plays)).collect();
        Some(choice)
    }

    /// Whether kernel and reference can play it.
    fn can(&self, case: &Case) -> bool {
        case.needs.iter().all(|kind| self.kinds.contains(kind)) && (!self.older || self.has(case))
    }

    /// Whether the older reference has what it is about.
    fn has(&self, case: &Case) -> bool {
        let listed = case.config["plugins"].as_array();
        let mut plugins = listed.into_iter().flatten().chain([&case.config]);
        let there = |plugin: &Value| {
            let mut kinds = [&plugin["type"], &plugin["ipam"]["type"]].into_iter().filter_map(Value::as_str);
            kinds.all(|kind| self.reference.join(kind).exists())
        };
        let missing = self.missing.iter().any(|one| matches(&one.case, &case.name));
        !missing && case.config["cniVersion"] != "1.1.0" && plugins.all(there)
    }

    /// The cases, and whether this run plays them. Those of a part, or that Debian's release can
    /// play, are there alone.
    pub fn cases(&self) -> impl Iterator<Item = &(Case, bool)> {
        self.all.iter().filter(|(_, plays)| *plays || !(self.part || self.older))
    }

    /// Whether Weft is looked at without the reference's part in it too. A part of the cases is for
    /// where time is dear, and with an older release it is about changing over.
    pub fn by_itself(&self) -> bool {
        !self.part && !self.older
    }

    pub fn plays(&self, name: &str) -> bool {
        self.all.iter().any(|(case, plays)| *plays && case.name == name)
    }

    /// Whether a difference of the cases that a pattern names must be seen in this run. What is
    /// for cases of several kinds is seen where those that need no kind are played.
    pub fn judges(&self, pattern: &str) -> bool {
        let mut named =
            self.all.iter().filter(|(case, _)| matches(pattern, &case.name)).map(|(_, plays)| *plays);
        let none = self.all.iter().all(|(case, _)| !matches(pattern, &case.name));
        if self.part { !none && named.all(|plays| plays) } else { none || named.any(|plays| plays) }
    }
}

/// The folder of the reference plugins, if it is there.
fn reference() -> Option<PathBuf> {
    let cache = || {
        let named = std::env::var_os("WEFT_CACHE").map(PathBuf::from);
        let cache = named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/weft")))?;
        Some(cache.join("reference-plugins"))
    };
    let folder = std::env::var_os("WEFT_REFERENCE").map(PathBuf::from).or_else(cache)?;
    folder.join("bridge").exists().then_some(folder)
}

fn older(reference: &Path) -> bool {
    let mut version = Command::new(reference.join("bridge"));
    let output = version.env("CNI_COMMAND", "VERSION").stdin(Stdio::null()).output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    !told["supportedVersions"].as_array().unwrap().contains(&Value::from("1.1.0"))
}

/// Whether this kernel has a kind of link.
fn supported(kind: &str) -> bool {
    let script = match kind {
        "bridge-vlan" => {
            "ip link add br0 type bridge vlan_filtering 1 && bridge vlan | grep -qw 1".to_owned()
        }
        "vlan" => "ip link add up0 type veth && ip link add link up0 name x type vlan id 5".to_owned(),
        "vrf" => "ip link add x type vrf table 5".to_owned(),
        "ipvlan" | "macvlan" => {
            format!("ip link add up0 type veth && ip link add link up0 name x type {kind}")
        }
        other => format!("ip link add x type {other}"),
    };
    let tried = std::thread::spawn(move || {
        let _ns = TestNs::new();
        let status = Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    });
    tried.join().unwrap()
}
