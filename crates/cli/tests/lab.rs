//! The lab end to end: brought up, checked, abused and removed, with root and without.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking and is one crate"
)]

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Labs, eventually, example, machine_dump, signal};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_lab_leaves_the_machine_as_it_was() {
    let before = machine_dump();
    let labs = Labs::new();
    labs.expect(0, &["lab", "up", "--name", "a", "--nodes", "2", "-f", &example("two-pods.yaml")]);
    assert_eq!(before, machine_dump(), "while the lab is up");
    labs.expect(0, &["lab", "down", "--name", "a"]);
    assert_eq!(before, machine_dump(), "after the lab went down");
    assert!(labs.processes(&[]).is_empty(), "processes left behind");
    assert!(!labs.state("a").exists(), "the state folder is left behind");
}

#[test]
fn an_ordinary_user_has_a_whole_lab() {
    let before = machine_dump();
    let labs = Labs::unprivileged();
    let manifest = labs.file("two-pods.yaml", &fs::read_to_string(example("two-pods.yaml")).unwrap());
    labs.expect(0, &["lab", "up", "--name", "u", "--nodes", "2", "-f", &manifest]);
    labs.expect(0, &["lab", "check", "--name", "u"]);
    assert!(labs.on_node("u", "node1", "ip -br link").contains("weft0"));
    labs.expect(0, &["trace", "--name", "u", "node/node1", "node/node2"]);
    labs.expect(0, &["lab", "down", "--name", "u"]);
    assert_eq!(before, machine_dump());
    assert!(labs.processes(&[]).is_empty(), "processes left behind");
}

#[test]
fn an_agent_is_its_own_node_to_the_api_and_no_other() {
    let labs = Labs::new();
    labs.expect(0, &["lab", "up", "--name", "i", "--nodes", "2", "-f", &example("two-pods.yaml")]);
    labs.expect(0, &["lab", "check", "--name", "i"]);
    let read = |path: &std::path::Path| -> serde_json::Value {
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    };
    let admin = labs.expect(0, &["lab", "kubeconfig", "--name", "i"]);
    let own = labs.state("i").join("node/node1/kubeconfig");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(&own).unwrap().permissions().mode() & 0o777, 0o600);
    let mut config = read(&own);
    config["clusters"] = read(admin.trim().as_ref())["clusters"].clone();
    let config = labs.file("node1.kubeconfig", &config.to_string());
    let kubectl = |args: &[&str]| {
        let mut command = Command::new("kubectl");
        let output =
            command.args(args).env("KUBECONFIG", &config).env("HOME", labs.path("")).output().unwrap();
        let said = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
        (output.status.success(), said)
    };
    let patch = r#"{"status": {"conditions": [{"type": "Probe", "status": "True"}]}}"#;
    let status = |node: &str| kubectl(&["patch", "node", node, "--subresource=status", "-p", patch]);
    let (done, said) = status("node1");
    assert!(done, "{said}");
    let (done, said) = status("node2");
    assert!(!done && said.contains(r#"node "node1" is not allowed to modify node "node2""#), "{said}");
    assert!(kubectl(&["auth", "whoami"]).1.contains("system:node:node1"));
    assert!(kubectl(&["get", "pods,services,nodes,endpointslices,networkpolicies", "-A"]).0);
    assert!(!kubectl(&["get", "secrets", "-A"]).0);
    // The agents have written their nodes' conditions with nothing but these identities.
    for node in ["node1", "node2"] {
        let condition = r#"-o=jsonpath={.status.conditions[?(@.type=="NetworkUnavailable")].status}"#;
        assert_eq!(kubectl(&["get", "node", node, condition]), (true, "False".into()), "{node}");
    }
    labs.expect(0, &["lab", "down", "--name", "i"]);
}

#[test]
fn host_gw_refuses_a_peer_on_another_segment_and_the_check_says_why() {
    let labs = Labs::new();
    let pods = example("two-pods.yaml");
    labs.expect(
        1,
        &[
            "lab",
            "up",
            "--name",
            "r",
            "--nodes",
            "2",
            "--topology",
            "racks=2",
            "--backend",
            "host-gw",
            "-f",
            &pods,
        ],
    );
    let found = labs.expect(1, &["lab", "check", "--name", "r"]);
    assert!(found.contains("segment"), "{found}");
    let status = labs.expect(0, &["lab", "status", "--name", "r"]);
    assert!(status.contains("segment"), "{status}");
    assert!(!labs.on_node("r", "node1", "ip route").contains("10.244.1.0/24"), "a refused peer has no route");
}

#[test]
fn wrong_input_ends_in_one_clear_line_and_leaves_nothing() {
    let labs = Labs::new();
    let bad_yaml = labs.file("bad.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: a\n");
    let bad_name = labs.file(
        "name.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: Not_A_Label}\nspec: {containers: [{name: c, image: i}]}\n",
    );
    let unknown = labs.file(
        "unknown.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {hostNetwrok: true, containers: [{name: c, image: i}]}\n",
    );
    let huge = labs.file("huge.yaml", &format!("a: {}\n", "x".repeat(17 << 20)));
    for (code, args, word) in [
        (2, vec!["--nodes", "0"], "nodes"),
        (2, vec!["--nodes", "101"], "nodes"),
        (2, vec!["--topology", "ring"], "topology"),
        (2, vec!["--backend", "carrier-pigeon"], "backend"),
        (2, vec!["--pod-cidr", "10.168.0.0/16"], "overlap"),
        (2, vec!["--pod-cidr", "10.244.0.1/16"], "host bits"),
        (2, vec!["--pod-cidr", "10.244.0.0/25", "--nodes", "3"], "small"),
        (2, vec!["--hop-mtu", "1400"], "racks"),
        (2, vec!["--underlay-mtu", "500"], "MTU"),
        (2, vec!["--name", "No_Label"], "name"),
        (2, vec!["-f", "/nonexistent.yaml"], "/nonexistent.yaml"),
        (2, vec!["-f", &bad_yaml], "bad.yaml"),
        (2, vec!["-f", &unknown], "spec.hostNetwrok"),
        (2, vec!["-f", &bad_name], "Not_A_Label"),
        (2, vec!["-f", &huge], "huge.yaml"),
    ] {
        let mut up = vec!["lab", "up"];
        up.extend(&args);
        let text = labs.expect(code, &up);
        assert!(text.to_lowercase().contains(&word.to_lowercase()), "{args:?}: {text}");
        assert!(labs.processes(&[]).is_empty(), "{args:?} left processes");
    }
    let text = labs.expect(3, &["lab", "status", "--name", "nowhere"]);
    assert!(text.contains("nowhere"), "{text}");
}

#[test]
fn a_lab_is_brought_up_once_and_a_killed_one_is_cleared_away() {
    let labs = Labs::new();
    let up = ["lab", "up", "--name", "once", "--nodes", "1"];
    labs.expect(0, &up);
    let text = labs.expect(3, &up);
    assert!(text.contains("already up"), "{text}");

    let state: serde_json::Value =
        serde_json::from_slice(&fs::read(labs.state("once").join("lab.json")).unwrap()).unwrap();
    signal(state["process"]["pid"].as_i64().unwrap() as i32, "KILL");
    eventually(SOON, "all processes of the lab end with it", || labs.processes(&[]).is_empty());
    // The kernel may still be ending the first of them, which is seen until it is gone.
    let told = || labs.expect(3, &["lab", "status", "--name", "once"]).contains("lab once is not running");
    eventually(SOON, "the status says that the lab is not running", told);
    labs.expect(0, &up);
    labs.expect(0, &["lab", "down", "--name", "once"]);
    labs.expect(0, &["lab", "down", "--name", "once"]);
}

#[test]
fn down_in_the_middle_of_up_leaves_nothing() {
    let labs = Labs::new();
    for stage in ["underlay", "node", "apiserver"] {
        let mut up = labs.weft(&["lab", "up", "--name", "m", "--nodes", "20", "-f", &example("shop")]);
        let mut up = up.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let reached = || match stage {
            "apiserver" => !labs.processes(&["apiserver"]).is_empty(),
            "node" => labs.state("m").join("netns/node-node1").exists(),
            _ => labs.state("m").join("lab.json").exists(),
        };
        eventually(SOON, stage, reached);
        labs.expect(0, &["lab", "down", "--name", "m"]);
        assert_ne!(up.wait().unwrap().code(), Some(0), "up cannot have succeeded");
        eventually(SOON, "nothing left", || labs.processes(&[]).is_empty() && !labs.state("m").exists());
    }
}

#[test]
fn a_command_in_a_lab_ends_with_who_asked_for_it_and_so_does_what_it_started() {
    let labs = Labs::new();
    labs.expect(0, &["lab", "up", "--name", "x", "--nodes", "1"]);
    let exec = ["lab", "exec", "--name", "x", "node/node1", "--", "sh", "-c"];
    let run = |line: &str| labs.run(&[&exec[..], &[line]].concat()).status.code();
    assert_eq!((run("exit 3"), run("kill -9 $$")), (Some(3), Some(137)));
    // Times that no other sleeps for; one has a session of its own.
    let mark = format!("sleep 8286{}", std::process::id());
    let left = || {
        let found = Command::new("pgrep").args(["-f", &mark]).output().unwrap();
        String::from_utf8_lossy(&found.stdout).lines().count()
    };
    for name in ["KILL", "TERM", "HUP"] {
        let line = format!("trap '' HUP; setsid {mark}1 & {mark}2 & echo started; wait");
        let mut command = labs.weft(&[&exec[..], &[&line]].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "started\n");
        assert!(left() > 2);
        signal(i32::try_from(child.id()).unwrap(), name);
        assert_eq!(child.wait().unwrap().code(), None, "{name}");
        eventually(SOON, "nothing of it is left", || left() == 0);
    }
    // What a command that has ended left behind goes on.
    let mark = format!("{mark}3");
    run(&format!("setsid {mark} >/dev/null 2>&1 &"));
    let found = Command::new("pgrep").args(["-f", &format!("^{mark}")]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout).lines().count(), 1);
}
