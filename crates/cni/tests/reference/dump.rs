//! What a node's kernel and files hold, as the usual tools tell it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use weft_kernel::Netns;

use crate::tell::Teller;

/// Everything of a node.
#[derive(Debug, Clone)]
pub struct Node {
    /// Links that were there before the first call.
    pub prepared: BTreeSet<String>,
    pub host: Namespace,
    pub pods: BTreeMap<String, Namespace>,
    /// Files of plugins by their paths.
    pub files: BTreeMap<String, String>,
}

/// Everything of a namespace, as it was told.
#[derive(Debug, Clone, Default)]
pub struct Namespace {
    pub links: Value,
    pub routes: Value,
    pub rules: [Value; 2],
    pub neighbours: Value,
    pub proxies: Value,
    pub vlans: Value,
    pub qdiscs: Value,
    /// What `tc filter show` was asked and what it told.
    pub filters: Vec<(String, Value)>,
    pub nft: Value,
    /// `iptables-save` and `ip6tables-save`.
    pub iptables: [String; 2],
    pub sysctls: BTreeMap<String, String>,
}

/// What `ip` is asked.
const QUESTIONS: [&str; 5] =
    ["addr show", "route show table all", "rule show", "neigh show nud permanent", "neigh show proxy"];
/// What of a node other programs tell, each by one JSON text. No plugin makes a bridge, queues or
/// rules of a firewall in a pod.
const NODE_SCRIPT: &str = "tc -j qdisc
    nft -j list ruleset";
const BRIDGE_SCRIPT: &str = "bridge -j vlan";

/// Folders in which the plugins keep what they know.
const FOLDERS: [&str; 3] = ["/var/lib/cni", "/run/cni", "/run/data"];
/// Sysctls that plugins, or cases of `tuning`, set.
const SYSCTLS: [&str; 2] = ["ipv4/ip_forward", "core/somaxconn"];
/// The same of links, of each family.
const LINK_SYSCTLS: [(&str, &[&str]); 2] = [
    (
        "ipv4/conf",
        &[
            "forwarding",
            "arp_notify",
            "arp_ignore",
            "arp_filter",
            "proxy_arp",
            "rp_filter",
            "route_localnet",
            "log_martians",
        ],
    ),
    (
        "ipv6/conf",
        &[
            "forwarding",
            "accept_ra",
            "accept_dad",
            "enhanced_dad",
            "disable_ipv6",
            "keep_addr_on_down",
            "ndisc_notify",
            "proxy_ndp",
            "addr_gen_mode",
            "mtu",
        ],
    ),
];
/// Queues that come by themselves and have no filters.
const PLAIN: [&str; 5] = ["noqueue", "noop", "mq", "pfifo_fast", "fq_codel"];
/// Tables that `iptables-save` shows better than `nft`.
pub const IPTABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];

/// Looks at a namespace.
pub struct Eye {
    ns: Netns,
    ip: Teller,
    /// The same for what is of IPv6 only if it is asked so.
    ip6: Teller,
}

impl Eye {
    /// Looks at this one from now on.
    pub fn on(ns: &Netns) -> Result<Eye, String> {
        Ok(Eye { ns: ns.clone(), ip: Teller::start(ns, &[])?, ip6: Teller::start(ns, &["-6"])? })
    }

    fn look(&mut self, node: bool) -> Result<Namespace, String> {
        let told = self.ip.ask(QUESTIONS)?;
        let [rules6] = self.ip6.ask(["rule show"])?;
        self.ns.run(|| Namespace::take(told, rules6, node)).map_err(|e| e.to_string())?
    }
}

impl Node {
    /// Reads all of it. The calling thread is on the node.
    pub fn take(
        host: &mut Eye,
        pods: &mut BTreeMap<String, Eye>,
        prepared: BTreeSet<String>,
    ) -> Result<Node, String> {
        let mut files = BTreeMap::new();
        FOLDERS.iter().for_each(|folder| read_files(Path::new(folder), &mut files));
        let pods = pods.iter_mut().map(|(name, pod)| Ok((name.clone(), pod.look(false)?)));
        Ok(Node { prepared, host: host.look(true)?, pods: pods.collect::<Result<_, String>>()?, files })
    }
}

impl Namespace {
    fn take(told: [Value; 5], rules6: Value, node: bool) -> Result<Namespace, String> {
        let [links, routes, rules4, neighbours, proxies] = told;
        let (mut qdiscs, mut vlans, mut nft) = (Value::Null, Value::Null, Value::Null);
        if node {
            let bridge =
                links.as_array().into_iter().flatten().any(|l| l["linkinfo"]["info_kind"] == "bridge");
            let script = if bridge { BRIDGE_SCRIPT } else { "echo null" };
            let text = run("sh", &["-c", &format!("{script}\n{NODE_SCRIPT}")], "")?;
            let values: Vec<Value> = serde_json::Deserializer::from_str(&text)
                .into_iter()
                .collect::<Result<_, _>>()
                .map_err(|e| format!("{e}: {text}"))?;
            [vlans, qdiscs, nft] = values.try_into().map_err(|_| format!("a part is missing: {text}"))?;
        }
        let mut taken = Namespace {
            links,
            routes,
            rules: [rules4, rules6],
            neighbours,
            proxies,
            vlans,
            filters: filters(&qdiscs)?,
            qdiscs,
            nft,
            ..Namespace::default()
        };
        let tables = taken.nft["nftables"].as_array().into_iter().flatten().filter_map(|o| o.get("table"));
        let legacy = |t: &Value| {
            ["ip", "ip6"].iter().any(|f| t["family"] == *f) && IPTABLES.iter().any(|n| t["name"] == *n)
        };
        if tables.clone().any(legacy) {
            taken.iptables = [run("iptables-save", &[], "")?, run("ip6tables-save", &[], "")?];
        }
        read_sysctls(&mut taken.sysctls);
        Ok(taken)
    }
}

fn filters(qdiscs: &Value) -> Result<Vec<(String, Value)>, String> {
    let mut asked = Vec::new();
    for qdisc in qdiscs.as_array().into_iter().flatten() {
        let (kind, dev) =
            (qdisc["kind"].as_str().unwrap_or_default(), qdisc["dev"].as_str().unwrap_or_default());
        match kind {
            _ if PLAIN.contains(&kind) => {}
            "ingress" => asked.push(format!("filter show dev {dev} ingress")),
            "clsact" => asked.extend(["ingress", "egress"].map(|at| format!("filter show dev {dev} {at}"))),
            _ => asked.push(format!("filter show dev {dev}")),
        }
    }
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let text = run("tc", &["-d", "-j", "-force", "-batch", "-"], &asked.join("\n"))?;
    let told: Vec<Value> = serde_json::Deserializer::from_str(&text)
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(|e| format!("{e}: {text}"))?;
    if told.len() != asked.len() {
        return Err(format!("{asked:?}: {text}"));
    }
    // Classes are told as text only.
    let devices: BTreeSet<&str> = asked.iter().filter_map(|one| one.split(' ').nth(3)).collect();
    let questions: Vec<String> = devices.iter().map(|dev| format!("class show dev {dev}")).collect();
    let classes = run("tc", &["-d", "-force", "-batch", "-"], &questions.join("\n"))?;
    let classes = ("classes".to_owned(), classes.lines().map(Value::from).collect());
    Ok(asked.iter().cloned().zip(told).chain([classes]).collect())
}

fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    use std::io::Write;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("{program}: {e}"))?;
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    String::from_utf8(output.stdout).map_err(|e| e.to_string())
}

/// What Weft adds beside the reference's files starts with `.weft`; nobody else reads it.
fn read_files(folder: &Path, into: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with(".weft") {
            continue;
        }
        if path.is_dir() {
            read_files(&path, into);
        } else if let Ok(text) = fs::read_to_string(&path) {
            into.insert(path.display().to_string(), text);
        }
    }
}

fn read_sysctls(into: &mut BTreeMap<String, String>) {
    let mut keep = |path: &Path| {
        // An interface may go meanwhile.
        if let Ok(value) = fs::read_to_string(path) {
            into.insert(path.display().to_string(), value.trim().to_owned());
        }
    };
    SYSCTLS.iter().for_each(|name| keep(&Path::new("/proc/sys/net").join(name)));
    for (folder, names) in LINK_SYSCTLS {
        for link in fs::read_dir(Path::new("/proc/sys/net").join(folder)).into_iter().flatten().flatten() {
            names.iter().for_each(|name| keep(&link.path().join(name)));
        }
    }
}
