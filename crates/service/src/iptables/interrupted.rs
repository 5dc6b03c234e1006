//! F45: what the kernel or a program says for the moment only leaves nothing half written.

use std::os::unix::fs::PermissionsExt as _;

use weft_kernel::testing::{TestNs, failing};

use super::tests::{at, backends, frontend, plan, run, shop, variants};
use super::*;
use crate::plan::{FrontendKey, Kind};

/// The shop with one Service more, which these endpoints serve.
fn some(endpoints: &[u8]) -> (ServicePlan, Changed) {
    let key = at("10.96.0.9");
    let mut all = shop();
    all.push((key, frontend(Kind::ClusterIp, "changes", backends(endpoints, false))));
    let (plan, changed) = plan(all);
    let only: std::collections::BTreeSet<FrontendKey> = [key].into();
    (plan, Changed { frontends: only, ..changed })
}

/// Every rule, and every chain, of one kind of Services or of all.
fn saved(iptables: &Iptables) -> Vec<String> {
    let text = run(iptables, "-save", &[]);
    let plain = |line: &str| line.split(" [").next().map(str::to_owned);
    let mut lines: Vec<String> =
        text.lines().filter(|line| !line.starts_with('#')).filter_map(plain).collect();
    lines.sort();
    lines
}

fn states(iptables: &mut Iptables, plans: &[(ServicePlan, Changed); 2]) -> [Vec<String>; 2] {
    let (whole, all) = &plan(shop());
    iptables.apply(whole, all).unwrap();
    let states = [1, 0].map(|n| {
        iptables.apply(&plans[n].0, &plans[n].1).unwrap();
        saved(iptables)
    });
    let [second, first] = states;
    [first, second]
}

#[test]
fn f45_errors_of_the_kernel_leave_the_rules_of_before_or_the_new_ones() {
    let _ns = TestNs::new();
    let mut iptables = Iptables::with(variants()[0].clone());
    let plans = [some(&[2]), some(&[3, 4])];
    let states = states(&mut iptables, &plans);
    let (mut now, mut refused) = (0, 0);
    for error in ["ENOBUFS", "EINTR", "EBUSY", "ENOMEM", "EPERM"] {
        for (calls, when) in [("sendto", "1"), ("sendto", "1+"), ("recvfrom", "1+2"), ("recvfrom", "2+3")] {
            let (next, what) = (1 - now, format!("{error} of {calls} {when}"));
            let (plan, changed) = &plans[next];
            let (done, failed) = failing(calls, error, when, || iptables.apply(plan, changed));
            assert!(failed > 0, "{what}");
            let found = saved(&iptables);
            assert!(states.contains(&found), "{what}: half of it: {found:#?}");
            assert!(done.is_err() || found == states[next], "{what}");
            refused += usize::from(done.is_err());
            iptables.apply(plan, &Changed::default()).unwrap();
            assert_eq!(saved(&iptables), states[next], "{what}");
            for to in [now, next] {
                iptables.apply(&plans[to].0, &plans[to].1).unwrap();
                assert_eq!(saved(&iptables), states[to], "{what}");
            }
            now = next;
        }
    }
    assert!(refused > 0);
}

/// Stands in for `iptables-legacy-restore`: as a file says it fails, or is killed before, amid or after its work.
const WRAPPER: &str = r#"#!/bin/bash
export XTABLES_LOCKFILE=$(dirname $0)/lock
how=$(cat $(dirname $0)/how 2>/dev/null)
case $how in
fails) exit 1;;
before) kill -9 $$;;
# Of two tables only the first.
amid) sed '/^COMMIT/q' | PROGRAM "$@"; kill -9 $$;;
after) PROGRAM "$@"; kill -9 $$;;
*) exec PROGRAM "$@";;
esac
"#;

#[test]
fn f45_a_program_that_is_killed_is_started_again_until_all_is_as_planned() {
    let _ns = TestNs::new();
    let dir = tempfile::tempdir().unwrap();
    let real = variants()[1].clone();
    for end in ["-restore", "-save", ""] {
        for (family, name) in [(Family::Ip, "iptables"), (Family::Ip6, "ip6tables")] {
            let path = dir.path().join(format!("{name}-legacy{end}"));
            let program = real.program(family, end).display().to_string();
            let text = if end == "-restore" { WRAPPER } else { "#!/bin/sh\nexec PROGRAM \"$@\"\n" };
            std::fs::write(&path, text.replace("PROGRAM", &program)).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    let mut iptables = Iptables::with(Variant { legacy: true, program: Some(dir.path().join("iptables")) });
    // One of them needs chains of filter, the other of nat.
    let plans = [some(&[2, 3]), some(&[])];
    let states = states(&mut iptables, &plans);
    let untouched: Vec<&String> = states[0].iter().filter(|line| line.contains("shop/web")).collect();
    assert!(untouched.len() > 6);
    let mut now = 0;
    for how in ["fails", "before", "amid", "after"] {
        for _ in 0..2 {
            let (next, (plan, changed)) = (1 - now, &plans[1 - now]);
            std::fs::write(dir.path().join("how"), how).unwrap();
            assert!(iptables.apply(plan, changed).is_err(), "{how}");
            let found = saved(&iptables);
            assert!(untouched.iter().all(|line| found.contains(line)), "{how}: {found:#?}");
            std::fs::remove_file(dir.path().join("how")).unwrap();
            iptables.apply(plan, &Changed::default()).unwrap();
            assert_eq!(saved(&iptables), states[next], "{how}");
            now = next;
        }
    }
}
