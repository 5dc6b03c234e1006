//! A network segment with DHCP servers, pods on it, and the daemon.

use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use weft_kernel::testing::eventually;
use weft_kernel::{Address, LinkKind, LinkSet, Netlink, Netns, NewLink, Op, sysctl};

use crate::common::{Answer, Call, Node, path};

pub const PATIENCE: Duration = Duration::from_secs(30);

/// A process that ends with its test.
pub struct Process(pub Child);

impl Process {
    /// Starts a program in a namespace; what it says goes to `log`.
    pub fn start(ns: &Netns, program: &str, arguments: &[String], log: &Path) -> Process {
        let file = fs::File::create(log).unwrap();
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        Process(ns.run(|| command.spawn().unwrap()).unwrap())
    }

    pub fn kill(mut self) {
        self.0.kill().ok();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A node whose bridge `lan` is the segment.
pub struct Lan {
    pub node: Node,
    pub folder: tempfile::TempDir,
    servers: Vec<Netns>,
}

impl Lan {
    pub fn new() -> Lan {
        let node = Node::new();
        let mut netlink = Netlink::open().unwrap();
        netlink.apply(&Op::LinkAdd(NewLink { up: true, ..NewLink::new("lan", LinkKind::Bridge) })).unwrap();
        Lan { node, folder: tempfile::tempdir().unwrap(), servers: Vec::new() }
    }

    /// Joins a namespace to the segment by its interface `name`.
    pub fn join(&mut self, ns: &Netns, name: &str) {
        let mut netlink = Netlink::open().unwrap();
        let port = format!("p{}", netlink.links().unwrap().len());
        let master = netlink.link("lan").unwrap().unwrap().index;
        let kind = LinkKind::Veth {
            peer_name: name.to_owned(),
            peer_netns: Some(ns.clone()),
            peer_mac: None,
            peer_mtu: None,
            peer_up: true,
        };
        let pair = NewLink { master: Some(master), up: true, ..NewLink::new(&port, kind) };
        netlink.apply(&Op::LinkAdd(pair)).unwrap();
        eventually(PATIENCE, "the port carries packets", || netlink.link(&port).unwrap().unwrap().running);
    }

    /// A namespace on the segment with these addresses on `s0`.
    pub fn server(&mut self, addresses: &[&str]) -> Netns {
        let ns = Netns::create_unpinned().unwrap();
        ns.run(|| sysctl::set("net.ipv6.conf.default.accept_dad", "0").ok()).unwrap();
        self.join(&ns, "s0");
        give(&ns, "s0", addresses);
        self.servers.push(ns.clone());
        ns
    }

    /// A pod on the segment, with `eth0` that has no address.
    pub fn pod(&mut self) -> Netns {
        let ns = Netns::create_unpinned().unwrap();
        ns.run(|| sysctl::set("net.ipv6.conf.default.accept_dad", "0").ok()).unwrap();
        self.join(&ns, "eth0");
        ns
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    /// dnsmasq in a namespace; its leases are in the file `leases`, its log in `log`.
    pub fn dnsmasq(&self, ns: &Netns, name: &str, more: &[&str]) -> Process {
        let mut arguments: Vec<String> = [
            "-k",
            "--conf-file=/dev/null",
            "--port=0",
            "--interface=s0",
            "--bind-interfaces",
            "--no-ping",
            "--log-dhcp",
            "--user=root",
            "--pid-file=",
            "--log-facility=-",
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.push(format!("--dhcp-leasefile={}", self.file(&format!("{name}.leases")).display()));
        arguments.extend(more.iter().map(|one| (*one).to_owned()));
        let log = self.file(&format!("{name}.log"));
        let process = Process::start(ns, "dnsmasq", &arguments, &log);
        eventually(PATIENCE, "dnsmasq listens", || {
            let listens = |family: &str| {
                ns.run(|| fs::read_to_string(format!("/proc/thread-self/net/{family}"))).unwrap()
            };
            listens("udp").unwrap().contains(":0043 ") || listens("udp6").unwrap().contains(":0223 ")
        });
        process
    }

    /// Our daemon.
    pub fn daemon(&self, more: &[&str]) -> Process {
        self.daemon_of(Path::new(env!("CARGO_BIN_EXE_weft-cni")), &["-datadir", "DATA"], more)
    }

    /// A daemon out of this executable.
    pub fn daemon_of(&self, program: &Path, own: &[&str], more: &[&str]) -> Process {
        let link = self.file("dhcp");
        fs::remove_file(&link).ok();
        symlink(program, &link).unwrap();
        let data = self.file("data").display().to_string();
        let mut arguments =
            vec!["daemon".to_owned(), "-socketpath".into(), self.file("sock").display().to_string()];
        arguments.extend(
            own.iter().chain(more).map(|one| if *one == "DATA" { data.clone() } else { (*one).into() }),
        );
        let process =
            Process::start(self.node.ns.ns(), link.to_str().unwrap(), &arguments, &self.file("daemon.log"));
        eventually(PATIENCE, "the daemon listens", || {
            std::os::unix::net::UnixStream::connect(self.file("sock")).is_ok()
        });
        process
    }

    /// A network configuration with this `ipam`, for the plugin `dhcp` itself.
    pub fn config(&self, ipam: Value) -> Value {
        let mut config = json!({
            "cniVersion": "1.0.0", "name": "net", "type": "dhcp",
            "ipam": {"type": "dhcp", "daemonSocketPath": self.file("sock")},
        });
        if let (Value::Object(all), Value::Object(more)) = (&mut config["ipam"], ipam) {
            all.extend(more);
        }
        config
    }

    pub fn add(&self, id: &str, pod: &Netns, config: &Value) -> Answer {
        self.node.add(id, pod, config)
    }

    pub fn del(&self, id: &str, pod: &Netns, config: &Value) -> Answer {
        self.node.del(id, Some(pod), config)
    }

    /// The files of the daemon's leases.
    pub fn saved(&self) -> usize {
        fs::read_dir(self.file("data")).map_or(0, |dir| {
            dir.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "json"))
                .count()
        })
    }
}

/// Gives addresses to an interface.
pub fn give(ns: &Netns, name: &str, addresses: &[&str]) {
    let mut netlink = Netlink::open_in(ns).unwrap();
    let index = netlink.link(name).unwrap().unwrap().index;
    netlink.apply(&Op::LinkSet(LinkSet { index, up: Some(true), ..LinkSet::default() })).unwrap();
    for address in addresses {
        let address = Address { no_dad: true, ..Address::new(index, address.parse().unwrap()) };
        netlink.apply(&Op::AddrAdd(address)).unwrap();
    }
}

/// The IPv4 addresses of an interface.
pub fn addresses(ns: &Netns, name: &str) -> Vec<String> {
    let mut netlink = Netlink::open_in(ns).unwrap();
    let index = netlink.link(name).unwrap().unwrap().index;
    let all = netlink.addresses().unwrap();
    all.iter().filter(|a| a.ifindex == index && a.net.addr().is_ipv4()).map(|a| a.net.to_string()).collect()
}

/// The address of a result.
pub fn address_of(result: &Value) -> Ipv4Addr {
    let text = result["ips"][0]["address"].as_str().unwrap();
    text.split('/').next().unwrap().parse().unwrap()
}

/// One call of a plugin that is another program.
pub fn call_of(program: &Path, command: &str, id: &str, pod: &Netns, config: &Value) -> Answer {
    let mut call = Call::new(command, id, Some(&path(pod)), config);
    call.program = program.to_owned();
    call.run()
}

/// Writes a file of the test.
pub fn write(path: &Path, text: &str) {
    fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
}
