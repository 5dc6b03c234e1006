//! ADD and DEL of bridge with host-local, the whole process from start to end, ours and the
//! reference's in turn on the same machine at the same time.
//!
//! `cargo bench -p weft-cni --bench cni_add -- [--rounds N] [--pods N] [--reference DIR]`, as root.
//! Each plugin has a node (a network namespace) of its own with `--pods` pods on it already; in
//! every round each adds one pod to its node and deletes it. Wall time includes waiting for the
//! kernel's one lock on links (RTNL), which every namespace that comes or goes on the machine
//! holds for a while: compare it on a quiet machine. Processor time does not.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark that cannot run should stop")]

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use weft_kernel::Netns;

/// What one call cost.
struct Took {
    wall: Duration,
    ticks: u64,
}

struct Node {
    plugin: PathBuf,
    plugins: PathBuf,
    netns: Netns,
    config: String,
    _data: tempfile::TempDir,
    pods: Vec<Netns>,
}

impl Node {
    fn new(plugin: &Path, plugins: &Path) -> Node {
        let data = tempfile::tempdir().unwrap();
        let config = json!({
            "cniVersion": "1.0.0", "name": "bench", "type": "bridge", "bridge": "cni0",
            "isGateway": true, "hairpinMode": true,
            "ipam": {"type": "host-local", "dataDir": data.path(),
                     "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]},
        });
        Node {
            plugin: plugin.to_owned(),
            plugins: plugins.to_owned(),
            netns: Netns::create_unpinned().unwrap(),
            config: config.to_string(),
            _data: data,
            pods: Vec::new(),
        }
    }

    fn call(&self, command: &str, id: &str, pod: &Netns) -> Took {
        let _on_the_node = self.netns.guard().unwrap();
        let netns = format!("/proc/{}/fd/{}", std::process::id(), pod.as_fd().as_raw_fd());
        let (start, before) = (Instant::now(), children_ticks());
        let mut child = Command::new(&self.plugin)
            .env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", id)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_NETNS", netns)
            .env("CNI_PATH", &self.plugins)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(self.config.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let took = Took { wall: start.elapsed(), ticks: children_ticks() - before };
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stdout));
        took
    }

    fn fill(&mut self, pods: usize) {
        for n in 0..pods {
            let pod = Netns::create_unpinned().unwrap();
            self.call("ADD", &format!("existing{n}"), &pod);
            self.pods.push(pod);
        }
    }

    fn round(&self, n: usize) -> [Took; 2] {
        let pod = Netns::create_unpinned().unwrap();
        let id = format!("c{n}");
        [self.call("ADD", &id, &pod), self.call("DEL", &id, &pod)]
    }
}

fn main() {
    let option = |name: &str| std::env::args().skip_while(|arg| arg != name).nth(1);
    let number = |name: &str, default| option(name).map_or(default, |text| text.parse().unwrap());
    let (rounds, pods) = (number("--rounds", 50), number("--pods", 0));
    let reference = PathBuf::from(option("--reference").unwrap_or_else(|| "/usr/lib/cni".into()));
    let ours = Path::new(env!("CARGO_BIN_EXE_weft-cni"));
    let mut nodes = [Node::new(ours, &reference), Node::new(&reference.join("bridge"), &reference)];
    for node in &mut nodes {
        node.fill(pods);
        // The first calls make the bridge and warm the caches.
        node.round(0);
        node.round(1);
    }
    let mut times: [[Vec<Took>; 2]; 2] = Default::default();
    for n in 2..rounds + 2 {
        for (node, times) in nodes.iter().zip(&mut times) {
            for (took, times) in node.round(n).into_iter().zip(times) {
                times.push(took);
            }
        }
    }
    println!("{rounds} rounds, {pods} pods on each node; milliseconds, median (fastest-slowest)");
    for (command, name) in ["ADD", "DEL"].into_iter().enumerate() {
        let [ours, reference] = [0, 1].map(|set| summary(&mut times[set][command]));
        let ratio = ours.0 / reference.0;
        println!("{name} wall  weft-cni {}  reference {}  ratio {ratio:.3}", shown(ours), shown(reference));
        let [ours, reference] = [0, 1].map(|set| mean_processor(&times[set][command]));
        let ratio = ours / reference;
        println!("{name} CPU, mean  weft-cni {ours:.2}  reference {reference:.2}  ratio {ratio:.3}");
    }
}

/// User and system time of the children so far, those they waited for included, in ticks of
/// 10 ms. A call's own is rounded, the sum of many is not.
fn children_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // After the program's name in parentheses come state and numbers; cutime and cstime are 16th and 17th.
    let (_, numbers) = stat.rsplit_once(')').unwrap();
    numbers.split_whitespace().skip(13).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

fn mean_processor(times: &[Took]) -> f64 {
    let ticks: u64 = times.iter().map(|took| took.ticks).sum();
    ticks as f64 * 10.0 / times.len() as f64
}

fn summary(times: &mut [Took]) -> (f64, f64, f64) {
    times.sort_by_key(|took| took.wall);
    let at = |index: usize| times[index].wall.as_secs_f64() * 1e3;
    (at(times.len() / 2), at(0), at(times.len() - 1))
}

fn shown((median, fastest, slowest): (f64, f64, f64)) -> String {
    format!("{median:.2} ({fastest:.2}-{slowest:.2})")
}
