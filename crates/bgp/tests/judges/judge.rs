//! The other speakers, as one.

use std::fs::File;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use weft_kernel::Netns;

use crate::{bird, frr, gobgp};

/// Which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bird,
    Frr,
    Gobgp,
}

/// A neighbour, as one of these is told of it.
#[derive(Clone, Debug)]
pub(crate) struct Neighbour {
    pub(crate) address: &'static str,
    pub(crate) local: &'static str,
    pub(crate) asn: u32,
    pub(crate) password: Option<&'static str>,
    pub(crate) client: bool,
    /// Seconds.
    pub(crate) graceful: Option<u16>,
    pub(crate) max_prefixes: Option<usize>,
    pub(crate) passive: bool,
    pub(crate) ttl_security: bool,
}

impl Neighbour {
    pub(crate) fn new(local: &'static str, address: &'static str, asn: u32) -> Neighbour {
        Neighbour {
            address,
            local,
            asn,
            password: None,
            client: false,
            graceful: None,
            max_prefixes: None,
            passive: false,
            ttl_security: false,
        }
    }

    pub(crate) fn is_v4(&self) -> bool {
        self.address.parse::<IpAddr>().unwrap().is_ipv4()
    }
}

/// What one of these is to do.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) asn: u32,
    pub(crate) id: &'static str,
    pub(crate) neighbours: Vec<Neighbour>,
    pub(crate) originated: Vec<String>,
    /// It has restarted and forwarding went on.
    pub(crate) restarted: bool,
}

impl Config {
    pub(crate) fn new(asn: u32, id: &'static str, neighbours: Vec<Neighbour>, originated: &[&str]) -> Config {
        let originated = originated.iter().map(ToString::to_string).collect();
        Config { asn, id, neighbours, originated, restarted: false }
    }
}

/// A program that is ended with this value, unless it has been killed before.
#[derive(Debug)]
pub(crate) struct Program(Child);

impl Program {
    /// Starts it in a namespace; what it says goes to the file `log`.
    pub(crate) fn start(ns: &Netns, log: &PathBuf, program: &str, arguments: &[&str]) -> Program {
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = ns.run(move || command.spawn()).unwrap();
        Program(child.unwrap_or_else(|error| panic!("{program}: {error}: scripts/install-deps.sh test")))
    }
}

impl Program {
    /// As by kill -9.
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

/// One of them at work.
#[derive(Debug)]
pub(crate) struct Judge {
    pub(crate) kind: Kind,
    pub(crate) ns: Netns,
    pub(crate) folder: PathBuf,
    /// Ended with this value.
    programs: Vec<Program>,
}

impl Drop for Judge {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}\n{}", self.sessions(), self.log());
        }
        self.programs.clear();
    }
}

/// A route that it has, from whomever.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    pub(crate) prefix: String,
    pub(crate) next_hop: String,
    pub(crate) as_path: String,
}

impl Judge {
    /// Starts it in `ns` with its files in `folder`.
    pub(crate) fn start(kind: Kind, ns: &Netns, folder: PathBuf, config: &Config) -> Judge {
        std::fs::create_dir_all(&folder).unwrap();
        let mut judge = Judge { kind, ns: ns.clone(), folder, programs: Vec::new() };
        judge.programs = Judge::programs(&judge, config);
        judge
    }

    /// Kills all of it at once, as by kill -9, and starts it again after `meanwhile`.
    pub(crate) fn restart(&mut self, config: &Config, meanwhile: impl FnOnce()) {
        self.programs.iter_mut().rev().for_each(Program::kill);
        meanwhile();
        self.programs = Judge::programs(self, config);
    }

    fn programs(judge: &Judge, config: &Config) -> Vec<Program> {
        match judge.kind {
            Kind::Bird => bird::start(judge, config),
            Kind::Frr => frr::start(judge, config),
            Kind::Gobgp => gobgp::start(judge, config),
        }
    }

    /// The prefixes that it has learnt.
    pub(crate) fn prefixes(&self) -> Vec<String> {
        self.routes().into_iter().map(|route| route.prefix).collect()
    }

    /// The routes that it has learnt, by prefix.
    pub(crate) fn routes(&self) -> Vec<Route> {
        let mut routes = match self.kind {
            Kind::Bird => bird::routes(self),
            Kind::Frr => frr::routes(self),
            Kind::Gobgp => gobgp::routes(self),
        };
        routes.sort();
        routes
    }

    /// What it says of its sessions, for people.
    pub(crate) fn sessions(&self) -> String {
        match self.kind {
            Kind::Bird => bird::ask(self, "show protocols all"),
            Kind::Frr => frr::ask(self, "show bgp neighbors"),
            Kind::Gobgp => gobgp::ask(self, &["neighbor"]),
        }
    }

    /// Runs one of its tools in its namespace.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(program);
        command.args(arguments);
        let output = self.ns.run(move || command.output()).unwrap().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    /// A file of its folder.
    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    /// What its programs have said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}
