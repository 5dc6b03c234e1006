//! BGP sessions that BFD watches.

use std::sync::Arc;
use std::time::Duration;

use weft_bgp::PerFamily;
use weft_bgp::bfd::{Intervals, Status as Bfd};
use weft_bgp::policy::Policy;
use weft_bgp::session::PeerAs;
use weft_bgp::speaker::{Neighbour, NeighbourStatus, PORT, Remote, Settings, Speaker, Watched};
use weft_kernel::testing::eventually;

use crate::there::{ADDRESSES, ASES, Judge, SOON, Task, There};

/// A speaker that has both of the judge's addresses as neighbours.
fn settings(watched: Option<Watched>) -> Settings {
    let mut settings = Settings::new(ASES.0, "10.0.0.1".parse().unwrap());
    settings.listen = ["0.0.0.0:179", "[::]:179"].map(|at| at.parse().unwrap()).to_vec();
    for (_, theirs) in ADDRESSES {
        let (ip, everything) = (theirs.parse().unwrap(), Some(Arc::new(Policy::accept())));
        let remote = Remote::Address { ip, port: PORT };
        let neighbour = Neighbour {
            families: PerFamily { ipv4: ip.is_ipv4(), ipv6: ip.is_ipv6() },
            import: everything.clone(),
            export: everything,
            bfd: watched,
            ..Neighbour::new(remote, PeerAs::Is(ASES.1))
        };
        settings.neighbours.insert(theirs.into(), neighbour);
    }
    settings
}

/// Of BFD with 100 ms so many times.
fn watched(strict: bool, multiplier: u8) -> Option<Watched> {
    let interval = Duration::from_millis(100);
    Some(Watched { intervals: Intervals { transmit: interval, receive: interval, multiplier }, strict })
}

/// What the other side of that is.
fn theirs(strict: bool) -> Settings {
    let mut theirs = settings(watched(strict, 100));
    (theirs.local_as, theirs.id) = (ASES.1, "10.0.0.2".parse().unwrap());
    let neighbours = std::mem::take(&mut theirs.neighbours);
    for ((ours, _), (_, neighbour)) in ADDRESSES.into_iter().zip(neighbours) {
        let remote = Remote::Address { ip: ours.parse().unwrap(), port: PORT };
        theirs.neighbours.insert(ours.into(), Neighbour { remote, peer_as: PeerAs::Is(ASES.0), ..neighbour });
    }
    theirs
}

/// Waits until something holds of all neighbours.
fn until(there: &There, speaker: &Speaker, what: &str, holds: impl Fn(&NeighbourStatus) -> bool) {
    let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually(SOON, what, || speaker.status().neighbours.values().all(&holds));
    }));
    if let Err(panic) = waited {
        eprintln!("{:#?}\n{}", speaker.status(), there.log());
        std::panic::resume_unwind(panic);
    }
}

fn is(one: &NeighbourStatus, state: &str, bfd: &str) -> bool {
    one.state == state && one.bfd.as_deref() == Some(bfd)
}

/// One that hangs keeps its connections, and its hold time is 90 seconds.
fn one_that_hangs_is_noticed(judge: Judge) {
    let there = There::new(judge, Task::Bgp(true));
    let speaker = Speaker::start(settings(watched(false, 3))).unwrap();
    until(&there, &speaker, "they are up", |one| is(one, "established", "up"));
    there.hang(true);
    let fell = |one: &NeighbourStatus| one.last_fall.as_deref().is_some_and(|why| why.starts_with("BFD: "));
    until(&there, &speaker, "it is missed", |one| one.state != "established" && fell(one));
    there.hang(false);
    until(&there, &speaker, "they are up again", |one| is(one, "established", "up"));
    there.set_link(false);
    let fell = |one: &NeighbourStatus| one.bfd.as_deref().is_some_and(|bfd| bfd.starts_with("down"));
    until(&there, &speaker, "the link is missed", |one| one.state != "established" && fell(one));
    speaker.set(settings(None)).unwrap();
    let status = speaker.status();
    assert!(status.bfd.is_none() && status.neighbours.values().all(|one| one.bfd.is_none()));
}

#[test]
fn a_bird_that_hangs_is_noticed() {
    one_that_hangs_is_noticed(Judge::Bird);
}

#[test]
fn an_frr_that_hangs_is_noticed() {
    one_that_hangs_is_noticed(Judge::Frr);
}

#[test]
fn a_session_outlives_that_bfd_comes_and_goes() {
    // BIRD takes it for a failure when BFD is taken out of our configuration: two of ours.
    let mut there = There::new(Judge::Bird, Task::Bgp(false));
    there.programs.clear();
    let far = there.ns.run(|| Speaker::start(theirs(true)).unwrap()).unwrap();
    let near = Speaker::start(settings(watched(false, 100))).unwrap();
    until(&there, &near, "they are up", |one| is(one, "established", "up"));
    near.set(settings(None)).unwrap();
    until(&there, &far, "the other one knows", |one| is(one, "established", "held down by the neighbour"));
    near.set(settings(watched(true, 100))).unwrap();
    for speaker in [&near, &far] {
        until(&there, speaker, "they are up with it again", |one| is(one, "established", "up"));
        assert!(speaker.status().neighbours.values().all(|one| one.established == 1));
    }
    // One that ends says so, before BFD says anything.
    drop(far);
    until(&there, &near, "it has ended", |one| {
        one.state != "established" && one.last_fall.as_deref().is_some_and(|why| !why.starts_with("BFD"))
    });
}

#[test]
fn a_strict_session_waits_for_bfd() {
    let mut there = There::new(Judge::Bird, Task::Bgp(false));
    let speaker = Speaker::start(settings(watched(true, 3))).unwrap();
    let tried = |bfd: &Bfd| bfd.sessions.len() == 2 && bfd.sessions.iter().all(|one| one.sent >= 5);
    eventually(SOON, "BFD has tried for a while", || speaker.status().bfd.is_some_and(|bfd| tried(&bfd)));
    until(&there, &speaker, "they wait", |one| is(one, "idle", "down") && one.established == 0);
    there.start(Task::Bgp(true));
    until(&there, &speaker, "they are up", |one| is(one, "established", "up"));
    there.hang(true);
    until(&there, &speaker, "they wait again", |one| one.state == "idle");
    there.start(Task::Bgp(false));
    speaker.set(settings(watched(false, 3))).unwrap();
    until(&there, &speaker, "they are up without", |one| {
        one.state == "established" && one.bfd.as_deref() != Some("up")
    });
}
