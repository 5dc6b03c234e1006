use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use weft_kernel::testing::failing;
use weft_model::service::Protocol;
use weft_service::nftables::Nftables;
use weft_service::{Changed, ServicePlan};

use super::world::{World, ask};
use super::{changed, dump, frontend, key, plan};

const ERRORS: [&str; 5] = ["ENOBUFS", "EINTR", "EBUSY", "ENOMEM", "EPERM"];
/// Which calls fail, and which of them.
const PLACES: [(&str, &str); 6] = [
    ("sendto", "1"),
    ("sendto", "2+2"),
    ("sendto", "1+"),
    ("recvfrom", "1+2"),
    ("recvfrom", "2+3"),
    ("sendto,recvfrom", "3+4"),
];

fn some(backends: &[&str]) -> ServicePlan {
    plan([
        (key("10.96.0.1", Protocol::Tcp, 80), frontend(&["!10.244.0.2:8080", "!10.244.1.2:8080"])),
        (key("10.96.0.2", Protocol::Tcp, 80), frontend(backends)),
        (key("node", Protocol::Tcp, 30080), frontend(backends)),
        (key("fd00:96::1", Protocol::Tcp, 80), frontend(&["[fd00:244::2]:8080"])),
    ])
}

#[test]
fn f45_errors_of_the_kernel_leave_the_rules_of_before_or_the_new_ones() {
    let mut world = World::new();
    let plans =
        [some(&["!10.244.0.2:8080"]), some(&["!10.244.1.2:8080", "10.244.9.9:8080", "10.244.9.8:8080"])];
    let mut nftables = Nftables::open().unwrap();
    let states = [1, 0].map(|n| {
        nftables.apply(&plans[n], &changed(&plans[1 - n], &plans[n])).unwrap();
        dump()
    });
    let states = [&states[1], &states[0]];
    let (client, ended) = (world.pod("c"), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // Who connects to what does not change notices nothing.
        let connections = scope.spawn(|| {
            client.enter().unwrap();
            let mut count = 0;
            while !ended.load(Ordering::Relaxed) {
                ask("10.96.0.1:80".parse().unwrap()).unwrap();
                count += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            count
        });
        let mut now = 0;
        let (mut refused, mut counted) = (0, 0);
        for (error, (calls, when)) in ERRORS.into_iter().flat_map(|e| PLACES.map(|place| (e, place))) {
            let next = 1 - now;
            let what = format!("{error} of {calls} {when}");
            let difference = changed(&plans[now], &plans[next]);
            let (done, failed) = failing(calls, error, when, || nftables.apply(&plans[next], &difference));
            counted += failed;
            let found = dump();
            assert!(states.contains(&&found), "{what}: half of it");
            assert!(done.is_err() || found == *states[next], "{what}");
            refused += usize::from(done.is_err());
            nftables.apply(&plans[next], &Changed::default()).unwrap();
            assert_eq!(&dump(), states[next], "{what}");
            // What it knows of the tables is so: differences alone lead there and back.
            for (from, to) in [(next, now), (now, next)] {
                nftables.apply(&plans[to], &changed(&plans[from], &plans[to])).unwrap();
                assert_eq!(&dump(), states[to], "{what}");
            }
            now = next;
        }
        assert!(refused > 0 && counted > 0);
        ended.store(true, Ordering::Relaxed);
        assert!(connections.join().unwrap() > 0);
    });
}
