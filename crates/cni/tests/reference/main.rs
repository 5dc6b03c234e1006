//! The judge: the same calls to the reference plugins and to ours, each on a fresh node, and to
//! mixtures of both. Answers, kernels and files must agree after each call.
//!
//! `scripts/reference-plugins.sh` builds the reference into `$WEFT_CACHE/reference-plugins`;
//! `WEFT_REFERENCE` names another folder. `differences.yaml` lists what differs on purpose, each
//! with its reason; `open.txt` the cases that differ and shall not (`REFERENCE_WRITE_OPEN=1` writes
//! it anew, `REFERENCE_SHOW_OPEN=1` shows them failing).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking and is one crate"
)]

mod case;
mod compare;
mod dump;
mod normal;
mod side;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use regex::Regex;
use serde_json::{Value, json};
use weft_judge::{Differences, Open};
use weft_kernel::testing::TestNs;

use case::{Case, Step};
use compare::{Difference, differences};
use side::{Answer, Plugins, Side};

/// Time that the kernel has for what it does later (carriers, addresses, removals).
const PATIENCE: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let Some(reference) = reference() else {
        let why = "comparison with the reference plugins (run scripts/reference-plugins.sh)";
        let trial = Trial::test(why, || Ok(())).with_ignored_flag(true);
        return libtest_mimic::run(&arguments, vec![trial]).exit_code();
    };
    let cases = case::all();
    let kinds = if arguments.list { BTreeSet::new() } else { supported(&cases) };
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_weft-cni"), folder.path().join(".weft-cni")).unwrap();
    for entry in std::fs::read_dir(&reference).unwrap() {
        let name = entry.unwrap().file_name();
        // A copy, so that a build during the run does not change what is compared.
        std::os::unix::fs::symlink(".weft-cni", folder.path().join(name)).unwrap();
    }
    let lists = Arc::new((
        Mutex::new(Differences::read(&case::folder())),
        Mutex::new(Open::read(&case::folder(), "REFERENCE")),
    ));
    let chosen = arguments.filter.is_some() || !arguments.skip.is_empty();
    let runs = |case: &Case| case.needs.iter().all(|kind| kinds.contains(kind));
    let whole = !chosen && cases.iter().all(runs);
    let trial = |case: Case| {
        let (lists, reference, weft) = (lists.clone(), reference.clone(), folder.path().to_owned());
        let missing = !runs(&case);
        Trial::test(case.name.clone(), move || {
            let judged = judge(&case, &reference, &weft, &lists.0);
            lists.1.lock().unwrap().settle(&case.name, judged)
        })
        .with_ignored_flag(missing)
    };
    let conclusion = libtest_mimic::run(&arguments, cases.clone().into_iter().map(trial).collect());
    let ran = |name: &str| cases.iter().any(|case| case.name == name && runs(case));
    if !chosen {
        lists.1.lock().unwrap().write_if_asked(ran);
    }
    let unseen = lists.0.lock().unwrap().unseen();
    if whole && !arguments.list && !unseen.is_empty() {
        eprintln!("differences.yaml lists what does not differ any more:\n{}", unseen.join("\n"));
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
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

/// Which of the kinds of links that cases need this kernel has.
fn supported(cases: &[Case]) -> BTreeSet<String> {
    let needed: BTreeSet<String> = cases.iter().flat_map(|case| case.needs.iter().cloned()).collect();
    let has = |kind: &String| {
        let script = match kind.as_str() {
            "bridge-vlan" => {
                "ip link add b type bridge vlan_filtering 1 && bridge vlan | grep -qw 1".to_owned()
            }
            "vlan" => "ip link add link lo name x type vlan id 5".to_owned(),
            "vrf" => "ip link add x type vrf table 5".to_owned(),
            "ipvlan" | "macvlan" => {
                format!("ip link add b type bridge && ip link add link b name x type {kind}")
            }
            other => format!("ip link add x type {other}"),
        };
        std::thread::spawn(move || {
            let _ns = TestNs::new();
            let status = Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status();
            status.is_ok_and(|status| status.success())
        })
        .join()
        .unwrap()
    };
    needed.into_iter().filter(has).collect()
}

/// Plays a case on a node of the reference and on the others, and compares each with the first.
fn judge(case: &Case, reference: &Path, weft: &Path, listed: &Mutex<Differences>) -> Result<(), Failed> {
    let side = |adding: &Path, rest: &Path| {
        Side::start(case, Plugins { adding: adding.to_owned(), rest: rest.to_owned() })
    };
    let base = side(reference, reference)?;
    let mut others = vec![("Weft", side(weft, weft)?)];
    if case.swap {
        others.push(("the reference adds, Weft does the rest", side(reference, weft)?));
        others.push(("Weft adds, the reference does the rest", side(weft, reference)?));
    }
    let given = given(case);
    let mut judge = Judge { base, others, given, before: Vec::new(), failed: Vec::new() };
    judge.before = judge.states()?;
    judge.failed = vec![None; judge.before.len()];
    for (number, step) in case.steps.iter().enumerate() {
        let label = format!("{} {}", number + 1, step.label());
        let intended = |one: &Difference| listed.lock().unwrap().intended(&case.name, &one.at);
        judge.step(&label, step, &intended).map_err(|e| Failed::from(format!("step {label}: {e}")))?;
    }
    Ok(())
}

/// The nodes of a case.
struct Judge<'a> {
    base: Side,
    others: Vec<(&'a str, Side)>,
    given: BTreeSet<String>,
    /// The states of the others after the last step.
    before: Vec<Value>,
    /// The states of the others before an ADD that failed.
    failed: Vec<Option<Value>>,
}

impl Judge<'_> {
    fn states(&self) -> Result<Vec<Value>, String> {
        self.others.iter().for_each(|(_, side)| side.begin_dump());
        let state = |(_, side): &(&str, Side)| {
            let node = side.dump()?;
            Ok(normal::state(&node, &normal::Names::of(&node, &self.given), &self.given))
        };
        self.others.iter().map(state).collect()
    }

    /// Makes a step everywhere and waits until the others are as the first.
    fn step(
        &mut self,
        label: &str,
        step: &Step,
        intended: &dyn Fn(&Difference) -> bool,
    ) -> Result<(), String> {
        self.base.begin(step);
        self.others.iter().for_each(|(_, side)| side.begin(step));
        let theirs = self.base.answer().map_err(|e| format!("the reference: {e}"))?;
        let mut ours = Vec::new();
        for (who, side) in &self.others {
            ours.push(side.answer().map_err(|e| format!("{who}: {e}"))?);
        }
        if step.label() == "ADD" {
            for (failed, (before, answer)) in self.failed.iter_mut().zip(self.before.iter().zip(&ours)) {
                *failed = answer.failed.as_ref().map(|_| before.clone());
            }
        }
        let end = Instant::now() + PATIENCE;
        loop {
            let mut found = self.compare(label, &theirs, &ours)?;
            found.retain(|(_, one)| !intended(one));
            if found.is_empty() {
                return Ok(());
            }
            // What was answered stays as it is; the kernel may be on its way.
            let parts = [".result", ".failure", ".code"].map(|part| format!("{label}{part}"));
            let answered = |at: &str| parts.iter().any(|part| at.starts_with(part.as_str()));
            if Instant::now() > end || found.iter().any(|(_, one)| answered(&one.at)) {
                let lines: Vec<String> = found.iter().map(|(who, one)| format!("{who}: {one}")).collect();
                return Err(lines.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What differs after a step: the answers, and the nodes as they are now.
    fn compare(
        &mut self,
        label: &str,
        theirs: &Answer,
        ours: &[Answer],
    ) -> Result<Vec<(String, Difference)>, String> {
        let given = &self.given;
        self.base.begin_dump();
        self.others.iter().for_each(|(_, side)| side.begin_dump());
        let base_node = self.base.dump()?;
        let base_names = normal::Names::of(&base_node, given);
        let base_state = normal::state(&base_node, &base_names, given);
        let base_result = normal::result(&theirs.result, &base_node, &base_names, given);
        let mut found = Vec::new();
        for (place, ((who, side), answer)) in self.others.iter().zip(ours).enumerate() {
            let node = side.dump()?;
            let names = normal::Names::of(&node, given);
            let state = normal::state(&node, &names, given);
            let mut differ = failures(label, answer, theirs);
            let fail_alike = !differ.iter().any(|one| one.at.contains(".failure"));
            // Where only one fails, all else follows from that.
            if fail_alike {
                let result = normal::result(&answer.result, &node, &names, given);
                differ.extend(differences(&format!("{label}.result"), &result, &base_result));
            }
            // The reference leaves what it made when an ADD fails; ours is as before.
            let undone = self.failed[place].as_ref().is_some_and(|before| same_but_order(before, &state));
            if fail_alike && !undone {
                differ.extend(differences(label, &state, &base_state));
            }
            found.extend(differ.into_iter().map(|one| ((*who).to_owned(), one)));
            self.before[place] = state;
        }
        Ok(found)
    }
}

/// Whether two states are one, but for the address that is next and what all pods share.
fn same_but_order(before: &Value, now: &Value) -> bool {
    // A bridge and the kernel's forwarding are for all pods, whose ADDs may count on them already.
    let shared = ["/last_reserved_ip.", "/lock", "br0", "cni0", "forward"];
    let order = |one: &Difference| shared.iter().any(|part| one.at.contains(part));
    differences("", now, before).iter().all(order)
}

/// How the failures differ: whether and of which plugin, and then the code, whose place names the
/// reference's.
fn failures(label: &str, ours: &Answer, theirs: &Answer) -> Vec<Difference> {
    let told = |answer: &Answer| match &answer.failed {
        Some((plugin, code)) => json!(format!("{plugin} failed with {code}: {}", answer.message)),
        None => json!("success"),
    };
    let at = match (&ours.failed, &theirs.failed) {
        (None, None) => return Vec::new(),
        (None, Some(_)) => format!("{label}.failure of the reference alone"),
        (Some(_), None) => format!("{label}.failure of Weft alone"),
        (Some((here, _)), Some((there, _))) if here != there => format!("{label}.failure of another plugin"),
        (Some((_, here)), Some((_, there))) if here != there => format!("{label}.code {there}"),
        _ => return Vec::new(),
    };
    vec![Difference::new(at, told(ours), told(theirs))]
}

/// The hardware addresses that a case names: these are not random.
fn given(case: &Case) -> BTreeSet<String> {
    let steps = case.steps.iter().map(|step| match step {
        Step::Call(call) => format!("{call:?}"),
        Step::Run { script, .. } => script.clone(),
    });
    let runtime = Value::Object(case.runtime_config.clone());
    let mut text = format!("{} {runtime} {}", case.config, case.args);
    text.extend(case.prepare.iter().chain(&case.prepare_pod).cloned().chain(steps));
    let mac = Regex::new("(?i)([0-9a-f]{2}:){5}[0-9a-f]{2}").unwrap();
    mac.find_iter(&text).map(|found| found.as_str().to_lowercase()).collect()
}
