//! The backend `firewalld` against the real daemon, on a bus and in a namespace of the test's own.
//! Shown as ignored where firewalld is not installed, since its package would take over the packet
//! filter of the machine.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::chain::{Chain, listed};
use common::{Call, Node, path};
use libtest_mimic::{Arguments, Trial};
use serde_json::{Value, json};
use weft_kernel::testing::eventually;

fn main() {
    let needed = ["/usr/sbin/firewalld", "/usr/bin/firewall-cmd", "/usr/bin/dbus-daemon"];
    let missing: Vec<&str> = needed.into_iter().filter(|program| !Path::new(program).exists()).collect();
    if !missing.is_empty() {
        eprintln!("skipped: {} missing", missing.join(", "));
    }
    let trial = Trial::test("firewalld_gets_the_addresses_as_sources_of_its_zone", || {
        firewalld_gets_the_addresses_as_sources_of_its_zone();
        Ok(())
    });
    let trials = vec![trial.with_ignored_flag(!missing.is_empty())];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn none() -> Value {
    json!({})
}

/// A bus and firewalld on it, in the namespace and with files of their own.
struct Daemon {
    children: Vec<Child>,
    folder: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Daemon {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("bus");
        let config = format!(
            "<busconfig><type>custom</type><listen>unix:path={}</listen><policy context=\"default\">\
             <allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/><allow own=\"*\"/>\
             </policy></busconfig>",
            socket.display()
        );
        std::fs::write(folder.path().join("bus.conf"), config).unwrap();
        let mut daemon = Daemon { children: Vec::new(), folder };
        let conf = format!("--config-file={}", daemon.folder.path().join("bus.conf").display());
        daemon.run("dbus-daemon", &["--nofork", &conf]);
        eventually(Duration::from_secs(10), "the bus listens", || socket.exists());
        let configs = daemon.folder.path().join("firewalld");
        std::fs::create_dir(&configs).unwrap();
        let configs = configs.display().to_string();
        daemon.run("/usr/sbin/firewalld", &["--nofork", "--nopid", "--system-config", &configs]);
        daemon
    }

    fn address(&self) -> String {
        format!("unix:path={}", self.folder.path().join("bus").display())
    }

    fn run(&mut self, program: &str, args: &[&str]) {
        let child = Command::new(program)
            .args(args)
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.address())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.children.push(child.unwrap());
    }

    /// The sources of the zone `trusted`, once firewalld answers.
    fn sources(&self) -> Option<String> {
        let output = Command::new("firewall-cmd")
            .args(["--zone=trusted", "--list-sources"])
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.address())
            .output()
            .unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn firewalld_gets_the_addresses_as_sources_of_its_zone() {
    let node = Node::new();
    let daemon = Daemon::start();
    eventually(Duration::from_secs(60), "firewalld answers", || daemon.sources().is_some());
    let pod = node.pod();
    // No backend named: firewalld, since it runs.
    for backend in [json!("firewalld"), Value::Null] {
        let bridge = node.config(&["10.9.0.0/24", "fd00:9::/64"]);
        let chain = Chain::of([bridge, json!({"type": "firewall", "backend": backend})]);
        let made = Chain::of([chain.plugins[0].clone()]).add("c1", &pod, &none()).success();
        let mut config = chain.plugins[1].clone();
        config["name"] = json!("net");
        config["cniVersion"] = json!("1.0.0");
        config["prevResult"] = made.clone();
        let call = |command: &str, config: &Value| {
            let call = Call::new(command, "c1", Some(&path(&pod)), config);
            call.env("DBUS_SYSTEM_BUS_ADDRESS", Some(&daemon.address())).run()
        };
        assert_eq!(call("CHECK", &config).code(), 100);
        call("ADD", &config).success();
        call("ADD", &config).success();
        let host = |at: usize, length: &str| {
            let net = made["ips"][at]["address"].as_str().unwrap();
            format!("{}/{length}", net.split('/').next().unwrap())
        };
        assert_eq!(daemon.sources().unwrap(), format!("{} {}", host(0, "32"), host(1, "128")));
        call("CHECK", &config).success();
        let mut elsewhere = config.clone();
        elsewhere["firewalldZone"] = json!("no-such-zone");
        let refused = call("ADD", &elsewhere);
        assert!(refused.message().contains("no-such-zone"), "{}", refused.json);
        call("DEL", &config).success();
        call("DEL", &config).success();
        assert_eq!(daemon.sources().unwrap(), "");
        assert!(!listed(node.ns.ns()).contains("CNI-FORWARD"));
        Chain::of([chain.plugins[0].clone()]).del("c1", &pod, &none(), &made);
    }
}
