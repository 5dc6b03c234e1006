//! Us and another one, joined by a veth pair in namespaces of the test's own.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use weft_kernel::process::Process;
use weft_kernel::testing::TestNs;
use weft_kernel::{Address, LinkSet, Netlink, Netns, Op};

/// How long anything may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// One's own addresses and the peer's, on the interfaces `here` and `there`.
pub(crate) const ADDRESSES: [(&str, &str); 2] = [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")];
/// Our AS and the judge's.
pub(crate) const ASES: (u32, u32) = (65001, 65002);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judge {
    Bird,
    Frr,
}

/// What a judge is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// BFD with both of our addresses: interval in milliseconds, multiplier.
    Bfd(u64, u8),
    /// BGP, where true with BFD of 100 ms three times.
    Bgp(bool),
}

/// A program that is killed when it is dropped.
pub(crate) struct Program(Child);

impl Program {
    pub(crate) fn start(ns: &Netns, folder: &TempDir, program: &str, arguments: &[&str]) -> Program {
        let log = File::options().append(true).create(true).open(folder.path().join("log")).unwrap();
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Program(ns.run(|| command.spawn().unwrap()).unwrap())
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Program {
    fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.0.id()).unwrap();
        Process::open(pid).unwrap().signal(signal).unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A namespace with a judge, beside ours, which the thread is in.
pub(crate) struct There {
    pub(crate) judge: Judge,
    pub(crate) programs: Vec<Program>,
    pub(crate) folder: TempDir,
    pub(crate) ns: Netns,
    pub(crate) test: TestNs,
}

impl There {
    pub(crate) fn new(judge: Judge, task: Task) -> There {
        let mut test = TestNs::new();
        let (here, ns) = (test.ns().clone(), test.extra("there"));
        let (v4, v6) = (ADDRESSES[0], ADDRESSES[1]);
        test.join((&here, "here", &format!("{}/24", v4.0)), (&ns, "there", &format!("{}/24", v4.1)));
        for (ns, name, address) in [(&here, "here", v6.0), (&ns, "there", v6.1)] {
            let mut netlink = Netlink::open_in(ns).unwrap();
            let index = netlink.link(name).unwrap().unwrap().index;
            let address = Address::new(index, format!("{address}/64").parse().unwrap());
            netlink.apply(&Op::AddrAdd(Address { no_dad: true, ..address })).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let mut there = There { judge, programs: Vec::new(), folder, ns, test };
        there.start(task);
        there
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// What its programs have said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Program {
        Program::start(&self.ns, &self.folder, program, arguments)
    }

    /// Starts its programs, in the place of those that there are. The first is who does BFD.
    pub(crate) fn start(&mut self, task: Task) {
        self.programs.clear();
        self.programs = match self.judge {
            Judge::Bird => {
                std::fs::write(self.file("bird.conf"), bird(task)).unwrap();
                let [config, control, pid] = ["bird.conf", "ctl", "pid"].map(|name| self.file(name));
                vec![self.run("/usr/sbin/bird", &["-f", "-c", &config, "-s", &control, "-P", &pid])]
            }
            Judge::Frr => {
                // FRR's daemons become a user of their own.
                let folder = self.folder.path().to_str().unwrap();
                assert!(Command::new("chown").args(["frr:frr", folder]).status().unwrap().success());
                for (name, text) in
                    [("zebra", "log stdout\n".to_owned()), ("bfdd", bfdd(task)), ("bgpd", bgpd())]
                {
                    std::fs::write(self.file(&format!("{name}.conf")), text).unwrap();
                }
                let one = |name: &str, more: &[&str]| {
                    let [config, pid, api] = [&*format!("{name}.conf"), &*format!("{name}.pid"), "zserv.api"]
                        .map(|name| self.file(name));
                    let all = ["--vty_socket", folder, "-P", "0", "-f", &config, "-i", &pid, "-z", &api];
                    self.run(&format!("/usr/lib/frr/{name}"), &[&all, more].concat())
                };
                let zebra = one("zebra", &[]);
                let mut programs = vec![one("bfdd", &["--bfdctl", &self.file("bfdd.sock")]), zebra];
                if task == Task::Bgp(true) {
                    programs.push(one("bgpd", &[]));
                }
                programs
            }
        };
    }

    /// Has its programs hang (SIGSTOP), or go on.
    pub(crate) fn hang(&self, hangs: bool) {
        self.programs.iter().for_each(|program| program.signal(if hangs { 19 } else { 18 }));
    }

    pub(crate) fn set_link(&self, up: bool) {
        let mut netlink = Netlink::open_in(&self.ns).unwrap();
        let index = netlink.link("there").unwrap().unwrap().index;
        netlink.apply(&Op::LinkSet(LinkSet { index, up: Some(up), ..LinkSet::default() })).unwrap();
    }

    fn ask(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.ns.run(|| Command::new(program).args(arguments).output().unwrap()).unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn vtysh(&self, lines: &[&str]) -> String {
        let mut arguments = vec!["--vty_socket", self.folder.path().to_str().unwrap(), "-d", "bfdd"];
        arguments.extend(lines.iter().flat_map(|line| ["-c", line]));
        self.ask("/usr/bin/vtysh", &arguments)
    }

    /// What the judge says of the session with one of our addresses: its state, interval in milliseconds and
    /// detection time in milliseconds where it tells that.
    pub(crate) fn judged(&self, ours: &str) -> Option<(String, u64, Option<u64>)> {
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

    pub(crate) fn frr(&self, ours: &str) -> Option<Value> {
        let said: Value = serde_json::from_str(&self.vtysh(&["show bfd peers json"])).ok()?;
        said.as_array()?.iter().find(|peer| peer["peer"] == *ours).cloned()
    }
}

fn bird(task: Task) -> String {
    let start = "log stderr all;\nrouter id 10.0.0.2;\nprotocol device { scan time 1; }\n";
    let (ours, theirs) = ASES;
    let more = match task {
        Task::Bfd(millis, multiplier) => {
            let neighbours =
                ADDRESSES.map(|(ours, _)| format!("  neighbor {ours} dev \"there\";\n")).concat();
            format!(
                "protocol bfd {{\n  interface \"there\" {{ interval {millis} ms; idle tx interval 1 s; \
                 multiplier {multiplier}; }};\n{neighbours}}}\n"
            )
        }
        Task::Bgp(watched) => {
            let bfd = if watched { "bfd on;" } else { "" };
            let of = |(our, their): (&str, &str)| {
                let family = if our.contains(':') { "ipv6" } else { "ipv4" };
                format!(
                    "protocol bgp {family}_ours {{\n  local {their} as {theirs};\n  neighbor {our} as {ours};\n  \
                     direct;\n  connect delay time 1;\n  connect retry time 1;\n  error wait time 1, 2;\n  \
                     {family} {{ import all; export all; }};\n  {bfd}\n}}\n"
                )
            };
            let bfd = "protocol bfd { interface \"there\" { interval 100 ms; multiplier 3; }; }\n";
            bfd.to_owned() + &ADDRESSES.map(of).concat()
        }
    };
    start.to_owned() + &more
}

fn bfdd(task: Task) -> String {
    let intervals = |millis: u64, multiplier: u8| {
        format!(
            "  detect-multiplier {multiplier}\n  receive-interval {millis}\n  transmit-interval {millis}\n"
        )
    };
    let text = match task {
        Task::Bfd(millis, multiplier) => {
            let intervals = intervals(millis, multiplier);
            let peer = |(ours, theirs)| {
                format!(" peer {ours} local-address {theirs} interface there\n{intervals}  no shutdown\n !\n")
            };
            ADDRESSES.map(peer).concat()
        }
        Task::Bgp(_) => format!(" profile short\n{} !\n", intervals(100, 3)),
    };
    format!("log stdout\nbfd\n{text}!\n")
}

fn bgpd() -> String {
    let (ours, theirs) = ASES;
    let mut text =
        format!("log stdout\nrouter bgp {theirs}\n bgp router-id 10.0.0.2\n no bgp ebgp-requires-policy\n");
    for (our, their) in ADDRESSES {
        text += &format!(
            " neighbor {our} remote-as {ours}\n neighbor {our} update-source {their}\n \
             neighbor {our} timers connect 1\n neighbor {our} bfd profile short\n"
        );
        let family = if our.contains(':') { "ipv6" } else { "ipv4" };
        text +=
            &format!(" address-family {family} unicast\n  neighbor {our} activate\n exit-address-family\n");
    }
    text
}
