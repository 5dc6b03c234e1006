//! The differential test: the same requests to Weft's API server and to the real one, whose answers must agree.
//! `tests/kubernetes/README.md` says how to run it and how to write a case.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking and is one crate"
)]

#[path = "../common/mod.rs"]
mod common;

mod case;
mod compare;
mod normal;
mod side;

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use libtest_mimic::{Arguments, Failed, Trial};
use weft_judge::{Differences, Kubernetes, Open, Parts, Target};

use case::Case;

/// Both servers.
#[derive(Clone)]
struct Servers {
    weft: Target,
    kubernetes: Target,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let Some(binaries) = Kubernetes::binaries() else {
        let why = "differential test (run scripts/test.sh kubernetes)";
        let trial = Trial::test(why, || Ok(())).with_ignored_flag(true);
        return libtest_mimic::run(&arguments, vec![trial]).exit_code();
    };
    let cases = case::all();
    if arguments.list {
        let list = cases.into_iter().map(|case| Trial::test(case.name, || Ok(()))).collect();
        return libtest_mimic::run(&arguments, list).exit_code();
    }
    // The processes end with the thread that started them: this one.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let kubernetes = runtime.block_on(Kubernetes::start(&binaries, Parts::default())).unwrap();
    let weft = common::Running::start_dual_stack();
    let servers = Servers { weft: weft.target(), kubernetes: kubernetes.target().clone() };

    let differences = Arc::new(Mutex::new(Differences::read(&case::folder())));
    let open = Arc::new(Mutex::new(Open::read(&case::folder(), "JUDGE")));
    let whole = arguments.filter.is_none() && arguments.skip.is_empty();
    arguments.test_threads.get_or_insert(4);
    let trial = |(index, case): (usize, Case)| {
        let (servers, differences, open) = (servers.clone(), differences.clone(), open.clone());
        let missing = !case.can_run();
        Trial::test(case.name.clone(), move || {
            let judged = judge(&case, index, &servers, &differences);
            open.lock().unwrap().settle(&case.name, judged)
        })
        .with_ignored_flag(missing)
    };
    let trials = cases.into_iter().enumerate().map(trial).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if whole {
        open.lock().unwrap().write_if_asked(|_| true);
    }
    let unseen = differences.lock().unwrap().unseen();
    if whole && !unseen.is_empty() {
        eprintln!("differences.yaml lists what does not differ any more:\n{}", unseen.join("\n"));
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}

fn judge(
    case: &Case,
    index: usize,
    servers: &Servers,
    differences: &Mutex<Differences>,
) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let namespace = format!("judge-{index}");
    let (ours, theirs) = runtime.block_on(async {
        let weft = side::run(&servers.weft, case, &namespace);
        let kubernetes = side::run(&servers.kubernetes, case, &namespace);
        tokio::join!(weft, kubernetes)
    });
    let (ours, theirs) =
        (ours.map_err(|e| format!("Weft: {e:#}"))?, theirs.map_err(|e| format!("Kubernetes: {e:#}"))?);
    let mut found = Vec::new();
    for (number, step) in case.steps.iter().enumerate() {
        let (ours, theirs) = (&ours[number], &theirs[number]);
        for difference in compare::all(step, ours, theirs) {
            if !differences.lock().unwrap().intended(&case.name, &difference.at) {
                found.push(format!("step {} ({}): {difference}", number + 1, step.call));
            }
        }
    }
    if found.is_empty() { Ok(()) } else { Err(found.join("\n").into()) }
}
