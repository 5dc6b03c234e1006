//! How soon BFD knows: from SIGKILL of a BIRD, and from the loss of an interface's carrier, to the event; and how often
//! sessions fall for nothing while every CPU is busy. In namespaces of its own, as root; nobody else may make or change
//! links meanwhile, as the kernel tells of carriers once a second.
//!
//! usage: cargo run --release -p weft-bgp --example bfd [ROUNDS]

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use weft_bgp::bfd::{Bfd, Change, Intervals, Key};
use weft_kernel::testing::TestNs;
use weft_kernel::{LinkSet, Netlink, Netns, Op};

const PATIENCE: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };
/// Since the last change of a carrier, before the next.
const QUIET: Duration = Duration::from_secs(2);
/// How long sessions are to stand while the machine is busy.
const BUSY: Duration = Duration::from_secs(20);

fn every(millis: u64) -> Intervals {
    let interval = Duration::from_millis(millis);
    Intervals { transmit: interval, receive: interval, multiplier: 3 }
}

fn one(peer: &str, millis: u64) -> Result<BTreeMap<Key, Intervals>> {
    let interface = Some(if peer == "10.0.0.2" { "here" } else { "there" }.into());
    Ok(BTreeMap::from([(Key { peer: peer.parse()?, local: None, interface }, every(millis))]))
}

/// Waits for what becomes of the session next.
fn next(bfd: &Bfd) -> Result<Change> {
    loop {
        if let Some((_, change)) = bfd.try_next() {
            return Ok(change);
        }
        if poll(&mut [PollFd::new(&bfd.as_fd(), PollFlags::IN)], Some(&PATIENCE))? == 0 {
            bail!("nothing happens: {:?}", bfd.status());
        }
    }
}

/// Waits until the session is up, and both sides send as often as they may.
fn up(bfd: &Bfd, interval: Duration) -> Result<()> {
    while next(bfd)? != Change::Up {}
    let detection = interval * 3;
    while bfd.status().sessions.iter().any(|session| session.detection != detection) {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn bird(ns: &Netns, folder: &std::path::Path, millis: u64) -> Result<Child> {
    let config = folder.join("bird.conf");
    let text = format!(
        "router id 10.0.0.2; protocol device {{}}\nprotocol bfd {{ interface \"there\" {{ interval {millis} ms; \
         multiplier 3; }}; neighbor 10.0.0.1 dev \"there\"; }}\n"
    );
    std::fs::write(&config, text)?;
    let mut command = Command::new("/usr/sbin/bird");
    command
        .arg("-f")
        .arg("-c")
        .arg(&config)
        .arg("-s")
        .arg(folder.join("ctl"))
        .arg("-P")
        .arg(folder.join("pid"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Ok(ns.run(move || command.spawn())??)
}

fn set_link(ns: &Netns, up: bool) -> Result<()> {
    let mut netlink = Netlink::open_in(ns)?;
    let index = netlink.link("there")?.context("the link is gone")?.index;
    Ok(netlink.apply(&Op::LinkSet(LinkSet { index, up: Some(up), ..LinkSet::default() }))?)
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort();
    if let (Some(first), Some(last)) = (times.first(), times.last()) {
        println!("{what}: {first:.1?} / {:.1?} / {last:.1?} (least, median, most)", times[times.len() / 2]);
    }
}

fn failures(here: &Bfd, there: &Netns, millis: u64, rounds: u32) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("weft-bfd-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let (mut killed, mut carrier) = (Vec::new(), Vec::new());
    let interval = Duration::from_millis(millis);
    for _ in 0..rounds {
        let mut peer = bird(there, &folder, millis)?;
        here.set(one("10.0.0.2", millis)?);
        up(here, interval)?;
        std::thread::sleep(QUIET);
        let start = Instant::now();
        peer.kill()?;
        while !matches!(next(here)?, Change::Down(_)) {}
        killed.push(start.elapsed());
        peer.wait()?;
        let mut peer = bird(there, &folder, millis)?;
        up(here, interval)?;
        std::thread::sleep(QUIET);
        let start = Instant::now();
        set_link(there, false)?;
        while !matches!(next(here)?, Change::Down(_)) {}
        carrier.push(start.elapsed());
        peer.kill()?;
        peer.wait()?;
        set_link(there, true)?;
    }
    std::fs::remove_dir_all(&folder)?;
    print(&format!("{millis} ms x 3, the peer killed"), killed);
    print(&format!("{millis} ms x 3, no carrier"), carrier);
    Ok(())
}

/// Two of ours stand while threads that do nothing but count have all CPUs four times over.
fn busy(here: &Bfd, there: &Netns) -> Result<()> {
    let far = there.run(Bfd::start)??;
    here.set(one("10.0.0.2", 50)?);
    far.set(one("10.0.0.1", 50)?);
    up(here, Duration::from_millis(50))?;
    let downs = || here.status().sessions.iter().map(|session| session.downs).sum::<u64>();
    let before = downs();
    let stop = AtomicBool::new(false);
    let threads = std::thread::available_parallelism()?.get() * 4;
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        std::thread::sleep(BUSY);
        stop.store(true, Ordering::Relaxed);
    });
    println!("50 ms x 3 with {threads} busy threads for {BUSY:?}: {} falls", downs() - before);
    Ok(())
}

fn main() -> Result<()> {
    let rounds = std::env::args().nth(1).map_or(Ok(5), |text| text.parse())?;
    let mut test = TestNs::new();
    let (near, there) = (test.ns().clone(), test.extra("there"));
    test.join((&near, "here", "10.0.0.1/24"), (&there, "there", "10.0.0.2/24"));
    let here = Bfd::start()?;
    println!("real time: {}", here.status().realtime);
    for millis in [100, 50] {
        failures(&here, &there, millis, rounds)?;
    }
    busy(&here, &there)
}
