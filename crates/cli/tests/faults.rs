//! Faults under traffic: agents and the API server killed, kernel objects deleted by hand, full disks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking and is one crate"
)]

mod common;

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{Labs, eventually, example, signal};

const SOON: Duration = Duration::from_secs(30);

struct Pods {
    near: String,
    far: String,
    far_ip: String,
}

/// Two nodes and two pods, one on each.
fn two_pods(labs: &Labs, backend: &str) -> Pods {
    let manifest = example("two-pods.yaml");
    labs.expect(0, &["lab", "up", "--name", "f", "--nodes", "2", "--backend", backend, "-f", &manifest]);
    let mut pods = labs.pods("f");
    pods.sort_by_key(|p| p["node"].as_str().unwrap().to_owned());
    let text = |p: &serde_json::Value, key: &str| p[key].as_str().unwrap().to_owned();
    let (near, far) = (&pods[0], &pods[pods.len() - 1]);
    assert_ne!(near["node"], far["node"], "the two pods are spread");
    let name = |p| format!("{}/{}", text(p, "namespace"), text(p, "name"));
    Pods { near: name(near), far: name(far), far_ip: far["ips"][0].as_str().unwrap().to_owned() }
}

fn start(labs: &Labs, pod: &str, argv: &[&str]) -> Child {
    let mut args = vec!["lab", "exec", "--name", "f", pod, "--"];
    args.extend(argv);
    labs.weft(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// F20, F22: forwarded traffic is none of the agents' or the API server's business once programmed.
fn nothing_is_lost_while_processes_die(backend: &str) {
    let labs = Labs::new();
    let pods = two_pods(&labs, backend);
    let mut server = start(&labs, &pods.far, &["iperf3", "-s", "-1"]);
    eventually(SOON, "iperf3 listens", || {
        labs.run(&["lab", "exec", "--name", "f", &pods.far, "--", "sh", "-c", "ss -ltn | grep -q :5201"])
            .status
            .success()
    });
    let ping = start(&labs, &pods.near, &["ping", "-i", "0.01", "-c", "600", "-q", &pods.far_ip]);
    let stream = start(&labs, &pods.near, &["iperf3", "-c", &pods.far_ip, "-t", "6", "-b", "50M", "-J"]);

    for round in 0..5 {
        let agents = labs.processes(&["agent", "--node-name"]);
        assert_eq!(agents.len(), 2, "round {round}");
        for pid in &agents {
            signal(*pid, if round % 2 == 0 { "KILL" } else { "TERM" });
        }
        if round == 2 {
            labs.processes(&["apiserver", "--data-dir"]).iter().for_each(|pid| signal(*pid, "KILL"));
        }
        eventually(SOON, "both agents are restarted", || {
            let now = labs.processes(&["agent", "--node-name"]);
            now.len() == 2 && now.iter().all(|pid| !agents.contains(pid))
        });
    }
    let report = ping.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&report.stdout).into_owned();
    assert!(text.contains("600 received, 0% packet loss"), "{backend}: {text}");
    let stream = stream.wait_with_output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&stream.stdout).unwrap();
    assert!(report.get("error").is_none(), "{backend}: {report}");
    // On a busy machine TCP sends again what was only late: the receiver says so (DSACK). None was lost.
    let counters = ["lab", "exec", "--name", "f", &pods.near, "--", "nstat", "-asj"];
    let counters: serde_json::Value = labs.json(&counters);
    let count = |name: &str| counters["kernel"][name].as_u64().unwrap_or(0);
    assert!(count("TcpRetransSegs") <= count("TcpExtTCPDSACKRecv"), "{backend}: {counters}");
    server.wait().unwrap();
    eventually(SOON, "the check passes again", || {
        labs.run(&["lab", "check", "--name", "f"]).status.code() == Some(0)
    });
}

#[test]
fn f20_nothing_is_lost_over_host_gw_while_processes_die() {
    nothing_is_lost_while_processes_die("host-gw");
}

#[test]
fn f20_nothing_is_lost_over_vxlan_while_processes_die() {
    nothing_is_lost_while_processes_die("vxlan");
}

#[test]
fn f40_what_somebody_deletes_is_back_within_a_second() {
    let labs = Labs::new();
    let pods = two_pods(&labs, "vxlan");
    // What is not ours must stay as it is, to the byte.
    labs.on_node("f", "node1", "ip route add 203.0.113.0/24 via 10.168.0.1 && nft add table inet theirs");
    let state = "ip -4 route | sed 's/nhid [0-9]* //' | sort; ip -4 -o addr | awk '{print $2, $4}' | sort; \
                 bridge fdb show dev weft-vxlan | grep dst | sort; ip neigh show dev weft-vxlan | sort; \
                 nft list table inet theirs; nft list table ip weft; cat /proc/sys/net/ipv4/ip_forward; ip -br link | awk '{print $1}' | cut -d@ -f1 | sort; \
                 bridge link | awk '{print $2}' | cut -d@ -f1 | sort";
    let before = labs.on_node("f", "node1", state);
    for (what, line) in [
        ("route", "ip route del 10.244.1.0/24"),
        ("neighbour", "ip neigh del 10.244.1.0 dev weft-vxlan"),
        (
            "fdb",
            "m=$(bridge fdb show dev weft-vxlan | awk '/dst/{print $1}'); bridge fdb del $m dev weft-vxlan",
        ),
        ("vxlan address", "ip addr flush dev weft-vxlan"),
        ("bridge address", "ip addr flush dev weft0"),
        ("nft table", "nft delete table ip weft"),
        ("nft rules", "nft flush table ip weft"),
        ("sysctl", "sysctl -qw net.ipv4.ip_forward=0"),
        ("vxlan device down", "ip link set weft-vxlan down"),
        ("vxlan device", "ip link del weft-vxlan"),
        ("bridge", "ip link del weft0"),
    ] {
        labs.on_node("f", "node1", line);
        let started = Instant::now();
        let mut now = String::new();
        eventually(Duration::from_secs(3), what, || {
            now = labs.on_node("f", "node1", state);
            now == before || started.elapsed() > Duration::from_millis(2900)
        });
        assert_eq!(now, before, "after deleting: {what}");
        labs.expect(0, &["lab", "exec", "--name", "f", &pods.near, "--", "ping", "-c1", "-W2", &pods.far_ip]);
    }
    let conflist = labs.state("f").join("node/node1/cni/net.d/10-weft.conflist");
    let text = fs::read(&conflist).unwrap();
    fs::remove_file(&conflist).unwrap();
    eventually(Duration::from_secs(3), "the conflist", || fs::read(&conflist).is_ok_and(|now| now == text));
}

#[test]
fn f10_a_full_disk_is_said_and_nothing_half_made_stays() {
    let labs = Labs::new();
    let pods = two_pods(&labs, "host-gw");
    let networks = labs.state("f").join("node/node1/cni/networks");
    let fill = format!(
        "mount -t tmpfs -o size=16k,nr_inodes=6 tmpfs {0} && touch {0}/1 {0}/2 {0}/3 {0}/4 {0}/5",
        networks.display()
    );
    in_lab(&labs, &fill);
    let more = labs.file(
        "more.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: late}\nspec: {nodeSelector: {kubernetes.io/hostname: node1}, containers: [{name: c, image: i}]}\n",
    );
    labs.expect(0, &["lab", "apply", "--name", "f", "-f", &more]);
    eventually(SOON, "the pod says why it has no network", || {
        labs.pods("f").iter().any(|p| p["name"] == "late" && p.to_string().contains("space"))
    });
    let links = labs.on_node("f", "node1", "ip -br link | grep -c ^wf || true");
    assert_eq!(links.trim(), "1", "the failed pod left a link");
    in_lab(&labs, &format!("umount {}", networks.display()));
    labs.expect(0, &["lab", "status", "--name", "f", "--wait"]);
    labs.expect(0, &["lab", "exec", "--name", "f", "late", "--", "ping", "-c1", "-W2", &pods.far_ip]);
}

/// A shell line in the lab's mount namespace, whose mounts the machine does not see.
fn in_lab(labs: &Labs, line: &str) {
    let info = fs::read(labs.state("f").join("lab.json")).unwrap();
    let info: serde_json::Value = serde_json::from_slice(&info).unwrap();
    let keeper = info["process"]["pid"].to_string();
    let done = std::process::Command::new("nsenter").args(["-t", &keeper, "-m", "sh", "-ec", line]).status();
    assert!(done.unwrap().success(), "in the lab: {line}");
}

/// A manifest of one ConfigMap with `bytes` of text.
fn big_config_map(labs: &Labs, name: &str, bytes: usize) -> String {
    let data = "x".repeat(bytes);
    let text =
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{text: {data}}}\n");
    labs.file(&format!("{name}.yaml"), &text)
}

#[test]
fn a_full_disk_under_the_api_server_stops_writes_and_nothing_else() {
    let labs = Labs::new();
    let pods = two_pods(&labs, "vxlan");
    let api = labs.state("f").join("api").display().to_string();
    let server = || labs.processes(&["apiserver", "--data-dir"]);
    // Its data moves to a small disk between two lives of the server.
    server().iter().for_each(|pid| signal(*pid, "STOP"));
    in_lab(
        &labs,
        &format!("cp -a {api} {api}.was; mount -t tmpfs -o size=6m tmpfs {api}; cp -a {api}.was/. {api}/"),
    );
    server().iter().for_each(|pid| signal(*pid, "KILL"));
    labs.expect(0, &["lab", "status", "--name", "f", "--wait"]);

    let mut kept = Vec::new();
    let refused = (0..100).find_map(|n| {
        let name = format!("big{n}");
        let manifest = big_config_map(&labs, &name, 200_000);
        let output = labs.run(&["lab", "apply", "--name", "f", "-f", &manifest]);
        if output.status.success() {
            kept.push(name);
            return None;
        }
        Some((manifest, output))
    });
    let (manifest, output) = refused.expect("the disk is full before 20 MB");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!((output.status.code(), text.lines().count()), (Some(3), 1), "{text}");
    assert!(text.contains("No space left") && text.contains("make room in") && text.contains(&api), "{text}");
    let config = labs.expect(0, &["lab", "kubeconfig", "--name", "f"]);
    let kubectl = |args: &[&str]| {
        let mut kubectl = std::process::Command::new("kubectl");
        kubectl.args(args).env("KUBECONFIG", config.trim()).env("HOME", labs.path("")).output().unwrap()
    };
    let text = String::from_utf8_lossy(&kubectl(&["apply", "-f", &manifest]).stderr).into_owned();
    assert!(text.contains("make room in"), "{text}");
    // What reads, and what runs, is not concerned.
    assert!(!kept.is_empty() && kubectl(&["get", "configmap", &kept[0]]).status.success());
    labs.expect(0, &["lab", "check", "--name", "f"]);

    in_lab(&labs, &format!("mount -o remount,size=64m {api}"));
    eventually(SOON, "it can be written again", || {
        labs.run(&["lab", "apply", "--name", "f", "-f", &manifest]).status.success()
    });
    server().iter().for_each(|pid| signal(*pid, "KILL"));
    for name in kept {
        eventually(SOON, &format!("{name} is there"), || {
            kubectl(&["get", "configmap", &name]).status.success()
        });
    }
    labs.expect(0, &["lab", "check", "--name", "f"]);
    labs.expect(0, &["lab", "exec", "--name", "f", &pods.near, "--", "ping", "-c1", "-W2", &pods.far_ip]);
}

#[test]
fn a_probe_is_followed_hop_by_hop_and_a_drop_is_named() {
    let labs = Labs::new();
    let pods = two_pods(&labs, "vxlan");
    for proto in ["icmp", "tcp", "udp"] {
        let mut args = vec!["trace", "--name", "f", &pods.near, &pods.far, "--proto", proto, "-o", "json"];
        if proto != "icmp" {
            args.extend(["--port", "8080"]);
        }
        let output = labs.run(&args);
        let trace: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{proto}: {e}: {}", String::from_utf8_lossy(&output.stderr)));
        let text = trace.to_string();
        for word in ["node1", "node2", "weft-vxlan", "weft0", "underlay"] {
            assert!(text.contains(word), "{proto}: no {word} in {trace:#}");
        }
    }
    labs.on_node("f", "node2", "nft add table inet block && nft add chain inet block f '{ type filter hook forward priority 0; }' && nft add rule inet block f icmp type echo-request drop comment pings");
    let text = labs.expect(1, &["trace", "--name", "f", &pods.near, &pods.far]);
    assert!(text.contains("node2") && text.contains("block"), "{text}");
}

#[test]
fn kubectl_is_at_home() {
    let labs = Labs::new();
    let pods = two_pods(&labs, "host-gw");
    let config = labs.expect(0, &["lab", "kubeconfig", "--name", "f"]);
    let kubectl = |args: &[&str]| {
        let output = std::process::Command::new("kubectl")
            .args(args)
            .env("KUBECONFIG", config.trim())
            .env("HOME", labs.path(""))
            .output()
            .unwrap();
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "kubectl {args:?}: {text}");
        text
    };
    let listed = kubectl(&["get", "pods", "-A", "-o", "wide"]);
    assert!(
        listed.contains(pods.near.split('/').next_back().unwrap()) && listed.contains(&pods.far_ip),
        "{listed}"
    );
    assert!(kubectl(&["get", "nodes"]).contains("node2"));
    let shop = example("shop");
    kubectl(&["apply", "-R", "-f", &shop]);
    let again = kubectl(&["apply", "-R", "-f", &shop]);
    assert!(!again.contains("created"), "{again}");
    labs.expect(0, &["lab", "status", "--name", "f", "--wait"]);
    kubectl(&["delete", "-R", "-f", &shop, "--wait=false", "--ignore-not-found"]);
    eventually(SOON, "the shop's pods are gone", || labs.pods("f").len() == 2);
}
