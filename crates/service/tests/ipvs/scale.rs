//! How long the change of one endpoint takes among many.

use std::time::{Duration, Instant};

use weft_model::service::Protocol;
use weft_service::Changed;
use weft_service::ipvs::{Ipvs, IpvsConfig};

use super::world::{World, at, changed, frontend, plan};

const CHANGES: usize = 200;

/// Prints what it measured. `WEFT_SERVICES` says among how many; each has three endpoints.
#[test]
#[ignore = "needs IPVS and time: scripts/vm-test.sh 9-ipvs"]
fn one_endpoint_among_many() {
    let _world = World::new();
    let count: u32 = std::env::var("WEFT_SERVICES").map_or(300, |text| text.parse().unwrap());
    let place = |i: u32| at(&format!("10.96.{}.{}", i / 250, i % 250 + 1), Protocol::Tcp, 80);
    let mut all = plan(&(0..count).map(|i| (place(i), frontend(&[1, 2, 3]))).collect::<Vec<_>>());
    let mut ipvs = Ipvs::open(IpvsConfig::default()).unwrap();
    let start = Instant::now();
    ipvs.apply(&all, &Changed { rest: true, ..Changed::default() }).unwrap();
    let whole = start.elapsed();
    let start = Instant::now();
    assert_eq!(Ipvs::open(IpvsConfig::default()).unwrap().apply(&all, &Changed::default()).unwrap(), 0);
    let adopted = start.elapsed();
    let mut took: Vec<Duration> = (0..CHANGES)
        .map(|i| {
            let key = place(i as u32 * 7919 % count);
            all.frontends
                .insert(key, std::sync::Arc::new(frontend(if i % 2 == 0 { &[1, 2] } else { &[1, 2, 3] })));
            let start = Instant::now();
            assert!(ipvs.apply(&all, &changed(&[key])).unwrap() < 5);
            start.elapsed()
        })
        .collect();
    took.sort();
    let (median, late) = (took[CHANGES / 2], took[CHANGES * 99 / 100]);
    println!(
        "{count} Services of 3 endpoints: from nothing {whole:?}, taken over {adopted:?}, \
         one endpoint {median:?}, of 100 the slowest {late:?}"
    );
}
