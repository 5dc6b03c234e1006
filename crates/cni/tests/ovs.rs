//! The `ovs` plugin against Open vSwitch itself: a database server and a switch whose datapath is
//! in its own process, so that no kernel module is needed, in the test's namespace. Where the
//! kernel has Open vSwitch, `WEFT_OVS_DATAPATH=system` is for the kernel's datapath.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{Answer, Call, Node, path, reaches, sh};
use serde_json::{Value, json};
use weft_kernel::testing::eventually;
use weft_kernel::{Netlink, Netns};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const OWNER: &str = "ovs-cni.network.kubevirt.io";

/// Open vSwitch in a namespace, its files in a folder of its own.
struct Ovs {
    netns: Netns,
    folder: tempfile::TempDir,
    running: Vec<Child>,
}

impl Ovs {
    fn new(netns: &Netns, bridge: &str) -> Ovs {
        let mut ovs = Ovs { netns: netns.clone(), folder: tempfile::tempdir().unwrap(), running: Vec::new() };
        let database = ovs.file("conf.db");
        ovs.tool("ovsdb-tool", &["create", database.to_str().unwrap(), SCHEMA]);
        let socket = ovs.file("db.sock");
        let remote = format!("--remote=punix:{}", socket.display());
        ovs.start("ovsdb-server", &[database.to_str().unwrap(), &remote, "--unixctl=none"]);
        eventually(Duration::from_secs(20), "the database listens", || socket.exists());
        ovs.control(&["--no-wait", "init"]);
        let database = format!("unix:{}", socket.display());
        let datapath = std::env::var("WEFT_OVS_DATAPATH").unwrap_or_else(|_| "netdev".into());
        let mut arguments = vec![database.as_str(), "--unixctl=none"];
        arguments.extend((datapath != "system").then_some("--disable-system"));
        ovs.start("ovs-vswitchd", &arguments);
        let datapath = format!("datapath_type={datapath}");
        ovs.control(&["add-br", bridge, "--", "set", "bridge", bridge, &datapath]);
        ovs
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command that touches nothing of the machine's Open vSwitch.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
            command.env(variable, self.folder.path());
        }
        command.args(arguments);
        command
    }

    fn start(&mut self, program: &str, arguments: &[&str]) {
        let mut command = self.command(program, arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = self.netns.run(|| command.spawn()).unwrap();
        self.running.push(child.unwrap_or_else(|error| panic!("{program} (openvswitch-switch): {error}")));
    }

    fn tool(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program, arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn control(&self, arguments: &[&str]) -> String {
        let database = format!("--db=unix:{}", self.file("db.sock").display());
        let mut all = vec![database.as_str(), "--timeout=20"];
        all.extend(arguments);
        self.tool("ovs-vsctl", &all)
    }
}

impl Drop for Ovs {
    fn drop(&mut self) {
        // The switch before the database that it follows.
        for child in self.running.iter_mut().rev() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// A node with Open vSwitch and its bridge `br1`.
struct Switch {
    ovs: Ovs,
    node: Node,
}

impl Switch {
    fn new() -> Switch {
        let node = Node::new();
        Switch { ovs: Ovs::new(node.ns.ns(), "br1"), node }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.ovs.file(name)
    }

    fn socket(&self) -> PathBuf {
        self.file("db.sock")
    }

    fn control(&self, arguments: &[&str]) -> String {
        self.ovs.control(arguments)
    }

    /// The names of all ports of the bridge.
    fn ports(&self) -> Vec<String> {
        self.control(&["list-ports", "br1"]).lines().map(str::to_owned).collect()
    }

    fn config(&self, address: &str, keys: Value) -> Value {
        let mut config = json!({"cniVersion": "1.0.0", "name": "net", "type": "ovs", "bridge": "br1",
                                "socket_file": self.socket()});
        if !address.is_empty() {
            config["ipam"] = json!({"type": "static", "addresses": [{"address": address}]});
        }
        for (key, value) in keys.as_object().unwrap() {
            config[key] = value.clone();
        }
        config
    }

    fn call(&self, command: &str, id: &str, pod: &Netns, config: &Value) -> Answer {
        Call::new(command, id, Some(&path(pod)), config).run()
    }

    /// A container with this address.
    fn pod(&self, id: &str, address: &str, keys: Value) -> Netns {
        let pod = self.node.pod();
        self.call("ADD", id, &pod, &self.config(address, keys)).success();
        pod
    }
}

#[test]
fn containers_of_one_vlan_reach_each_other_and_a_trunk_carries_its_own() {
    let switch = Switch::new();
    let first = switch.pod("c1", "10.9.0.11/24", json!({"vlan": 100}));
    let _second = switch.pod("c2", "10.9.0.12/24", json!({"vlan": 100}));
    let other = switch.pod("c3", "10.9.0.13/24", json!({"vlan": 200}));
    assert!(reaches(&first, "10.9.0.12"));
    assert!(!reaches(&other, "10.9.0.12"));
    // In the container of the trunk another switch gives the packets their tags.
    let trunk = switch.pod("c4", "", json!({"trunk": [{"id": 100}, {"minID": 300, "maxID": 302}]}));
    let inner = Ovs::new(&trunk, "br2");
    inner.control(&["add-port", "br2", "eth0"]);
    inner.control(&[
        "add-port",
        "br2",
        "probe",
        "tag=100",
        "--",
        "set",
        "interface",
        "probe",
        "type=internal",
    ]);
    sh(&trunk, "ip addr add 10.9.0.14/24 dev probe; ip link set probe up");
    eventually(Duration::from_secs(10), "the trunk reaches VLAN 100", || reaches(&trunk, "10.9.0.11"));
    assert!(reaches(&first, "10.9.0.14"));
    inner.control(&["set", "port", "probe", "tag=200"]);
    assert!(!reaches(&trunk, "10.9.0.13"), "VLAN 200 is not in the trunk");
}

#[test]
fn the_rows_of_a_port_say_whose_it_is_and_del_removes_them() {
    let switch = Switch::new();
    let before = switch.node.settled();
    let pod = switch.node.pod();
    let keys =
        json!({"vlan": 7, "mtu": 1400, "ofport_request": 42, "runtimeConfig": {"mac": "0a:00:00:00:00:09"}});
    let mut config = switch.config("10.9.0.11/24", keys);
    let arguments = "IgnoreUnknown=1;OvnPort=port-1;K8S_POD_UID=u-1";
    let call = |command: &str, config: &Value| {
        Call::new(command, "c1", Some(&path(&pod)), config).env("CNI_ARGS", Some(arguments)).run()
    };
    let made = call("ADD", &config).success();
    let host = made["interfaces"][0]["name"].as_str().unwrap();
    assert_eq!(
        made["interfaces"][1],
        json!({"name": "eth0", "mac": "0a:00:00:00:00:09", "sandbox": path(&pod)})
    );
    let get = |table: &str, column: &str| switch.control(&["get", table, host, column]);
    assert_eq!((get("port", "tag"), get("port", "vlan_mode")), ("7".into(), "access".into()));
    assert_eq!((get("interface", "ofport"), get("interface", "mtu")), ("42".into(), "1400".into()));
    assert_eq!(get("interface", "external_ids:iface-id"), "port-1");
    for (mark, value) in [("contIface", "eth0"), ("contPodUid", "u-1"), ("owner", OWNER)] {
        assert_eq!(get("port", &format!("external_ids:{mark}")).trim_matches('"'), value);
    }
    assert_eq!(get("port", "external_ids:contNetns").trim_matches('"'), path(&pod).to_str().unwrap());
    config["prevResult"] = made.clone();
    call("CHECK", &config).success();
    switch.control(&["set", "port", host, "tag=8"]);
    let differs = call("CHECK", &config);
    assert!(differs.code() == 100 && differs.message().contains("VLAN"), "{}", differs.json);
    call("DEL", &config).success();
    assert!(switch.ports().is_empty());
    call("DEL", &config).success();
    assert_eq!(call("CHECK", &config).code(), 100);
    assert_eq!(before.differences(&switch.node.settled()), Vec::<String>::new());
}

#[test]
fn what_the_kubevirt_plugin_made_is_found_by_its_marks() {
    let switch = Switch::new();
    let pod = switch.node.pod();
    let netns = format!("external_ids:contNetns={}", path(&pod).display());
    let marks = ["external_ids:contIface=eth0", "external_ids:owner=other"];
    sh(switch.node.ns.ns(), "ip link add name veth7 type veth peer name peer7");
    switch.control(&["add-port", "br1", "veth7", "--", "set", "port", "veth7", &netns, marks[0], marks[1]]);
    let config = switch.config("", json!({}));
    let elsewhere = switch.node.pod();
    switch.call("DEL", "c1", &elsewhere, &config).success();
    assert_eq!(switch.ports(), ["veth7"]);
    switch.call("DEL", "c1", &pod, &config).success();
    assert!(switch.ports().is_empty());
}

#[test]
fn what_fails_leaves_neither_port_nor_link() {
    let switch = Switch::new();
    let before = switch.node.settled();
    let pod = switch.node.pod();
    let refused = |config: &Value, code: u64, said: &str| {
        let answer = switch.call("ADD", "c1", &pod, config);
        assert!(answer.code() == code && answer.message().contains(said), "{}", answer.json);
        assert!(switch.ports().is_empty());
        assert!(Netlink::open_in(&pod).unwrap().link("eth0").unwrap().is_none());
    };
    refused(&switch.config("10.9.0.11/24", json!({"bridge": "br2"})), 7, "br2");
    refused(&switch.config("10.9.0.11/24", json!({"interface_type": "nonsense"})), 11, "Open vSwitch");
    refused(&switch.config("10.9.0.11/24", json!({"vlan": 5000})), 7, "vlan");
    refused(&switch.config("10.9.0.11/24", json!({"deviceID": "0000:01:00.0"})), 2, "deviceID");
    refused(&switch.config("10.9.0.11/24", json!({"socket_file": switch.file("none")})), 11, "none");
    // The route's next hop cannot be reached, which shows when the port is there already.
    let mut late = switch.config("10.9.0.11/24", json!({}));
    late["ipam"]["routes"] = json!([{"dst": "192.0.2.0/24", "gw": "172.31.0.1"}]);
    refused(&late, 5, "172.31.0.1");
    assert_eq!(before.differences(&switch.node.settled()), Vec::<String>::new());
}

#[test]
fn gc_removes_ports_without_an_attachment_and_status_wants_the_bridge() {
    let switch = Switch::new();
    let _kept = switch.pod("c1", "10.9.0.11/24", json!({}));
    let _left = switch.pod("c2", "10.9.0.12/24", json!({}));
    let mut config = switch.config("10.9.0.11/24", json!({"cniVersion": "1.1.0"}));
    let call = |command: &str, config: &Value| Call::new(command, "", None, config).run();
    call("STATUS", &config).success();
    let before = switch.ports();
    config["cni.dev/valid-attachments"] = json!([{"containerID": "c1", "ifname": "eth0"}]);
    config["name"] = json!("another");
    call("GC", &config).success();
    assert_eq!(switch.ports(), before);
    config["name"] = json!("net");
    call("GC", &config).success();
    let after = switch.ports();
    assert!(after.len() == 1 && before.contains(&after[0]), "{before:?} {after:?}");
    assert_eq!(switch.node.pod_links().iter().map(|link| link.name.clone()).collect::<Vec<_>>(), after);
    config["bridge"] = json!("br2");
    assert_eq!(call("STATUS", &config).code(), 50);
    config["socket_file"] = json!(switch.file("none"));
    assert_eq!(call("STATUS", &config).code(), 50);
}

/// A database that takes what it is asked and answers `answer` to everything.
fn answering(at: &Path, answer: &'static [u8]) -> std::thread::JoinHandle<()> {
    let listener = UnixListener::bind(at).unwrap();
    std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        let mut question = [0; 4096];
        let read = peer.read(&mut question).unwrap();
        assert!(question[..read].starts_with(b"{"));
        // Whoever hung up has seen enough.
        while !answer.is_empty() && peer.write_all(answer).is_ok() {}
    })
}

#[test]
fn a_database_that_answers_without_end_or_hangs_up_is_an_error() {
    let node = Node::new();
    let pod = node.pod();
    for (name, answer, said) in
        // How much of an answer without end arrives in the time it has is the machine's.
        [
            ("endless", b"[[[[[[[[".as_slice(), ["larger", "did not answer"]),
            ("gone", b"", ["closed", "closed"]),
        ]
    {
        let socket = node.data.path().join(name);
        let server = answering(&socket, answer);
        let config = json!({"cniVersion": "1.0.0", "name": "net", "type": "ovs", "bridge": "br1", "socket_file": socket});
        let answer = Call::new("ADD", "c1", Some(&path(&pod)), &config).run();
        assert!(!answer.ok && said.iter().any(|said| answer.message().contains(said)), "{}", answer.json);
        server.join().unwrap();
    }
}
