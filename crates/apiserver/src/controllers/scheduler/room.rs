//! What pods take of a node, and what a node has.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::object::list;
use super::super::quantity::thousandths;

/// What pods ask of a node, or what a node's pods ask together. CPUs and bytes in thousandths.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(in super::super) struct Room {
    pub(in super::super) pods: usize,
    cpu: u128,
    memory: u128,
}

impl Room {
    /// What one pod asks for: its containers and sidecars together, or its largest init container.
    pub(in super::super) fn asked(pod: &Value) -> Self {
        let spec = &pod["spec"];
        let (mut steady, mut peak) = (Self { pods: 1, ..Self::default() }, Self::default());
        for init in list(&spec["initContainers"]) {
            if init["restartPolicy"] == "Always" {
                steady.add(container(init));
            } else {
                let mut own = container(init);
                own.add(steady);
                peak = Self { pods: 0, cpu: peak.cpu.max(own.cpu), memory: peak.memory.max(own.memory) };
            }
        }
        for each in list(&spec["containers"]) {
            steady.add(container(each));
        }
        let mut all = Self { pods: 1, cpu: steady.cpu.max(peak.cpu), memory: steady.memory.max(peak.memory) };
        all.add(quantities(&spec["overhead"]));
        all
    }

    pub(in super::super) fn add(&mut self, other: Self) {
        self.pods += other.pods;
        self.cpu = self.cpu.saturating_add(other.cpu);
        self.memory = self.memory.saturating_add(other.memory);
    }

    pub(in super::super) fn take(&mut self, other: Self) {
        self.pods = self.pods.saturating_sub(other.pods);
        self.cpu = self.cpu.saturating_sub(other.cpu);
        self.memory = self.memory.saturating_sub(other.memory);
    }

    /// What a node has too little of for this beside what it holds, in kube-scheduler's words. A node that
    /// does not say what it has, has enough.
    pub(super) fn lacks(&self, node: &Value, held: Self) -> Vec<&'static str> {
        let has = &node["status"]["allocatable"];
        let mut all = held;
        all.add(*self);
        let over = |name: &str, wanted: u128, asked: u128| {
            asked > 0 && thousandths(&has[name]).is_some_and(|most| wanted > most)
        };
        let pods = |n: usize| u128::try_from(n).unwrap_or(u128::MAX).saturating_mul(1000);
        let checks = [
            ("Too many pods", over("pods", pods(all.pods), pods(self.pods))),
            ("Insufficient cpu", over("cpu", all.cpu, self.cpu)),
            ("Insufficient memory", over("memory", all.memory, self.memory)),
        ];
        checks.into_iter().filter(|(_, lacks)| *lacks).map(|(why, _)| why).collect()
    }
}

/// A container's requests; where it has a limit alone, that.
fn container(container: &Value) -> Room {
    let resources = &container["resources"];
    let (mut asked, limits) = (quantities(&resources["requests"]), quantities(&resources["limits"]));
    for (name, own, limit) in
        [("cpu", &mut asked.cpu, limits.cpu), ("memory", &mut asked.memory, limits.memory)]
    {
        if resources["requests"][name].is_null() {
            *own = limit;
        }
    }
    asked
}

fn quantities(value: &Value) -> Room {
    let of = |name: &str| thousandths(&value[name]).unwrap_or(0);
    Room { pods: 0, cpu: of("cpu"), memory: of("memory") }
}

/// A port of the host that a pod wants, with the address it wants it on.
type HostPort = (u64, String, String);

/// The ports of the host that a pod wants.
pub(super) fn host_ports(pod: &Value) -> Vec<HostPort> {
    let text = |value: &Value, default: &str| value.as_str().unwrap_or(default).to_owned();
    let ports = list(&pod["spec"]["containers"]).flat_map(|container| list(&container["ports"]));
    let wanted = ports.filter_map(|port| {
        let number = port["hostPort"].as_u64().filter(|number| *number > 0)?;
        Some((number, text(&port["protocol"], "TCP"), text(&port["hostIP"], "0.0.0.0")))
    });
    wanted.collect()
}

/// Whether two pods cannot have their ports of one host.
pub(super) fn collide(a: &[HostPort], b: &[HostPort]) -> bool {
    let any = |address: &str| address.is_empty() || address == "0.0.0.0" || address == "::";
    let same =
        |a: &HostPort, b: &HostPort| a.0 == b.0 && a.1 == b.1 && (a.2 == b.2 || any(&a.2) || any(&b.2));
    a.iter().any(|a| b.iter().any(|b| same(a, b)))
}

/// What the pods of each node ask together.
pub(in super::super) type Load = BTreeMap<String, Room>;
