//! The judge: the same calls to the reference plugins and to ours, each on a fresh node, and to
//! mixtures of both. Answers, kernels and files must agree after each call.
//!
//! `scripts/reference-plugins.sh` builds the reference into `$WEFT_CACHE/reference-plugins`;
//! `WEFT_REFERENCE` names another folder, such as Debian's `/usr/lib/cni` with release 1.1.1: then
//! the cases that it can play show that a node can be changed over from it and back; the lists in
//! `1.1.1` are its own. `differences.yaml` lists what differs on purpose, each with its reason;
//! `open.txt` the cases that differ and shall not (`REFERENCE_WRITE_OPEN=1` writes it anew,
//! `REFERENCE_SHOW_OPEN=1` shows them failing).
//!
//! A case whose kind of link this kernel lacks is ignored. The virtual machine lane runs these:
//! `REFERENCE_NEEDS` names kinds, and only cases that need one of them run then, on a kernel that
//! must have them. `REFERENCE_LISTS` is the folder with the cases and lists where it is not the
//! source's, `WEFT_CNI` the executable, `REFERENCE_PATIENCE` how many seconds a kernel may take.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking and is one crate"
)]

mod case;
mod choice;
mod compare;
mod dump;
mod normal;
mod side;
mod tell;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use regex::Regex;
use serde_json::{Value, json};
use weft_judge::{Differences, Open};

use case::{Case, Step};
use choice::Choice;
use compare::{Difference, differences};
use side::{Answer, Plugins, Side};

/// Time that the kernel has for what it does later (carriers, addresses, removals).
static PATIENCE: LazyLock<Duration> = LazyLock::new(|| {
    let seconds = std::env::var("REFERENCE_PATIENCE").map_or(3, |text| text.parse().unwrap());
    Duration::from_secs(seconds)
});

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let Some(choice) = Choice::of(case::all()) else {
        let why = "comparison with the reference plugins (run scripts/reference-plugins.sh)";
        let trial = Trial::test(why, || Ok(())).with_ignored_flag(true);
        return libtest_mimic::run(&arguments, vec![trial]).exit_code();
    };
    let folder = tempfile::tempdir().unwrap();
    let own = std::env::var_os("WEFT_CNI").unwrap_or_else(|| env!("CARGO_BIN_EXE_weft-cni").into());
    // A copy, so that a build during the run does not change what is compared.
    std::fs::copy(own, folder.path().join(".weft-cni")).unwrap();
    for entry in std::fs::read_dir(&choice.reference).unwrap() {
        let name = entry.unwrap().file_name();
        std::os::unix::fs::symlink(".weft-cni", folder.path().join(name)).unwrap();
    }
    let lists = Arc::new(Mutex::new(Lists::read(choice.older)));
    let by_itself = choice.by_itself();
    let trial = |(case, plays): &(Case, bool)| {
        let (lists, reference, weft) = (lists.clone(), choice.reference.clone(), folder.path().to_owned());
        let case = case.clone();
        Trial::test(case.name.clone(), move || {
            let judged = judge(&case, &reference, &weft, by_itself, &lists);
            lists.lock().unwrap().open.settle(&case.name, judged)
        })
        .with_ignored_flag(!plays)
    };
    let conclusion = libtest_mimic::run(&arguments, choice.cases().map(trial).collect());
    if arguments.list || arguments.filter.is_some() || !arguments.skip.is_empty() {
        return conclusion.exit_code();
    }
    let lists = lists.lock().unwrap();
    lists.open.write_if_asked(|name| choice.plays(name));
    let unseen = lists.differences.unseen_of(|pattern| choice.judges(pattern));
    if !unseen.is_empty() {
        eprintln!("differences.yaml lists what does not differ any more:\n{}", unseen.join("\n"));
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

/// What may differ from the release that is compared with.
struct Lists {
    differences: Differences,
    open: Open,
    /// An older release: what differs from the newest.
    newest: Option<Differences>,
}

impl Lists {
    fn read(older: bool) -> Lists {
        let newest = case::folder();
        let folder = if older { newest.join("1.1.1") } else { newest.clone() };
        Lists {
            differences: Differences::read(&folder),
            open: Open::read(&folder, "REFERENCE"),
            newest: older.then(|| Differences::read(&newest)),
        }
    }

    fn intended(&mut self, case: &str, at: &str) -> bool {
        let listed = self.differences.intended(case, at);
        listed || self.newest.as_mut().is_some_and(|newest| newest.intended(case, at))
    }
}

/// Plays a case on a node of the reference and on the others, and compares each with the first.
fn judge(
    case: &Case,
    reference: &Path,
    weft: &Path,
    by_itself: bool,
    lists: &Mutex<Lists>,
) -> Result<(), Failed> {
    let side = |adding: &Path, rest: &Path| {
        Side::start(case, Plugins { adding: adding.to_owned(), rest: rest.to_owned() })
    };
    let base = side(reference, reference)?;
    let mut others = Vec::new();
    if by_itself || !case.swap {
        others.push(("Weft", side(weft, weft)?));
    }
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
        let intended = |one: &Difference| lists.lock().unwrap().intended(&case.name, &one.at);
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
        let end = Instant::now() + *PATIENCE;
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
