//! A network's plugins called in their order, as a runtime calls them, and connections to see
//! what they did.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use weft_kernel::Netns;
use weft_kernel::testing::eventually;

use super::{Answer, Call, Node, path};

const PATIENCE: Duration = Duration::from_secs(15);

/// A network: its plugins' configurations, and the folder of the programs that serve it (ours when
/// there is none).
#[derive(Clone)]
pub struct Chain {
    pub plugins: Vec<Value>,
    pub programs: Option<PathBuf>,
}

/// The reference plugins: those of `WEFT_REFERENCE` or the cache, or else Debian's older ones.
pub fn reference() -> PathBuf {
    let cache = || {
        let named = std::env::var_os("WEFT_CACHE").map(PathBuf::from);
        named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/weft")))
    };
    let named = std::env::var_os("WEFT_REFERENCE").map(PathBuf::from);
    let built = named.or_else(|| Some(cache()?.join("reference-plugins")));
    built.filter(|dir| dir.join("bridge").exists()).unwrap_or_else(|| super::REFERENCE.into())
}

impl Chain {
    pub fn of(plugins: impl IntoIterator<Item = Value>) -> Chain {
        Chain { plugins: plugins.into_iter().collect(), programs: None }
    }

    pub fn by(&self, programs: Option<&Path>) -> Chain {
        Chain { programs: programs.map(Path::to_owned), ..self.clone() }
    }

    /// The first failure, or what the last plugin answered.
    pub fn add(&self, id: &str, pod: &Netns, runtime: &Value) -> Answer {
        let mut prev = None;
        for plugin in &self.plugins {
            let answer = self.call("ADD", id, Some(pod), plugin, runtime, prev.as_ref());
            if !answer.ok {
                return answer;
            }
            prev = Some(answer.json);
        }
        Answer { ok: true, json: prev.unwrap() }
    }

    pub fn check(&self, id: &str, pod: &Netns, runtime: &Value, made: &Value) -> Answer {
        let call = |plugin| self.call("CHECK", id, Some(pod), plugin, runtime, Some(made));
        let answers: Vec<Answer> = self.plugins.iter().map(call).collect();
        answers.into_iter().find(|answer| !answer.ok).unwrap_or(Answer { ok: true, json: Value::Null })
    }

    /// From the last plugin to the first; each must succeed.
    #[track_caller]
    pub fn del(&self, id: &str, pod: &Netns, runtime: &Value, made: &Value) {
        for plugin in self.plugins.iter().rev() {
            self.call("DEL", id, Some(pod), plugin, runtime, Some(made)).success();
        }
    }

    pub fn call(
        &self,
        command: &str,
        id: &str,
        pod: Option<&Netns>,
        plugin: &Value,
        runtime: &Value,
        prev: Option<&Value>,
    ) -> Answer {
        let mut config = plugin.clone();
        config["cniVersion"] = json!("1.0.0");
        config["name"] = json!("net");
        config["runtimeConfig"] = runtime.clone();
        if let Some(prev) = prev {
            config["prevResult"] = prev.clone();
        }
        let mut call = Call::new(command, id, pod.map(path).as_deref(), &config);
        if let Some(programs) = &self.programs {
            call.program = programs.join(config["type"].as_str().unwrap());
        }
        call.env("PATH", Some("/usr/sbin:/usr/bin:/sbin:/bin")).run()
    }
}

/// A node with a neighbour in the world that knows no way to the containers.
pub fn node_in_the_world() -> (Node, Netns) {
    let mut node = Node::new();
    let (here, world) = (node.ns.ns().clone(), node.ns.extra("world"));
    node.ns.join((&here, "w0", "192.0.2.1/24"), (&world, "eth0", "192.0.2.2/24"));
    super::sh(&here, "ip addr add fd00:2::1/64 dev w0 nodad");
    super::sh(&world, "ip addr add fd00:2::2/64 dev eth0 nodad");
    (node, world)
}

/// The address that a server at `port` in the container sees when `from` connects to `to`; none
/// when that is refused.
pub fn seen(pod: &Netns, port: u16, from: &Netns, to: &str) -> Option<String> {
    connect(pod, port, from, to, PATIENCE)
}

/// Whether such a connection does not come about in a time that is long enough for all that do.
pub fn blocked(pod: &Netns, port: u16, from: &Netns, to: &str) -> bool {
    connect(pod, port, from, to, Duration::from_millis(700)).is_none()
}

fn connect(pod: &Netns, port: u16, from: &Netns, to: &str, patience: Duration) -> Option<String> {
    let to: SocketAddr = to.parse().unwrap();
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    // A child of another test, not yet another program, may still have the listener before.
    let mut bound = None;
    eventually(PATIENCE, "the port is free", || {
        bound = pod.run(|| TcpListener::bind((any, port))).unwrap().ok();
        bound.is_some()
    });
    let listener = bound.unwrap();
    let stream = from.run(|| TcpStream::connect_timeout(&to, patience)).unwrap().ok()?;
    listener.set_nonblocking(true).unwrap();
    let mut accepted = None;
    eventually(PATIENCE, "the container accepts", || {
        accepted = listener.accept().ok();
        accepted.is_some()
    });
    drop(stream);
    accepted.map(|(_, peer)| peer.ip().to_string())
}

/// Rules of all tables of iptables, without counters and comments of the program, sorted by table.
pub fn saved(ns: &Netns) -> String {
    let script = "iptables-save; ip6tables-save";
    let output = ns.run(|| Command::new("sh").args(["-ec", script]).output().unwrap()).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect()
}

/// The rules of nftables without what they counted, with the tables in their order of names.
pub fn listed(ns: &Netns) -> String {
    let text = super::sh(ns, "nft -s list ruleset");
    let mut blocks: Vec<String> =
        text.split("\ntable ").map(|block| block.trim_start_matches("table ").trim().to_owned()).collect();
    blocks.sort();
    blocks.join("\n")
}
