//! A lab's node that runs flannel: its agent is stopped meanwhile.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::{Labs, eventually, signal};

const SOON: Duration = Duration::from_secs(30);

/// A node of a lab, and flannel on it while it runs.
pub struct FlannelNode<'a> {
    labs: &'a Labs,
    lab: &'a str,
    name: &'a str,
    net_conf: String,
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
        FlannelNode { labs, lab, name, net_conf, flanneld: None }
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

    /// Ends what is ours on the node but the pods and their bridge, and starts flannel.
    pub fn start(&mut self) {
        signal(self.agent_process().expect("the node has an agent"), "STOP");
        let clear = "for link in weft-vxlan weft-vxlan6 weft-udp0; do ip link del $link 2>/dev/null; done; \
                     ip route flush proto 87; ip -6 route flush proto 87; \
                     nft delete table ip weft; nft delete table ip6 weft 2>/dev/null; \
                     six=$(ip -6 -o addr show dev weft0 scope global | awk '{print $4}'); \
                     ip link set weft0 down && ip link set weft0 name cni0 && ip link set cni0 up; \
                     for address in $six; do ip addr add $address dev cni0 nodad; done";
        self.labs.on_node(self.lab, self.name, clear);
        // What flannel's plugin would have left: its configuration and its pods' reservations.
        let cni = self.folder().join("cni");
        std::fs::write(cni.join("net.d/10-flannel.conflist"), "{}").unwrap();
        let _ = std::fs::remove_dir_all(cni.join("networks/cbr0"));
        std::fs::rename(cni.join("networks/weft"), cni.join("networks/cbr0")).unwrap();
        let flanneld =
            std::env::var("WEFT_FLANNEL").expect("WEFT_FLANNEL names what scripts/flannel.sh prints");
        let kubeconfig = format!("--kubeconfig-file={}", self.folder().join("kubeconfig").display());
        let net_conf = format!("--net-config-path={}", self.net_conf);
        let subnet_file = format!("--subnet-file={}", self.subnet_file());
        let target = format!("node/{}", self.name);
        let args =
            ["lab", "exec", "--name", self.lab, &target, "--", &flanneld, "--kube-subnet-mgr", "--ip-masq"];
        let args = [&args[..], &["--iface=eth0", &kubeconfig, &net_conf, &subnet_file]].concat();
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
        let Some(mut flanneld) = self.flanneld.take() else { return };
        let subnet_file = self.subnet_file();
        for pid in self.labs.processes(&["flanneld", &subnet_file]) {
            signal(pid, "TERM");
        }
        flanneld.wait().unwrap();
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

    /// Starts the node's agent anew.
    pub fn agent(&self) {
        let before = self.agent_process().expect("the node has an agent");
        signal(before, "KILL");
        eventually(SOON, "the agent is started again", || {
            self.agent_process().is_some_and(|now| now != before)
        });
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
