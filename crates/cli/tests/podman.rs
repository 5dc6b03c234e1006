//! Hosts without Kubernetes: containers that podman starts on two nodes of a lab are Pods of the
//! API as long as they run. Skipped, visibly, where podman is missing.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking and is one crate"
)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use common::{Labs, eventually};
use libtest_mimic::{Arguments, Trial};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);
/// Ends what a command says; no command says it of itself.
const MARK: &str = "--weft-test-end--";

fn main() {
    let needed = ["/usr/bin/podman", "/usr/bin/conmon", "/usr/bin/crun", "/bin/busybox"];
    let missing: Vec<&str> = needed.into_iter().filter(|path| !Path::new(path).exists()).collect();
    if !missing.is_empty() {
        eprintln!("skipped: {} missing: scripts/install-deps.sh test", missing.join(", "));
    }
    let registered = Trial::test("containers_of_podman_are_pods_of_the_api", || {
        containers_of_podman_are_pods_of_the_api();
        Ok(())
    });
    let swapped = Trial::test("plugins_are_swapped_under_running_containers", || {
        plugins_are_swapped_under_running_containers();
        Ok(())
    });
    let trials = [registered, swapped].map(|trial| trial.with_ignored_flag(!missing.is_empty()));
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit();
}

/// A shell on a node of the lab, in a mount namespace of its own so that nothing of podman stays.
struct Host {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    podman: String,
}

impl Host {
    /// On a node of a lab, with the network that its agent made.
    fn on_node(labs: &Labs, lab: &str, node: &str) -> Host {
        let conf_dir = labs.state(lab).join(format!("node/{node}/cni/net.d"));
        let target = format!("node/{node}");
        let mut command = labs.weft(&["lab", "exec", "--name", lab, &target, "--"]);
        command.args(["unshare", "-m", "--propagation", "private", "sh"]);
        Host::start(command, &labs.path(node), &conf_dir, &labs.state(lab).join("bin"), "weft")
    }

    /// In a network namespace of its own.
    fn alone(dir: &Path, conf_dir: &Path, bin: &Path, network: &str) -> Host {
        let mut command = Command::new("unshare");
        command.args(["-n", "-m", "--propagation", "private", "sh"]);
        Host::start(command, dir, conf_dir, bin, network)
    }

    fn start(mut command: Command, dir: &Path, conf_dir: &Path, bin: &Path, network: &str) -> Host {
        fs::create_dir(dir).unwrap();
        let conf = format!(
            "[network]\nnetwork_backend = \"cni\"\ncni_plugin_dirs = [{bin:?}]\nnetwork_config_dir = {conf_dir:?}\n\
             default_network = {network:?}\n[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n"
        );
        fs::write(dir.join("containers.conf"), conf).unwrap();
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let shown = dir.display();
        let podman = format!(
            "CONTAINERS_CONF={shown}/containers.conf podman --root {shown}/root --runroot {shown}/run \
             --storage-driver vfs --runtime crun"
        );
        let mut host = Host { child, input, output, podman };
        host.done("mount -t tmpfs tmpfs /run && mkdir -p /run/netns && mount -t tmpfs tmpfs /var/lib && mount -t tmpfs tmpfs /sys/fs/cgroup && ip link set lo up");
        host
    }

    /// Runs a line; whether it succeeded, and what it said.
    fn run(&mut self, line: &str) -> (bool, String) {
        writeln!(self.input, "{{ {line}\n}} </dev/null 2>&1; echo \"{MARK} $?\"").unwrap();
        let mut said = String::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the shell ended: {said}");
            match line.split_once(MARK) {
                Some((before, code)) => {
                    said += before;
                    return (code.trim() == "0", said);
                }
                None => said += &line,
            }
        }
    }

    #[track_caller]
    fn done(&mut self, line: &str) -> String {
        let (done, said) = self.run(line);
        assert!(done, "{line}\n{said}");
        said
    }

    #[track_caller]
    fn podman(&mut self, args: &str) -> String {
        let podman = self.podman.clone();
        self.done(&format!("{podman} {args}"))
    }

    /// A container that serves its name on port 80.
    fn serve(&mut self, name: &str, more: &str) {
        self.podman(&format!(
            "run -d --name {name} {more} --cgroups=disabled --log-driver none --ulimit nofile=512:512 --ulimit nproc=512:512 --security-opt seccomp=unconfined \
             localhost/box sh -c 'mkdir -p /www; echo {name} > /www/index.html; exec httpd -f -p 80 -h /www'"
        ));
    }

    fn stop(&mut self, name: &str) {
        self.podman(&format!("rm -f -t 0 {name}"));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let podman = self.podman.clone();
        if !std::thread::panicking() {
            self.run(&format!("{podman} rm -f -t 0 -a"));
        } else {
            writeln!(self.input, "{podman} rm -f -t 0 -a >/dev/null 2>&1; exit").ok();
        }
        writeln!(self.input, "exit").ok();
        self.child.wait().ok();
    }
}

/// An image as a tar, made of a static busybox alone.
fn image(labs: &Labs) -> String {
    let root = labs.path("rootfs");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in ["sh", "httpd", "wget", "mkdir", "echo", "ip"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    let tar = labs.path("box.tar");
    let made = Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg(".").status().unwrap();
    assert!(made.success());
    tar.to_str().unwrap().to_owned()
}

fn containers_of_podman_are_pods_of_the_api() {
    let labs = Labs::new();
    labs.expect(0, &["lab", "up", "--name", "c", "--nodes", "2"]);
    let config = labs.expect(0, &["lab", "kubeconfig", "--name", "c"]).trim().to_owned();
    let kubectl = |args: &[&str]| {
        let output =
            Command::new("kubectl").args(args).env("KUBECONFIG", &config).env("HOME", labs.path("")).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "kubectl {args:?}: {said}");
        said
    };
    let pods = || -> Vec<Value> {
        let list: Value = serde_json::from_str(&kubectl(&["get", "pods", "-o", "json"])).unwrap();
        list["items"].as_array().unwrap().clone()
    };
    let service = labs.file(
        "service.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  selector: {app.kubernetes.io/name: web}\n  ports: [{port: 80}]\n",
    );
    kubectl(&["apply", "-f", &service]);
    let tar = image(&labs);
    let mut hosts = ["node1", "node2"].map(|node| Host::on_node(&labs, "c", node));
    for (number, host) in hosts.iter_mut().enumerate() {
        host.podman(&format!("import -q {tar} localhost/box"));
        host.serve(&format!("web_{}", number + 1), "--network weft -p 8090:80");
    }

    eventually(SOON, "both containers are pods", || pods().len() == 2 && pods().iter().all(is_ready));
    let found = pods();
    let address = |name: &str| {
        let pod =
            found.iter().find(|pod| pod["metadata"]["name"] == name).unwrap_or_else(|| panic!("{found:?}"));
        pod["status"]["podIP"].as_str().unwrap().to_owned()
    };
    let addresses = [address("web-1"), address("web-2")];
    for (pod, node) in [("web-1", "node1"), ("web-2", "node2")] {
        let pod = found.iter().find(|found| found["metadata"]["name"] == pod).unwrap();
        assert_eq!(pod["spec"]["nodeName"], node);
        assert_eq!(pod["metadata"]["labels"]["app.kubernetes.io/name"], "web");
    }
    let shown = kubectl(&["get", "pods", "-o", "wide", "--show-labels"]);
    assert!(shown.contains("1/1") && shown.contains("app.kubernetes.io/instance=web-1"), "{shown}");

    // From each container to the other, across nodes.
    for (host, (own, (other, ip))) in
        hosts.iter_mut().zip([("web_1", ("web_2", &addresses[1])), ("web_2", ("web_1", &addresses[0]))])
    {
        let netns = host.podman(&format!("inspect -f '{{{{.NetworkSettings.SandboxKey}}}}' {own}"));
        let line = format!("nsenter --net={} timeout 5 busybox wget -q -O - http://{ip}/", netns.trim());
        eventually(SOON, "the other container answers", || host.run(&line).1.trim() == other);
    }

    let internal = "jsonpath={.status.addresses[?(@.type==\"InternalIP\")].address}";
    for (node, other, name) in [("node1", "node2", "web_1"), ("node2", "node1", "web_2")] {
        let ip = kubectl(&["get", "node", node, "-o", internal]);
        let line = format!("timeout 5 busybox wget -q -O - http://{ip}:8090/ || true");
        let answers = || labs.on_node("c", other, &line).trim() == name;
        eventually(SOON, "the published port answers on the other node", answers);
    }

    let endpoints = || {
        let args = ["get", "endpointslices", "-l", "kubernetes.io/service-name=web", "-o"];
        let path = "jsonpath={range .items[*].endpoints[*]}{.addresses[0]} {.conditions.ready}{\"\\n\"}{end}";
        let mut lines: Vec<String> =
            kubectl(&[&args[..], &[path]].concat()).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let mut expected = addresses.clone().map(|ip| format!("{ip} true")).to_vec();
    expected.sort();
    eventually(SOON, "the Service lists both", || endpoints() == expected);

    // What somebody deletes while its container runs comes back.
    kubectl(&["delete", "pod", "web-1", "--wait=false"]);
    eventually(SOON, "the pod is back", || pods().len() == 2 && pods().iter().all(is_ready));

    hosts[0].stop("web_1");
    eventually(SOON, "the first pod is gone", || pods().len() == 1);
    eventually(SOON, "and is no endpoint", || endpoints() == [format!("{} true", addresses[1])]);
    hosts[1].stop("web_2");
    eventually(SOON, "no pod is left", || pods().is_empty());
    for node in ["node1", "node2"] {
        let left = labs.on_node("c", node, "ip -br link");
        assert!(!left.lines().any(|line| line.starts_with("wf")), "{left}");
        let rules = labs.on_node("c", node, "nft list ruleset");
        assert!(!rules.contains("8090"), "{rules}");
        let state = labs.state("c").join("node").join(node);
        let named = |dir: &str| fs::read_dir(state.join(dir)).into_iter().flatten().flatten();
        assert_eq!(named("agent/attachments").count(), 0, "records are left on {node}");
        let allocated = named("cni/networks/weft").filter(|entry| {
            entry.file_name().to_str().is_some_and(|name| name.parse::<std::net::IpAddr>().is_ok())
        });
        assert_eq!(allocated.count(), 0, "addresses are left on {node}");
    }
    drop(hosts);
    labs.expect(0, &["lab", "down", "--name", "c"]);
    assert!(labs.processes(&[]).is_empty(), "processes left behind");
}

/// Debian's build of the reference plugins, and ours put in their place and taken out again while
/// containers run: each is stopped by the other's.
fn plugins_are_swapped_under_running_containers() {
    let labs = Labs::new();
    let (bin, conf_dir) = (labs.path("bin"), labs.path("net.d"));
    for dir in [&bin, &conf_dir] {
        fs::create_dir(dir).unwrap();
    }
    for plugin in ["bridge", "host-local", "portmap", "firewall", "loopback"] {
        fs::copy(Path::new("/usr/lib/cni").join(plugin), bin.join(plugin)).unwrap();
    }
    let data = labs.path("networks");
    let list = serde_json::json!({"cniVersion": "0.4.0", "name": "box", "plugins": [
        {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
         "ipam": {"type": "host-local", "dataDir": data, "ranges": [[{"subnet": "10.88.0.0/24"}]],
                  "routes": [{"dst": "0.0.0.0/0"}]}},
        {"type": "portmap", "capabilities": {"portMappings": true}},
        {"type": "firewall"},
    ]});
    let list_file = conf_dir.join("10-box.conflist");
    fs::write(&list_file, list.to_string()).unwrap();
    labs.expect(0, &["cni", "validate", list_file.to_str().unwrap()]);
    let tar = image(&labs);
    let mut host = Host::alone(&labs.path("host"), &conf_dir, &bin, "box");
    host.done(
        "ip link add outside type bridge && ip addr add 10.50.0.1/24 dev outside && ip link set outside up",
    );
    host.podman(&format!("import -q {tar} localhost/box"));
    let clean = host
        .done("iptables-save | grep -c -e 10.88.0 || true; nft list ruleset 2>/dev/null | grep -c -e 10.88.0 || true");
    let reach = |host: &mut Host, port: u16, name: &str| {
        let line = format!("timeout 5 busybox wget -q -O - http://10.50.0.1:{port}/");
        eventually(SOON, "the published port answers", || host.run(&line).1.trim() == name);
    };
    let left = |host: &mut Host| {
        let links = host.done("ip -br link");
        assert!(!links.contains("veth") && !links.contains("wf"), "{links}");
        let rules = host.done(
            "iptables-save | grep -c -e 10.88.0 || true; nft list ruleset 2>/dev/null | grep -c -e 10.88.0 || true",
        );
        assert_eq!(rules, clean, "{}", host.done("nft list ruleset"));
        let names = fs::read_dir(data.join("box")).unwrap().flatten().map(|entry| entry.file_name());
        let addresses =
            names.filter(|name| name.to_str().is_some_and(|n| n.parse::<std::net::IpAddr>().is_ok()));
        assert_eq!(addresses.count(), 0, "addresses are left");
    };

    host.serve("first", "--network box -p 8081:80");
    reach(&mut host, 8081, "first");
    let said = labs.expect(0, &["cni", "install", bin.to_str().unwrap()]);
    assert!(said.contains("bridge") && said.contains("--remove"), "{said}");
    reach(&mut host, 8081, "first");
    host.serve("second", "--network box -p 8082:80");
    reach(&mut host, 8082, "second");
    host.stop("first");
    reach(&mut host, 8082, "second");
    host.serve("third", "--network box -p 8083:80");
    reach(&mut host, 8083, "third");
    host.stop("second");
    labs.expect(0, &["cni", "install", bin.to_str().unwrap(), "--remove"]);
    host.stop("third");
    left(&mut host);
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    pod["metadata"]["deletionTimestamp"].is_null()
        && conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}
