//! The IPVS backend against the kernel: what goes is waited for, what an agent before left is taken over, what
//! another program changed is put back. The whole table of connections is the bench's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod changes;
mod interrupted;
mod modes;
mod scale;
mod takeover;
mod world;

use std::collections::BTreeSet;

use weft_model::service::Protocol;
use weft_service::Frontend;
use weft_service::ipvs::{Ipvs, IpvsConfig, LINK, Scheduler};

use world::{Held, World, at, changed, frontend, listed, plan, refused, run};

/// Where the tests' Services are.
pub(crate) const WEB: &str = "10.96.0.1:80";
pub(crate) const DNS: &str = "10.96.0.10:53";

pub(crate) fn web() -> weft_service::FrontendKey {
    at("10.96.0.1", Protocol::Tcp, 80)
}

pub(crate) fn dns() -> weft_service::FrontendKey {
    at("10.96.0.10", Protocol::Udp, 53)
}

#[test]
#[ignore = "needs IPVS: scripts/vm-test.sh 9-ipvs"]
fn ipvsadm_lists_what_is_planned_and_every_scheduler_is_taken() {
    let mut world = World::new();
    let sticky = Frontend { affinity: Some(300), ..frontend(&[1, 2]) };
    let both = plan(&[(web(), frontend(&[1, 2, 3])), (dns(), sticky)]);
    for (name, scheduler) in Scheduler::ALL {
        let mut ipvs = Ipvs::open(IpvsConfig { scheduler, ..IpvsConfig::default() }).unwrap();
        ipvs.apply(&both, &changed(&[web(), dns()])).unwrap();
        let found: BTreeSet<String> = listed().into_iter().collect();
        let start = |text: &str| found.iter().any(|line| line.starts_with(text));
        assert!(start(&format!("TCP {WEB} {name}")), "{found:?}");
        assert!(start(&format!("UDP {DNS} {name}")), "{found:?}");
        assert!(found.iter().any(|line| line.contains("persistent 300")), "{found:?}");
        for number in 1..=3 {
            assert!(start(&format!("10.244.{number}.2:8080=1")), "{found:?}");
        }
        world.client(|| assert!(Held::to(WEB).goes_on(), "{name}"));
        world.client(|| assert!(refused("10.96.0.1:81"), "{name}"));
    }
}

#[test]
#[ignore = "needs IPVS: scripts/vm-test.sh 9-ipvs"]
fn a_client_stays_with_its_endpoint() {
    let mut world = World::new();
    let sticky = |pods: &[u8]| Frontend { affinity: Some(300), ..frontend(pods) };
    let mut ipvs = Ipvs::open(IpvsConfig::default()).unwrap();
    ipvs.apply(&plan(&[(web(), sticky(&[1, 2, 3]))]), &changed(&[web()])).unwrap();
    let by = world.client(|| (0..20).map(|_| Held::to(WEB).by).collect::<BTreeSet<u8>>());
    assert_eq!(by.len(), 1);
    let rest: Vec<u8> = (1..=3).filter(|number| !by.contains(number)).collect();
    ipvs.apply(&plan(&[(web(), sticky(&rest))]), &changed(&[web()])).unwrap();
    let after = world.client(|| (0..20).map(|_| Held::to(WEB).by).collect::<BTreeSet<u8>>());
    assert!(after.len() == 1 && rest.contains(after.first().unwrap()), "{by:?} {after:?}");
}

#[test]
#[ignore = "needs IPVS: scripts/vm-test.sh 9-ipvs"]
fn nothing_is_left() {
    let _world = World::new();
    let mut ipvs = Ipvs::open(IpvsConfig::default()).unwrap();
    let before = run("nft", &["list", "ruleset"]);
    ipvs.apply(&plan(&[(web(), frontend(&[1, 2])), (dns(), frontend(&[3]))]), &changed(&[])).unwrap();
    assert!(run("ip", &["-o", "addr", "show", "dev", LINK]).contains("10.96.0.10/32"));
    ipvs.remove().unwrap();
    assert_eq!(listed(), [] as [String; 0]);
    assert!(!run("ip", &["-o", "link"]).contains(LINK));
    assert_eq!(run("nft", &["list", "ruleset"]), before);
}
