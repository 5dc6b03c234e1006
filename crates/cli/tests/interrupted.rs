//! F45: system calls of a running agent fail, as on a busy kernel: it tries again, takes nothing half read
//! for the whole, and ends where it should be.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking and is one crate"
)]

mod common;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{Labs, eventually, example, signal};

const SOON: Duration = Duration::from_secs(60);

/// strace that makes system calls of a process and its threads fail.
struct Injected {
    strace: Child,
    log: std::path::PathBuf,
}

impl Injected {
    fn into(labs: &Labs, pid: i32, calls: &str, error: &str, when: &str) -> Injected {
        let log = labs.path(&format!("strace-{error}"));
        let mut command = Command::new("strace");
        command.args(["-f", "-p", &pid.to_string(), "-o"]).arg(&log);
        command.args(["-e", &format!("trace={calls}")]);
        command.args(["-e", &format!("inject={calls}:error={error}:when={when}")]);
        let strace = command.stderr(Stdio::null()).spawn().expect("strace: scripts/install-deps.sh test");
        Injected { strace, log }
    }

    /// How many calls it has made fail.
    fn count(&self) -> usize {
        std::fs::read_to_string(&self.log).unwrap_or_default().matches("(INJECTED)").count()
    }

    fn end(mut self) {
        signal(i32::try_from(self.strace.id()).unwrap(), "INT");
        self.strace.wait().unwrap();
    }
}

#[test]
fn f45_an_agent_whose_system_calls_fail_tries_again_and_acts_on_nothing_half_read() {
    let labs = Labs::new();
    let manifest = example("two-pods.yaml");
    labs.expect(0, &["lab", "up", "--name", "i", "--nodes", "2", "--backend", "vxlan", "-f", &manifest]);
    let mut pods = labs.pods("i");
    pods.sort_by_key(|pod| pod["node"].as_str().unwrap().to_owned());
    let near = format!("{}/{}", pods[0]["namespace"].as_str().unwrap(), pods[0]["name"].as_str().unwrap());
    let far = pods[1]["ips"][0].as_str().unwrap().to_owned();
    let state = "ip -4 route | sed 's/nhid [0-9]* //' | sort; ip -4 -o addr | awk '{print $2, $4}' | sort
        bridge fdb show dev weft-vxlan | grep dst | sort; ip neigh show dev weft-vxlan | sort
        ip nexthop | wc -l; nft list table ip weft; bridge link | awk '{print $2}' | cut -d@ -f1 | sort";
    let whole = labs.on_node("i", "node1", state);
    let agent = || labs.processes(&["agent", "--node-name", "node1"])[0];
    let first = agent();
    for error in ["ENOBUFS", "EBUSY", "EINTR"] {
        let calls = "sendto,sendmsg,recvfrom,recvmsg";
        let injected = Injected::into(&labs, first, calls, error, "1+7");
        eventually(SOON, "calls fail", || injected.count() > 0);
        // What it has to read and to write again, all of it.
        for line in [
            "ip route del 10.244.1.0/24",
            "nft delete table ip weft",
            "ip neigh flush dev weft-vxlan nud permanent",
            "ip link del weft-vxlan",
        ] {
            labs.on_node("i", "node1", line);
        }
        // What was not broken is never touched: a table half read would say that it is gone.
        let ping = ["lab", "exec", "--name", "i", &near, "--", "ping", "-c20", "-i0.05", "-W1", "10.244.0.1"];
        let text = labs.expect(0, &ping);
        assert!(text.contains("20 received"), "{error}: {text}");
        let before = injected.count();
        eventually(SOON, "more calls fail", || injected.count() > before + 10);
        injected.end();
        let mut now = String::new();
        let deadline = std::time::Instant::now() + SOON;
        while now != whole {
            now = labs.on_node("i", "node1", state);
            assert!(std::time::Instant::now() < deadline, "{error}: {whole}\nbut\n{now}");
        }
        labs.expect(0, &["lab", "exec", "--name", "i", &near, "--", "ping", "-c1", "-W2", &far]);
        assert_eq!(agent(), first, "{error}: it is the same process");
    }
    labs.expect(0, &["lab", "check", "--name", "i"]);
}
