//! A lab's node that runs flannel: its agent changes nothing meanwhile.

mod store;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::{Labs, eventually, signal};

pub use store::Store;

const SOON: Duration = Duration::from_secs(30);

/// A node of a lab, and flannel on it while it runs.
pub struct FlannelNode<'a> {
    labs: &'a Labs,
    lab: &'a str,
    name: &'a str,
    /// By which flannel finds its configuration and the other hosts.
    mode: Vec<String>,
    /// By which it finds its address.
    link: String,
    flanneld: Option<Child>,
}

/// Runs kubectl against a lab; its standard output.
pub fn kubectl(labs: &Labs, lab: &str, args: &[&str]) -> String {
    let config = labs.expect(0, &["lab", "kubeconfig", "--name", lab]);
    let mut command = Command::new("/usr/bin/kubectl");
    command.args(args).env("KUBECONFIG", config.trim()).env("HOME", labs.path(""));
    let output = command.output().expect("kubectl is at /usr/bin/kubectl (Debian: kubernetes-client)");
    assert!(output.status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl<'a> FlannelNode<'a> {
    /// The node, with flannel's configuration.
    pub fn of(labs: &'a Labs, lab: &'a str, name: &'a str, config: &str) -> FlannelNode<'a> {
        let net_conf = labs.file("net-conf.json", config);
        // Flannel 0.28 panics on a node without any annotation; every kubelet writes this one.
        let kubelet = "volumes.kubernetes.io/controller-managed-attach-detach=true";
        kubectl(labs, lab, &["annotate", "node", name, kubelet]);
        let kubeconfig = labs.state(lab).join("node").join(name).join("kubeconfig");
        let mode = vec![
            "--kube-subnet-mgr".to_owned(),
            format!("--kubeconfig-file={}", kubeconfig.display()),
            format!("--net-config-path={net_conf}"),
        ];
        FlannelNode { labs, lab, name, mode, link: "--iface=eth0".into(), flanneld: None }
    }

    /// The node, for flannel without Kubernetes.
    pub fn with_store(labs: &'a Labs, lab: &'a str, name: &'a str, store: &Store) -> FlannelNode<'a> {
        let mode =
            vec![format!("--etcd-endpoints={}", store.socket()), format!("--etcd-prefix={}", Store::PREFIX)];
        FlannelNode { labs, lab, name, mode, link: "--iface=eth0".into(), flanneld: None }
    }

    /// The node as another host: flannel there is reached at an address that no Node object has.
    pub fn with_address(mut self, address: &str) -> Self {
        self.labs.on_node(self.lab, self.name, &format!("ip addr add {address}/32 dev eth0"));
        self.link = format!("--iface={address}");
        self
    }

    fn folder(&self) -> PathBuf {
        self.labs.state(self.lab).join("node").join(self.name)
    }

    fn subnet_file(&self) -> String {
        self.folder().join("flannel-subnet.env").display().to_string()
    }

    /// The process of the node's agent.
    fn agent_process(&self) -> Option<i32> {
        let found = self.labs.processes(&["agent", &format!("--node-name {} ", self.name)]);
        found.first().copied()
    }

    /// Ends what is ours on the node but the pods and their bridge, and starts flannel. The node's
    /// agent is started anew, and leaves a host alone that has flannel's configuration.
    pub fn start(&mut self) {
        let cni = self.folder().join("cni");
        std::fs::write(cni.join("net.d/10-flannel.conflist"), "{}").unwrap();
        let agent = self.agent_process().expect("the node has an agent");
        signal(agent, "KILL");
        eventually(SOON, "the agent leaves the host alone", || {
            let started_anew = self.agent_process().is_some_and(|now| now != agent);
            started_anew && self.errors().contains("10-flannel.conflist")
        });
        let clear = "for link in weft-vxlan weft-vxlan6 weft-udp0; do ip link del $link 2>/dev/null; done; \
                     ip route flush proto 87; ip -6 route flush proto 87; ip nexthop flush protocol 87; \
                     nft delete table ip weft; nft delete table ip6 weft 2>/dev/null; \
                     six=$(ip -6 -o addr show dev weft0 scope global | awk '{print $4}'); \
                     ip link set weft0 down && ip link set weft0 name cni0 && ip link set cni0 up; \
                     for address in $six; do ip addr add $address dev cni0 nodad; done";
        self.labs.on_node(self.lab, self.name, clear);
        // What flannel's plugin would have left of its pods.
        let _ = std::fs::remove_dir_all(cni.join("networks/cbr0"));
        std::fs::rename(cni.join("networks/weft"), cni.join("networks/cbr0")).unwrap();
        let flanneld =
            std::env::var("WEFT_FLANNEL").expect("WEFT_FLANNEL names what scripts/flannel.sh prints");
        let subnet_file = format!("--subnet-file={}", self.subnet_file());
        let target = format!("node/{}", self.name);
        let args = ["lab", "exec", "--name", self.lab, &target, "--", &flanneld, &self.link, "--ip-masq"];
        let mode: Vec<&str> = self.mode.iter().map(String::as_str).collect();
        let args = [&args[..], &mode, &[&subnet_file]].concat();
        let log = std::fs::File::create(self.folder().join("flanneld.log")).unwrap();
        let mut command = self.labs.weft(&args);
        command.env("NODE_NAME", self.name).stdout(Stdio::null()).stderr(log);
        self.flanneld = Some(command.spawn().unwrap());
        eventually(SOON, "flannel is ready", || self.log().contains("flannel is ready"));
    }

    /// What flannel has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder().join("flanneld.log")).unwrap_or_default()
    }

    /// Ends flannel.
    pub fn end(&mut self) {
        self.end_by("TERM");
    }

    /// Ends flannel by this signal.
    pub fn end_by(&mut self, name: &str) {
        let Some(mut flanneld) = self.flanneld.take() else { return };
        let subnet_file = self.subnet_file();
        for pid in self.labs.processes(&["flanneld", &subnet_file]) {
            signal(pid, name);
        }
        flanneld.wait().unwrap();
        // That was the command that entered the node; flannel takes its time, most of all with udp.
        let gone = || self.labs.processes(&["flanneld", &subnet_file]).is_empty();
        if !std::thread::panicking() {
            eventually(SOON, "flannel has ended", gone);
        }
    }

    /// `weft network adopt-flannel` on the node.
    pub fn adopt(&self) {
        let cni = self.folder().join("cni");
        let weft = crate::common::built("weft").display().to_string();
        let line = format!(
            "{weft} network adopt-flannel --cni-conf-dir {0}/net.d --cni-data-dir {0}/networks --subnet-file {1}",
            cni.display(),
            self.subnet_file()
        );
        let before = self.reservations("cbr0");
        assert!(before.iter().any(|name| name.starts_with("10.244.")), "{before:?}");
        // Not even looked at yet: the agent would do nothing, and says so.
        let told = self.labs.on_node(self.lab, self.name, &format!("{line} --dry-run"));
        assert!(told.contains("would rename the bridge cni0"), "{told}");
        assert_eq!(self.reservations("cbr0"), before);
        let told = self.labs.on_node(self.lab, self.name, &line);
        assert!(told.contains("10-flannel.conflist"), "{told}");
        assert!(
            before.iter().all(|name| self.reservations("weft").contains(name)),
            "pods keep their addresses"
        );
        let again = self.labs.on_node(self.lab, self.name, &line);
        assert!(again.contains("nothing of flannel"), "{again}");
    }

    /// The addresses that the network `network` has given on the node.
    fn reservations(&self, network: &str) -> Vec<String> {
        let folder = std::fs::read_dir(self.folder().join("cni/networks").join(network));
        let names =
            folder.into_iter().flatten().flatten().map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect()
    }

    /// What the node's agent says is wrong.
    pub fn errors(&self) -> String {
        let status = std::fs::read_to_string(self.folder().join("agent/status.json")).unwrap_or_default();
        let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
        status["errors"].to_string()
    }
}

impl Drop for FlannelNode<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("flannel on {}:\n{}", self.name, self.log());
        }
        self.end();
    }
}
