//! Settings that change under sessions that stand, and where packets are to go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use weft_bgp::message::NextHop;
use weft_bgp::policy::{Policy, Prefixes};
use weft_bgp::speaker::{Changes, Neighbour, Password, Settings, Speaker};
use weft_kernel::testing::eventually;

use crate::world::{PATIENCE, World, neighbour, originate, settings, start, until, until_learnt};

const TOLD: [&str; 2] = ["10.30.0.0/16", "10.31.0.0/16"];

fn pair(world: &World) -> (Speaker, Settings, Speaker, Settings) {
    let mut first = settings(65001, "10.0.1.1");
    first.neighbours.insert("middle".into(), neighbour("10.0.1.2", 65002));
    let mut middle = settings(65002, "10.0.1.2");
    middle.neighbours.insert("first".into(), neighbour("10.0.1.1", 65001));
    originate(&mut middle, &TOLD);
    let speakers = (start(&world.first, first.clone()), start(&world.middle, middle.clone()));
    until_learnt(&speakers.0, "middle", &TOLD);
    (speakers.0, first, speakers.1, middle)
}

fn change(settings: &mut Settings, name: &str, change: impl FnOnce(&mut Neighbour)) {
    change(settings.neighbours.get_mut(name).unwrap());
}

fn only(prefix: &str) -> Option<Arc<Policy>> {
    Some(Arc::new(Policy::only(vec![Prefixes::exactly(prefix.parse().unwrap())])))
}

/// How often the session of a neighbour has come up.
fn times(speaker: &Speaker, name: &str) -> u64 {
    speaker.status().neighbours[name].established
}

#[test]
fn policies_change_under_a_session_that_stands() {
    let world = World::new();
    let (first, mut of_first, middle, mut of_middle) = pair(&world);
    change(&mut of_first, "middle", |of| of.import = only(TOLD[1]));
    first.set(of_first.clone()).unwrap();
    until_learnt(&first, "middle", &TOLD[1..]);
    change(&mut of_middle, "first", |of| of.export = only(TOLD[0]));
    middle.set(of_middle.clone()).unwrap();
    until_learnt(&first, "middle", &[]);
    change(&mut of_first, "middle", |of| of.import = Some(Arc::new(Policy::accept())));
    first.set(of_first).unwrap();
    until_learnt(&first, "middle", &TOLD[..1]);
    of_middle.originated.clear();
    originate(&mut of_middle, &["10.32.0.0/16"]);
    change(&mut of_middle, "first", |of| of.export = Some(Arc::new(Policy::accept())));
    middle.set(of_middle).unwrap();
    until_learnt(&first, "middle", &["10.32.0.0/16"]);
    assert_eq!((times(&first, "middle"), times(&middle, "first")), (1, 1));
    assert!(first.reset("middle", "for a look") && !first.reset("nobody", ""));
    until(&middle, "they are told why", |status| {
        let why = "the neighbour ended it: administrative reset (6/4): for a look";
        status.neighbours["first"].last_fall.as_deref() == Some(why)
    });
    until_learnt(&first, "middle", &["10.32.0.0/16"]);
    assert_eq!(times(&first, "middle"), 2);
}

#[test]
fn a_session_whose_terms_change_begins_again_and_one_of_the_same_does_not_notice() {
    let world = World::new();
    let (first, of_first, middle, mut of_middle) = pair(&world);
    // The third is a neighbour of the middle alone, and stays.
    let mut last = settings(65003, "10.0.2.2");
    last.neighbours.insert("middle".into(), neighbour("10.0.2.1", 65002));
    let last = start(&world.last, last);
    of_middle.neighbours.insert("last".into(), neighbour("10.0.2.2", 65003));
    middle.set(of_middle.clone()).unwrap();
    until_learnt(&last, "middle", &TOLD);
    // One side signs; then the other does too.
    change(&mut of_middle, "first", |of| of.password = Password::new("new"));
    middle.set(of_middle.clone()).unwrap();
    until(&first, "it is down", |status| status.neighbours["middle"].state != "established");
    let mut signs = of_first.clone();
    change(&mut signs, "middle", |of| of.password = Password::new("new"));
    first.set(signs).unwrap();
    until_learnt(&first, "middle", &TOLD);
    // A neighbour less, and again.
    of_middle.neighbours.remove("first");
    middle.set(of_middle.clone()).unwrap();
    until_learnt(&first, "middle", &[]);
    until(&first, "they say why", |status| {
        let why = "the neighbour ended it: peer de-configured (6/3)";
        status.neighbours["middle"].last_fall.as_deref() == Some(why)
    });
    assert_eq!(times(&last, "middle"), 1);
    assert_eq!(times(&middle, "last"), 1);
}

/// What a consumer knows after all that it is told.
fn follow(changes: &Changes, known: &mut BTreeMap<IpNet, Vec<NextHop>>, until: &[(&str, &[&str])]) {
    let wanted: BTreeMap<IpNet, Vec<NextHop>> = until
        .iter()
        .map(|(prefix, hops)| {
            let hops = hops.iter().map(|hop| NextHop::from(hop.parse::<std::net::IpAddr>().unwrap()));
            (prefix.parse().unwrap(), hops.collect())
        })
        .collect();
    eventually(PATIENCE, "the consumer knows", || {
        while let Some(batch) = changes.next(Duration::from_millis(10)) {
            for (prefix, hops) in batch.routes {
                if hops.is_empty() {
                    known.remove(&prefix)
                } else {
                    known.insert(prefix, hops)
                };
            }
        }
        *known == wanted
    });
}

#[test]
fn a_consumer_is_told_all_and_then_what_changes() {
    let world = World::new();
    let (first, of_first, middle, mut of_middle) = pair(&world);
    let changes = first.changes();
    let mut known = BTreeMap::new();
    follow(&changes, &mut known, &[(TOLD[0], &["10.0.1.2"]), (TOLD[1], &["10.0.1.2"])]);
    of_middle.originated.remove(&TOLD[0].parse().unwrap());
    middle.set(of_middle.clone()).unwrap();
    follow(&changes, &mut known, &[(TOLD[1], &["10.0.1.2"])]);
    let explained = first.explain(TOLD[1].parse().unwrap());
    assert_eq!(explained.len(), 1);
    assert!(explained[0].best && explained[0].used && explained[0].lost_by.is_none());
    // Another speaker in the same place forgets all.
    let other = Settings { local_as: 65009, neighbours: BTreeMap::new(), ..of_first };
    first.set(other).unwrap();
    follow(&changes, &mut known, &[]);
    let again = first.changes();
    eventually(PATIENCE, "the first consumer's time is over", || {
        changes.next(Duration::ZERO).is_none() && changes.is_over()
    });
    assert!(again.next(PATIENCE).unwrap().settled);
    drop(first);
    assert_eq!(again.next(PATIENCE), None);
}
