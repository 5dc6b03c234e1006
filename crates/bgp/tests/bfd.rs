//! BFD against BIRD and FRR, over a veth pair in namespaces of the test's own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs::File;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use weft_bgp::bfd::{Bfd, Change, Diagnostic, Intervals, Key, SessionStatus, State};
use weft_kernel::testing::{TestNs, eventually};
use weft_kernel::{Address, LinkSet, Netlink, Netns, Op};

const SOON: Duration = Duration::from_secs(60);
/// One's own addresses and the peer's, on the interfaces `here` and `there`.
const ADDRESSES: [(&str, &str); 2] = [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judge {
    Bird,
    Frr,
}

/// A program that is killed when it is dropped.
struct Program(Child);

impl Program {
    fn start(ns: &Netns, folder: &TempDir, program: &str, arguments: &[&str]) -> Program {
        let log = File::options().append(true).create(true).open(folder.path().join("log")).unwrap();
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Program(ns.run(|| command.spawn().unwrap()).unwrap())
    }

    /// SIGKILL.
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Us and a judge, joined.
struct World {
    judge: Judge,
    programs: Vec<Program>,
    bfd: Bfd,
    changes: Vec<(IpAddr, Change)>,
    folder: TempDir,
    there: Netns,
    test: TestNs,
}

impl World {
    /// Both with these intervals, in milliseconds.
    fn new(judge: Judge, ours: (u64, u8), theirs: (u64, u8)) -> World {
        let mut test = TestNs::new();
        let (here, there) = (test.ns().clone(), test.extra("there"));
        let (v4, v6) = (ADDRESSES[0], ADDRESSES[1]);
        test.join((&here, "here", &format!("{}/24", v4.0)), (&there, "there", &format!("{}/24", v4.1)));
        for (ns, name, address) in [(&here, "here", v6.0), (&there, "there", v6.1)] {
            let mut netlink = Netlink::open_in(ns).unwrap();
            let index = netlink.link(name).unwrap().unwrap().index;
            let address = Address::new(index, format!("{address}/64").parse().unwrap());
            netlink.apply(&Op::AddrAdd(Address { no_dad: true, ..address })).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let bfd = Bfd::start().unwrap();
        let programs = Vec::new();
        let mut world = World { judge, programs, bfd, changes: Vec::new(), folder, there, test };
        world.start(theirs);
        world.set(ours);
        world
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn start(&mut self, (millis, multiplier): (u64, u8)) {
        self.programs.clear();
        let file = |name: &str| self.folder.path().join(name).to_str().unwrap().to_owned();
        let start =
            |program: &str, arguments: &[&str]| Program::start(&self.there, &self.folder, program, arguments);
        match self.judge {
            Judge::Bird => {
                let neighbours: String =
                    ADDRESSES.map(|(ours, _)| format!("  neighbor {ours} dev \"there\";\n")).concat();
                let text = format!(
                    "log stderr all;\nrouter id 10.0.0.2;\nprotocol device {{ scan time 1; }}\nprotocol bfd {{\n  \
                     interface \"there\" {{ min rx interval {millis} ms; min tx interval {millis} ms; \
                     idle tx interval 1 s; multiplier {multiplier}; }};\n{neighbours}}}\n"
                );
                std::fs::write(file("bird.conf"), text).unwrap();
                let [config, control, pid] = ["bird.conf", "ctl", "pid"].map(file);
                let bird = start("/usr/sbin/bird", &["-f", "-c", &config, "-s", &control, "-P", &pid]);
                self.programs = vec![bird];
            }
            Judge::Frr => {
                let peers: String = ADDRESSES
                    .map(|(ours, theirs)| {
                        format!(
                            " peer {ours} local-address {theirs} interface there\n  detect-multiplier {multiplier}\n  \
                             receive-interval {millis}\n  transmit-interval {millis}\n  no shutdown\n !\n"
                        )
                    })
                    .concat();
                // FRR's daemons become a user of their own.
                let folder = self.folder.path().to_str().unwrap();
                assert!(Command::new("chown").args(["frr:frr", folder]).status().unwrap().success());
                std::fs::write(file("zebra.conf"), "log stdout\n").unwrap();
                std::fs::write(file("bfdd.conf"), format!("log stdout\nbfd\n{peers}!\n")).unwrap();
                let one = |name: &str, more: &[&str]| {
                    let [config, pid, api] =
                        [&*format!("{name}.conf"), &*format!("{name}.pid"), "zserv.api"].map(file);
                    let vty = ["--vty_socket", folder, "-P", "0", "-f", &config, "-i", &pid, "-z", &api];
                    start(&format!("/usr/lib/frr/{name}"), &[&vty, more].concat())
                };
                let zebra = one("zebra", &[]);
                self.programs = vec![one("bfdd", &["--bfdctl", &file("bfdd.sock")]), zebra];
            }
        }
    }

    fn set(&self, (millis, multiplier): (u64, u8)) {
        let interval = Duration::from_millis(millis);
        let intervals = Intervals { transmit: interval, receive: interval, multiplier };
        self.bfd.set(ADDRESSES.map(|addresses| (key(addresses), intervals)).into());
    }

    fn ask(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.there.run(|| Command::new(program).args(arguments).output().unwrap()).unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn vtysh(&self, lines: &[&str]) -> String {
        let mut arguments = vec!["--vty_socket", self.folder.path().to_str().unwrap(), "-d", "bfdd"];
        arguments.extend(lines.iter().flat_map(|line| ["-c", line]));
        self.ask("/usr/bin/vtysh", &arguments)
    }

    /// What the judge says of the session with one of our addresses: its state, interval in milliseconds and
    /// detection time in milliseconds where it tells that.
    fn judged(&self, ours: &str) -> Option<(String, u64, Option<u64>)> {
        match self.judge {
            Judge::Bird => {
                let said = self.ask("/usr/sbin/birdc", &["-r", "-s", &self.file("ctl"), "show bfd sessions"]);
                let words = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
                let line = words.into_iter().find(|words| words.first() == Some(&ours))?;
                let millis = |word: &str| word.parse::<f64>().ok().map(|time| (time * 1000.0).round() as u64);
                // Address, interface, state, since (a date and a time, or a time), interval, timeout.
                let [.., interval, timeout] = &line[..] else { return None };
                Some((line[2].to_lowercase(), millis(interval)?, millis(timeout)))
            }
            Judge::Frr => {
                let peer = self.frr(ours)?;
                let state = peer["status"].as_str()?.to_owned();
                let number = |name: &str| peer[name].as_u64();
                let interval = number("transmit-interval")?.max(number("remote-receive-interval")?);
                Some((state, interval, None))
            }
        }
    }

    fn frr(&self, ours: &str) -> Option<Value> {
        let said: Value = serde_json::from_str(&self.vtysh(&["show bfd peers json"])).ok()?;
        said.as_array()?.iter().find(|peer| peer["peer"] == *ours).cloned()
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

    fn await_all(&mut self, what: Change) {
        let log = self.file("log");
        let told = || std::fs::read_to_string(&log).unwrap_or_default();
        let mut seen = Vec::new();
        let end = std::time::Instant::now() + SOON;
        while seen.len() < ADDRESSES.len() {
            assert!(std::time::Instant::now() < end, "{what:?}: {:?}\n{}", self.changes, told());
            while let Some((key, change)) = self.bfd.try_next() {
                self.changes.push((key.peer, change));
                assert_eq!(change, what, "{:?}\n{}", self.changes, told());
                seen.push(key.peer);
            }
            wait_readable(&self.bfd);
        }
    }

    fn up(&mut self) {
        self.await_all(Change::Up);
        for (ours, theirs) in ADDRESSES {
            assert_eq!(self.session(theirs).state, State::Up);
            eventually(SOON, "the judge is up", || {
                self.judged(ours).is_some_and(|(state, ..)| state == "up")
            });
        }
    }

    fn set_link(&self, up: bool) {
        let mut netlink = Netlink::open_in(&self.there).unwrap();
        let index = netlink.link("there").unwrap().unwrap().index;
        netlink.apply(&Op::LinkSet(LinkSet { index, up: Some(up), ..LinkSet::default() })).unwrap();
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
    let mut world = World::new(judge, (100, 3), (200, 4));
    world.up();
    let [ours, theirs] = [300, 800].map(Duration::from_millis);
    for (our_address, their_address) in ADDRESSES {
        // The slower of what one sends and the other takes; and the sender's multiplier.
        eventually(SOON, "both have agreed on the intervals", || {
            let session = world.session(their_address);
            let judged = world.judged(our_address);
            let interval = Duration::from_millis(200);
            session.interval == interval
                && session.detection == theirs
                && judged.is_some_and(|(_, millis, timeout)| {
                    millis == 200 && timeout.is_none_or(|timeout| timeout == 2 * ours.as_millis() as u64)
                })
        });
    }
    // Of one session, other intervals.
    world.set((300, 5));
    for (our_address, their_address) in ADDRESSES {
        eventually(SOON, "both have agreed on changed intervals", || {
            let session = world.session(their_address);
            let judged = world.judged(our_address);
            session.interval == Duration::from_millis(300)
                && session.detection == Duration::from_millis(1200)
                && judged.is_some_and(|(_, millis, timeout)| {
                    millis == 300 && timeout.is_none_or(|timeout| timeout == 1500)
                })
        });
    }
    assert_eq!(world.changes().len(), ADDRESSES.len(), "nothing fell over that");
    world.programs[0].kill();
    world.await_all(Change::Down(Diagnostic::Expired));
    world.start((100, 3));
    world.up();
    // 100 ms, three times: what a busy node holds.
    world.set((100, 3));
    for (_, theirs) in ADDRESSES {
        let held = Duration::from_millis(300);
        eventually(SOON, "the intervals are short", || world.session(theirs).detection == held);
    }
    world.programs[0].kill();
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
    world.set_link(false);
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
        eventually(SOON, "it is down", || world.judged(ours).is_some_and(|(state, ..)| state == "down"));
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
            world.frr(ours).is_some_and(|peer| {
                peer["status"] == "down" && peer["remote-diagnostic"] == "administratively down"
            })
        });
    }
    world.set((100, 3));
    world.up();
    for (ours, theirs) in ADDRESSES {
        let peer = format!("peer {ours} local-address {theirs} interface there");
        world.vtysh(&["configure terminal", "bfd", &peer, "shutdown"]);
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
        world.file("seen")
    );
    let _tshark = Program::start(&world.there, &world.folder, "/bin/sh", &["-c", &format!("exec {capture}")]);
    world.up();
    let seen = world.file("seen");
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
    let mut world = World::new(Judge::Bird, (100, 3), (100, 3));
    world.up();
    let before = world.session("10.0.0.2").discriminator;
    let mut netlink = world.test.netlink();
    let index = netlink.link("here").unwrap().unwrap().index;
    netlink.apply(&Op::LinkDel(index)).unwrap();
    world.await_all(Change::Down(Diagnostic::PathDown));
    let (here, there) = (world.test.ns().clone(), world.there.clone());
    world.test.join((&here, "here", "10.0.0.1/24"), (&there, "there", "10.0.0.2/24"));
    eventually(SOON, "it is up again", || world.session("10.0.0.2").state == State::Up);
    assert_eq!(world.session("10.0.0.2").discriminator, before);
}
