//! One node and its runtime: plays a case with the plugins of one or two folders.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::{Map, Value, json};
use weft_kernel::testing::{SmallDisk, TestNs};
use weft_kernel::{Netns, sandbox, sysctl};

use crate::case::{CallStep, Case, Step, merge};
use crate::dump::{self, Eye};

/// Whose plugins are called.
#[derive(Debug, Clone)]
pub struct Plugins {
    /// For ADD.
    pub adding: PathBuf,
    /// For everything else.
    pub rest: PathBuf,
}

/// What a runtime saw of a step.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The name of the plugin that failed, if one did, and its code.
    pub failed: Option<(String, Value)>,
    /// Its message.
    pub message: String,
    /// The result of an ADD.
    pub result: Value,
}

/// A node on a thread of its own, since namespaces belong to a thread.
#[derive(Debug)]
pub struct Side {
    orders: Sender<Order>,
    answers: Receiver<Told>,
}

#[derive(Debug)]
enum Order {
    Step(Box<Step>),
    Dump,
}

#[derive(Debug)]
enum Told {
    Ready,
    Answer(Answer),
    Dump(Box<dump::Node>),
    Wrong(String),
}

impl Side {
    /// Makes the node, with what the case prepares.
    pub fn start(case: &Case, plugins: Plugins) -> Result<Side, String> {
        let (orders, incoming) = channel();
        let (outgoing, answers) = channel();
        let case = case.clone();
        std::thread::spawn(move || {
            let told = |result: Result<Told, String>| outgoing.send(result.unwrap_or_else(Told::Wrong));
            let mut node = match Node::new(case, plugins) {
                Ok(node) => node,
                Err(error) => return drop(told(Err(error))),
            };
            told(Ok(Told::Ready)).ok();
            while let Ok(order) = incoming.recv() {
                let result = match order {
                    Order::Step(step) => node.step(&step).map(Told::Answer),
                    Order::Dump => node.dump().map(|dump| Told::Dump(Box::new(dump))),
                };
                told(result).ok();
            }
        });
        let side = Side { orders, answers };
        match side.told()? {
            Told::Ready => Ok(side),
            other => Err(format!("{other:?}")),
        }
    }

    pub fn begin(&self, step: &Step) {
        self.orders.send(Order::Step(Box::new(step.clone()))).ok();
    }

    pub fn answer(&self) -> Result<Answer, String> {
        match self.told()? {
            Told::Answer(answer) => Ok(answer),
            other => Err(format!("{other:?}")),
        }
    }

    pub fn begin_dump(&self) {
        self.orders.send(Order::Dump).ok();
    }

    pub fn dump(&self) -> Result<dump::Node, String> {
        match self.told()? {
            Told::Dump(dump) => Ok(*dump),
            other => Err(format!("{other:?}")),
        }
    }

    fn told(&self) -> Result<Told, String> {
        match self.answers.recv() {
            Ok(Told::Wrong(error)) => Err(error),
            Ok(told) => Ok(told),
            Err(_) => Err("its thread panicked".to_owned()),
        }
    }
}

struct Node {
    case: Case,
    plugins: Plugins,
    pods: BTreeMap<String, Netns>,
    /// Results of ADD by container and interface, as a runtime caches them.
    cache: BTreeMap<(String, String), Value>,
    /// What looks at the node and its pods.
    eyes: (Eye, BTreeMap<String, Eye>),
    /// Links that were there before the first call.
    prepared: BTreeSet<String>,
    ns: TestNs,
    _disk: SmallDisk,
}

impl Node {
    fn new(case: Case, plugins: Plugins) -> Result<Node, String> {
        let disk = SmallDisk::new(32 << 20);
        let ns = TestNs::new();
        sandbox::mount_sysfs().map_err(|e| e.to_string())?;
        for folder in ["/run", "/var/lib"] {
            sandbox::mount_tmpfs(Path::new(folder), 32 << 20).map_err(|e| e.to_string())?;
        }
        std::fs::create_dir("/run/netns").map_err(|e| e.to_string())?;
        quick_addresses()?;
        let mut pods = BTreeMap::new();
        for name in case.pods() {
            let pod = Netns::create(&pod_path(&name)).map_err(|e| e.to_string())?;
            pod.run(quick_addresses).map_err(|e| e.to_string())??;
            pods.insert(name, pod);
        }
        let cache = BTreeMap::new();
        let eyes = pods.iter().map(|(name, pod)| Ok((name.clone(), Eye::on(pod)?)));
        let eyes = (Eye::on(ns.ns())?, eyes.collect::<Result<_, String>>()?);
        let mut node = Node { case, plugins, pods, cache, eyes, prepared: BTreeSet::new(), ns, _disk: disk };
        shell(node.ns.ns(), &node.case.prepare.join("\n"))?;
        shell(&node.pods["c1"], &node.case.prepare_pod.join("\n"))?;
        let links = node.ns.netlink().links().map_err(|e| e.to_string())?;
        node.prepared = links.into_iter().map(|link| link.name).collect();
        Ok(node)
    }

    fn dump(&mut self) -> Result<dump::Node, String> {
        let (host, pods) = &mut self.eyes;
        dump::Node::take(host, pods, self.prepared.clone())
    }

    fn step(&mut self, step: &Step) -> Result<Answer, String> {
        match step {
            Step::Run { script, place } => {
                let ns = place.as_ref().map_or(self.ns.ns(), |pod| &self.pods[pod]);
                shell(ns, script)?;
                Ok(Answer::default())
            }
            Step::Call(call) => self.call(call),
        }
    }

    /// A call as libcni makes it: each plugin of a list in its order, for DEL in the contrary one.
    fn call(&mut self, call: &CallStep) -> Result<Answer, String> {
        let mut config = self.case.config.clone();
        if let Some(changes) = &call.config {
            merge(&mut config, changes);
        }
        let mut list = plugins(&config);
        if call.command == "DEL" {
            list.reverse();
        }
        let ifname = call.ifname.clone().unwrap_or_else(|| self.case.ifname.clone());
        let key = (call.id.clone(), ifname);
        let mut previous = match call.command.as_str() {
            "CHECK" | "DEL" if !call.forgotten => self.cache.get(&key).cloned(),
            _ => None,
        };
        // Before 0.4.0 a DEL was not told.
        let old =
            config["cniVersion"].as_str().is_none_or(|v| ["0.1.0", "0.2.0", "0.3.0", "0.3.1"].contains(&v));
        if call.command == "DEL" && old {
            previous = None;
        }
        let mut answer = Answer::default();
        for plugin in list {
            let mut plugin = self.filled(plugin, call, &config);
            if let Some(previous) = &previous {
                plugin.insert("prevResult".to_owned(), previous.clone());
            }
            let kind = plugin["type"].as_str().unwrap_or_default().to_owned();
            let (ok, said) = self.execute(&kind, call, &key.1, &Value::Object(plugin))?;
            if !ok {
                let message = said["msg"].as_str().unwrap_or_default().to_owned();
                answer.failed = Some((kind, said["code"].clone()));
                answer.message = format!("{message} {}", said["details"].as_str().unwrap_or_default());
                return Ok(answer);
            }
            if call.command == "ADD" {
                previous = Some(said.clone());
                answer.result = said;
            }
        }
        match call.command.as_str() {
            "ADD" => drop(self.cache.insert(key, answer.result.clone())),
            "DEL" => drop(self.cache.remove(&key)),
            _ => {}
        }
        Ok(answer)
    }

    /// A plugin's configuration with what libcni adds to it.
    fn filled(&self, plugin: Map<String, Value>, call: &CallStep, config: &Value) -> Map<String, Value> {
        let mut plugin = plugin;
        for key in ["cniVersion", "name"] {
            if let Some(value) = config.get(key) {
                plugin.insert(key.to_owned(), value.clone());
            }
        }
        let runtime = call.runtime_config.as_ref().unwrap_or(&self.case.runtime_config);
        let able = |key: &String| plugin.get("capabilities").is_some_and(|c| c[key.as_str()] == json!(true));
        let given: Map<String, Value> =
            runtime.iter().filter(|(key, _)| able(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
        if !given.is_empty() {
            plugin.insert("runtimeConfig".to_owned(), given.into());
        }
        if let Some(valid) = &call.valid {
            let one = |id: &String| json!({"containerID": id, "ifname": self.case.ifname});
            plugin.insert("cni.dev/valid-attachments".to_owned(), valid.iter().map(one).collect());
        }
        plugin
    }

    fn execute(
        &self,
        kind: &str,
        call: &CallStep,
        ifname: &str,
        config: &Value,
    ) -> Result<(bool, Value), String> {
        let folder = if call.command == "ADD" { &self.plugins.adding } else { &self.plugins.rest };
        let alone = ["GC", "STATUS"].contains(&call.command.as_str());
        let netns = match call.pod() {
            _ if alone => String::new(),
            "none" => String::new(),
            pod => pod_path(pod).display().to_string(),
        };
        let args = if alone { "" } else { call.args.as_ref().unwrap_or(&self.case.args) };
        let mut child = Command::new(folder.join(kind))
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", &call.command)
            .env("CNI_CONTAINERID", if alone { "" } else { &call.id })
            .env("CNI_NETNS", netns)
            .env("CNI_IFNAME", if alone { "" } else { ifname })
            .env("CNI_ARGS", args)
            .env("CNI_PATH", folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{}: {e}", folder.join(kind).display()))?;
        child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).ok();
        let output = child.wait_with_output().map_err(|e| e.to_string())?;
        if output.status.code() == Some(101) {
            return Err(format!("{kind} panicked: {}", String::from_utf8_lossy(&output.stderr)));
        }
        let said = if output.stdout.trim_ascii().is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&output.stdout).map_err(|e| {
                let text = String::from_utf8_lossy(&output.stdout);
                format!("{kind} {}: standard output is no single JSON object ({e}): {text}", call.command)
            })?
        };
        Ok((output.status.success(), said))
    }
}

fn plugins(config: &Value) -> Vec<Map<String, Value>> {
    match config.get("plugins") {
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_object).cloned().collect(),
        _ => config.as_object().into_iter().cloned().collect(),
    }
}

/// Where a pod's namespace is; each node has a `/run` of its own.
fn pod_path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// Addresses are usable at once, without turning off what a plugin may turn off.
fn quick_addresses() -> Result<(), String> {
    for scope in ["all", "default"] {
        for name in ["dad_transmits", "router_solicitation_delay"] {
            sysctl::set(&format!("net.ipv6.conf.{scope}.{name}"), "0").map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

/// Runs lines; `own_etc` gives the node an `/etc` that it may change.
fn shell(ns: &Netns, lines: &str) -> Result<(), String> {
    const OWN_ETC: &str = "own_etc() { mkdir -p /run/etc/new /run/etc/work; mount -t overlay overlay \
        -o lowerdir=/etc,upperdir=/run/etc/new,workdir=/run/etc/work /etc; }";
    if lines.is_empty() {
        return Ok(());
    }
    let script = format!("set -e\n{OWN_ETC}\n{lines}");
    let run = || Command::new("sh").args(["-c", &script]).output();
    let output = ns.run(run).map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{lines}: {}", String::from_utf8_lossy(&output.stderr)))
}
