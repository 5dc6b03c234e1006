//! The sessions by themselves.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use weft_bgp::bfd::{Bfd, Change, Diagnostic, Intervals, Key, SessionStatus, State};
use weft_kernel::Op;
use weft_kernel::testing::eventually;

use crate::there::{ADDRESSES, Judge, Program, SOON, Task, There};

/// Us and a judge.
struct World {
    bfd: Bfd,
    changes: Vec<(IpAddr, Change)>,
    there: There,
}

impl World {
    /// Both with these intervals, in milliseconds.
    fn new(judge: Judge, ours: (u64, u8), theirs: (u64, u8)) -> World {
        let there = There::new(judge, Task::Bfd(theirs.0, theirs.1));
        let world = World { bfd: Bfd::start().unwrap(), changes: Vec::new(), there };
        world.set(ours);
        world
    }

    fn set(&self, (millis, multiplier): (u64, u8)) {
        let interval = Duration::from_millis(millis);
        let intervals = Intervals { transmit: interval, receive: interval, multiplier };
        self.bfd.set(ADDRESSES.map(|addresses| (key(addresses), intervals)).into());
    }

    /// Whether a session has this interval, the judge's detection time, and ours, in milliseconds.
    fn agreed(
        &self,
        ours: &str,
        theirs: &str,
        (interval, detection, our_detection): (u64, u64, u64),
    ) -> bool {
        let (session, judged) = (self.session(theirs), self.there.judged(ours));
        session.interval == Duration::from_millis(interval)
            && session.detection == Duration::from_millis(our_detection)
            && judged.is_some_and(|(_, millis, timeout)| {
                millis == interval && timeout.is_none_or(|timeout| timeout == detection)
            })
    }

    fn session(&self, theirs: &str) -> SessionStatus {
        let theirs: IpAddr = theirs.parse().unwrap();
        self.bfd.status().sessions.into_iter().find(|session| session.peer == theirs).unwrap()
    }

    /// What has happened to all sessions so far.
    fn changes(&mut self) -> &[(IpAddr, Change)] {
        while let Some((key, change)) = self.bfd.try_next() {
            self.changes.push((key.peer, change));
        }
        &self.changes
    }

    /// Waits until this is what has happened last to every session.
    fn await_all(&mut self, what: Change) {
        let end = Instant::now() + SOON;
        let is_last = |changes: &[(IpAddr, Change)], theirs: &str| {
            let last = changes.iter().rev().find(|(peer, _)| peer.to_string() == theirs);
            last.is_some_and(|(_, change)| *change == what)
        };
        while !ADDRESSES.iter().all(|(_, theirs)| is_last(self.changes(), theirs)) {
            assert!(Instant::now() < end, "{what:?}: {:?}\n{}", self.changes, self.there.log());
            wait_readable(&self.bfd);
        }
    }

    fn up(&mut self) {
        self.await_all(Change::Up);
        for (ours, theirs) in ADDRESSES {
            eventually(SOON, "it is up", || self.session(theirs).state == State::Up);
            eventually(SOON, "the judge is up", || {
                self.there.judged(ours).is_some_and(|(state, ..)| state == "up")
            });
        }
    }
}

fn key((ours, theirs): (&str, &str)) -> Key {
    let [local, peer] = [ours, theirs].map(|address| address.parse().unwrap());
    Key { peer, local: Some(local), interface: Some("here".into()) }
}

fn wait_readable(bfd: &Bfd) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let second = Timespec { tv_sec: 1, tv_nsec: 0 };
    poll(&mut [PollFd::new(bfd, PollFlags::IN)], Some(&second)).unwrap();
}

fn comes_up_negotiates_and_notices_a_killed_peer(judge: Judge) {
    let mut world = World::new(judge, (100, 15), (200, 10));
    world.up();
    for (our_address, their_address) in ADDRESSES {
        // The slower of what one sends and the other takes; and the sender's multiplier.
        eventually(SOON, "both have agreed on the intervals", || {
            world.agreed(our_address, their_address, (200, 3000, 2000))
        });
    }
    world.set((300, 15));
    for (our_address, their_address) in ADDRESSES {
        eventually(SOON, "both have agreed on changed intervals", || {
            world.agreed(our_address, their_address, (300, 4500, 3000))
        });
    }
    assert_eq!(world.changes().len(), ADDRESSES.len(), "nothing fell over that");
    world.there.programs[0].kill();
    world.await_all(Change::Down(Diagnostic::Expired));
    world.there.start(Task::Bfd(100, 3));
    world.up();
    // 100 ms, three times: what a busy node holds.
    world.set((100, 3));
    for (_, theirs) in ADDRESSES {
        let held = Duration::from_millis(300);
        eventually(SOON, "the intervals are short", || world.session(theirs).detection == held);
    }
    world.there.programs[0].kill();
    world.await_all(Change::Down(Diagnostic::Expired));
}

#[test]
fn bird_comes_up_negotiates_and_is_missed_when_killed() {
    comes_up_negotiates_and_notices_a_killed_peer(Judge::Bird);
}

#[test]
fn frr_comes_up_negotiates_and_is_missed_when_killed() {
    comes_up_negotiates_and_notices_a_killed_peer(Judge::Frr);
}

fn a_link_that_goes_down_is_noticed_by_itself(judge: Judge) {
    // Longer than the test may take: it is not the time that tells.
    let mut world = World::new(judge, (1000, 100), (1000, 100));
    world.up();
    world.there.set_link(false);
    world.await_all(Change::Down(Diagnostic::PathDown));
    for (_, theirs) in ADDRESSES {
        assert_eq!(world.session(theirs).diagnostic, Diagnostic::PathDown);
    }
}

#[test]
fn with_bird_a_link_that_goes_down_is_noticed_by_itself() {
    a_link_that_goes_down_is_noticed_by_itself(Judge::Bird);
}

#[test]
fn with_frr_a_link_that_goes_down_is_noticed_by_itself() {
    a_link_that_goes_down_is_noticed_by_itself(Judge::Frr);
}

#[test]
fn bird_understands_that_a_session_is_held_down() {
    let mut world = World::new(Judge::Bird, (1000, 100), (1000, 100));
    world.up();
    world.bfd.set(BTreeMap::new());
    for (ours, _) in ADDRESSES {
        // Long before it would miss packets.
        eventually(SOON, "it is down", || {
            world.there.judged(ours).is_some_and(|(state, ..)| state == "down")
        });
    }
    eventually(SOON, "it was told so often enough", || world.bfd.status().sessions.is_empty());
    world.set((100, 3));
    world.up();
}

#[test]
fn frr_and_we_understand_that_a_session_is_held_down() {
    let mut world = World::new(Judge::Frr, (1000, 100), (1000, 100));
    world.up();
    world.bfd.set(BTreeMap::new());
    for (ours, _) in ADDRESSES {
        eventually(SOON, "it is down on purpose", || {
            world.there.frr(ours).is_some_and(|peer| {
                peer["status"] == "down" && peer["remote-diagnostic"] == "administratively down"
            })
        });
    }
    world.set((100, 3));
    world.up();
    for (ours, theirs) in ADDRESSES {
        let peer = format!("peer {ours} local-address {theirs} interface there");
        world.there.vtysh(&["configure terminal", "bfd", &peer, "shutdown"]);
    }
    world.await_all(Change::AdminDown);
}

#[test]
fn tshark_reads_what_is_sent() {
    let mut world = World::new(Judge::Bird, (100, 3), (100, 3));
    let fields =
        ["ip.ttl", "ipv6.hlim", "udp.srcport", "bfd.sta", "bfd.version", "_ws.malformed", "_ws.expert"];
    let fields: String = fields.map(|field| format!("-e {field} ")).concat();
    let capture = format!(
        "tshark -l -i there -f 'udp dst port 3784 and (src {} or src {})' -T fields {fields} > '{}'",
        ADDRESSES[0].0,
        ADDRESSES[1].0,
        world.there.file("seen")
    );
    let _tshark =
        Program::start(&world.there.ns, &world.there.folder, "/bin/sh", &["-c", &format!("exec {capture}")]);
    world.up();
    let seen = world.there.file("seen");
    let lines = || std::fs::read_to_string(&seen).unwrap_or_default();
    let of_state = |v6: bool| {
        let lines = lines();
        lines.lines().filter(|line| line.starts_with('\t') == v6 && line.contains("0x03")).count()
    };
    eventually(SOON, "packets of both families are seen", || of_state(false) > 5 && of_state(true) > 5);
    let mut ports = [Vec::new(), Vec::new()];
    let lines = lines();
    // The last line may be half written.
    for line in lines.lines().rev().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [ttl, hops, port, _, version, malformed, expert] = fields[..] else { panic!("{line}") };
        assert!(ttl == "255" && hops.is_empty() || hops == "255" && ttl.is_empty(), "{line}");
        assert_eq!((version, malformed, expert), ("1", "", ""), "{line}");
        ports[usize::from(ttl.is_empty())].push(port.parse::<u16>().unwrap());
    }
    for ports in &mut ports {
        ports.sort_unstable();
        ports.dedup();
        assert!(ports.len() == 1 && ports[0] >= 49152, "{ports:?}");
    }
    assert_ne!(ports[0], ports[1]);
}

#[test]
fn an_interface_that_comes_back_is_used_again() {
    let mut world = World::new(Judge::Bird, (100, 50), (100, 50));
    world.up();
    let before = world.session("10.0.0.2").discriminator;
    let mut netlink = world.there.test.netlink();
    let index = netlink.link("here").unwrap().unwrap().index;
    netlink.apply(&Op::LinkDel(index)).unwrap();
    world.await_all(Change::Down(Diagnostic::PathDown));
    let (here, there) = (world.there.test.ns().clone(), world.there.ns.clone());
    world.there.test.join((&here, "here", "10.0.0.1/24"), (&there, "there", "10.0.0.2/24"));
    eventually(SOON, "it is up again", || world.session("10.0.0.2").state == State::Up);
    assert_eq!(world.session("10.0.0.2").discriminator, before);
}
