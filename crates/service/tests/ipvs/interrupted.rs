//! Errors of the kernel in the middle of a change.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use weft_kernel::testing::failing;
use weft_service::ServicePlan;
use weft_service::ipvs::{Ipvs, IpvsConfig};

use super::world::{Held, World, changed, frontend, listed, plan, run};
use super::{DNS, WEB, dns, web};

const ERRORS: [&str; 3] = ["ENOBUFS", "EINTR", "EPERM"];
/// Which calls fail, and which of them.
const PLACES: [(&str, &str); 5] = [
    ("sendto", "1"),
    ("sendto", "2+2"),
    ("sendto", "1..20"),
    ("recvfrom", "2+3"),
    ("sendto,recvfrom", "3+4"),
];

/// Virtual servers, not what is only waited for, addresses, and the words of the tables: elements have no order.
fn dump() -> (Vec<String>, String, Vec<String>) {
    let mut servers = listed();
    servers.retain(|line| !line.ends_with("=0"));
    servers.sort();
    let tables = run("nft", &["list", "ruleset"]);
    let mut words: Vec<String> = tables.split([' ', '\n', '\t', ',']).map(str::to_owned).collect();
    words.sort();
    words.retain(|word| !word.is_empty());
    (servers, run("ip", &["-o", "addr"]), words)
}

#[test]
#[ignore = "needs IPVS: scripts/vm-test.sh 9-ipvs"]
fn f45_errors_of_the_kernel_mislead_nobody_and_are_made_up_for() {
    let mut world = World::new();
    let some = |pods: &[u8]| -> ServicePlan { plan(&[(web(), frontend(&[1])), (dns(), frontend(pods))]) };
    let plans = [some(&[1, 2]), some(&[2, 3])];
    let mut ipvs = Ipvs::open(IpvsConfig::default()).unwrap();
    let states = [1, 0].map(|n| {
        ipvs.apply(&plans[n], &changed(&[web(), dns()])).unwrap();
        dump()
    });
    let states = [&states[1], &states[0]];
    assert!(states[0] != states[1] && states[0].0.iter().any(|line| line.contains(DNS)), "{states:?}");
    let (client, ended) = (world.other_client(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // Who connects to what does not change notices nothing.
        let connections = scope.spawn(|| {
            client.enter().unwrap();
            let mut count = 0;
            while !ended.load(Ordering::Relaxed) {
                assert_eq!(Held::to(WEB).by, 1);
                count += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            count
        });
        let mut now = 0;
        let (mut refused, mut counted) = (0, 0);
        for (error, (calls, when)) in ERRORS.into_iter().flat_map(|e| PLACES.map(|place| (e, place))) {
            let next = 1 - now;
            let what = format!("{error} of {calls} {when}");
            let (done, failed) = failing(calls, error, when, || ipvs.apply(&plans[next], &changed(&[dns()])));
            counted += failed;
            if done.is_ok() {
                assert_eq!(&dump(), states[next], "{what}");
            }
            refused += usize::from(done.is_err());
            ipvs.apply(&plans[next], &changed(&[])).unwrap();
            assert_eq!(&dump(), states[next], "{what}");
            // What it knows is so: differences alone lead there and back.
            for to in [now, next] {
                ipvs.apply(&plans[to], &changed(&[dns()])).unwrap();
                assert_eq!(&dump(), states[to], "{what}");
            }
            now = next;
        }
        assert!(refused > 0 && counted > 0);
        ended.store(true, Ordering::Relaxed);
        assert!(connections.join().unwrap() > 0);
    });
}
