//! The tables of one family: what should be in them, what is, and the difference as input of
//! `iptables-restore`. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use ipnet::IpNet;
use weft_kernel::Delta;
use weft_model::service::{Protocol, ServiceKey};

use super::chains::{self, Frontends, Ground, Shared};
use super::fixed::{self, CLUSTER_IPS, JUMPS, OF_IPVS, WANTED_JUMPS};
use super::names::{self, Names};
use super::rules;
use crate::plan::{Changed, Frontend, FrontendKey, ServicePlan};

/// A table of iptables, in the order in which they are written: what refuses before what translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Mangle,
    Filter,
    Nat,
}

impl Table {
    pub(super) const ALL: [Table; 3] = [Table::Mangle, Table::Filter, Table::Nat];

    pub(super) fn name(self) -> &'static str {
        match self {
            Table::Mangle => "mangle",
            Table::Filter => "filter",
            Table::Nat => "nat",
        }
    }
}

/// A chain of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Chain {
    pub(super) table: Table,
    pub(super) name: Arc<str>,
}

/// A port of a Service, whose frontends share chains.
type PortKey = (ServiceKey, Arc<str>, Protocol);

/// The tables of one family.
#[derive(Debug)]
pub(super) struct Tables {
    ground: Ground,
    ports: BTreeMap<PortKey, Frontends>,
    /// The chains that each port has.
    owned: BTreeMap<PortKey, Vec<Arc<str>>>,
    /// Which port a frontend is of, and in which shared chains it has a line.
    homes: BTreeMap<FrontendKey, PortKey>,
    shared: BTreeMap<Shared, BTreeMap<FrontendKey, String>>,
    cluster_ips: BTreeSet<IpNet>,
    /// Shared chains whose text is yet to be made of their lines.
    stale: BTreeSet<Shared>,
    /// What chains have, as lines `-A …`.
    pub(super) chains: Delta<Chain, Arc<str>>,
    /// By their places in [`JUMPS`].
    jumps: Delta<usize, ()>,
}

impl Tables {
    /// Nothing is there, and the fixed chains should be.
    pub(super) fn new(ipv6: bool) -> Tables {
        let mut tables = Tables {
            ground: Ground { ipv6, ..Ground::default() },
            ports: BTreeMap::new(),
            owned: BTreeMap::new(),
            homes: BTreeMap::new(),
            shared: BTreeMap::new(),
            cluster_ips: BTreeSet::new(),
            stale: BTreeSet::new(),
            chains: Delta::new(),
            jumps: Delta::new(),
        };
        (0..WANTED_JUMPS).for_each(|index| tables.jumps.set_desired(index, ()));
        tables.set_ground();
        tables
    }

    /// Whether it has any frontend.
    pub(super) fn is_used(&self) -> bool {
        !self.homes.is_empty()
    }

    /// Takes in what changed in the plan.
    pub(super) fn update(&mut self, plan: &ServicePlan, changed: &Changed) {
        let ipv6 = self.ground.ipv6;
        let ours = |nets: &[IpNet]| nets.iter().filter(|net| net.addr().is_ipv6() == ipv6).copied().collect();
        let ground = Ground { ipv6, pods: ours(&plan.pods), node: ours(&plan.node_addresses) };
        let mut ports = BTreeSet::new();
        if ground != self.ground {
            self.ground = ground;
            self.set_ground();
            ports.extend(self.ports.keys().cloned());
        }
        for key in changed.frontends.iter().filter(|key| key.place.is_ipv6() == ipv6) {
            self.set_frontend(key, plan.frontends.get(key), &mut ports);
        }
        for port in ports {
            self.render(&port);
        }
        for ip in changed.cluster_ips.iter().filter(|ip| ip.is_ipv6() == ipv6) {
            let is = plan.cluster_ips.contains_key(ip);
            let differs = if is {
                self.cluster_ips.insert((*ip).into())
            } else {
                self.cluster_ips.remove(&(*ip).into())
            };
            if differs {
                self.stale.insert(Shared::Nowhere);
            }
        }
        self.set_checks(plan);
        self.settle();
    }

    fn set_ground(&mut self) {
        let fixed = fixed::chains(&self.ground);
        let outside = Chain { table: Table::Nat, name: chains::MARK_OUTSIDE.into() };
        self.chains.remove_desired(&outside);
        for (chain, text) in fixed {
            self.chains.set_desired(chain, text.into());
        }
        self.set_shared(Table::Filter, "KUBE-NODEPORTS", String::new());
        self.stale.extend([
            Shared::Services,
            Shared::NodePorts,
            Shared::Nowhere,
            Shared::ExternalNowhere,
            Shared::Firewall,
        ]);
        self.settle();
    }

    fn set_frontend(
        &mut self,
        key: &FrontendKey,
        now: Option<&Arc<Frontend>>,
        ports: &mut BTreeSet<PortKey>,
    ) {
        if let Some(port) = self.homes.remove(key) {
            if let Some(frontends) = self.ports.get_mut(&port) {
                frontends.remove(key);
            }
            ports.insert(port);
        }
        if let Some(frontend) = now {
            let port: PortKey = (frontend.service.clone(), frontend.port_name.clone(), key.protocol);
            self.ports.entry(port.clone()).or_default().insert(*key, frontend.clone());
            self.homes.insert(*key, port.clone());
            ports.insert(port);
        }
        for (shared, lines) in &mut self.shared {
            if lines.remove(key).is_some() {
                self.stale.insert(*shared);
            }
        }
    }

    fn render(&mut self, port: &PortKey) {
        for chain in self.owned.remove(port).unwrap_or_default() {
            self.chains.remove_desired(&Chain { table: Table::Nat, name: chain });
        }
        let Some(frontends) = self.ports.get(port) else { return };
        if frontends.is_empty() {
            self.ports.remove(port);
            return;
        }
        let rendered = chains::render(&Names::new(&port.0, &port.1, port.2), frontends, &self.ground);
        let mut owned = Vec::with_capacity(rendered.chains.len());
        for (name, text) in rendered.chains {
            let chain = Chain { table: Table::Nat, name: name.into() };
            owned.push(chain.name.clone());
            self.chains.set_desired(chain, text.into());
        }
        self.owned.insert(port.clone(), owned);
        for (shared, key, line) in rendered.lines {
            let lines = self.shared.entry(shared).or_default();
            if lines.get(&key) != Some(&line) {
                lines.insert(key, line);
                self.stale.insert(shared);
            }
        }
    }

    /// Health checks of load balancers get through.
    fn set_checks(&mut self, plan: &ServicePlan) {
        let text = plan.checks.iter().fold(String::new(), |mut out, (port, check)| {
            let text = rules::comment(&format!("{} health check node port", check.service));
            let _ = writeln!(out, "-A KUBE-NODEPORTS -p tcp {text} -m tcp --dport {port} -j ACCEPT");
            out
        });
        self.set_shared(Table::Filter, "KUBE-NODEPORTS", text);
    }

    /// Makes the text of the shared chains that changed.
    fn settle(&mut self) {
        for shared in std::mem::take(&mut self.stale) {
            let (table, name) = place(shared);
            let mut text = String::new();
            for line in self.shared.get(&shared).into_iter().flat_map(BTreeMap::values) {
                let _ = writeln!(text, "-A {name} {line}");
            }
            match shared {
                Shared::Services => text.push_str(&fixed::to_node_ports(&self.ground)),
                Shared::Nowhere => {
                    text.push_str(&fixed::to_cluster_ips(self.cluster_ips.iter()).unwrap_or_default());
                    self.set_cluster_ips();
                }
                _ => {}
            }
            self.set_shared(table, name, text);
        }
    }

    fn set_cluster_ips(&mut self) {
        let refuse = rules::refuse(self.ground.ipv6);
        let text = self.cluster_ips.iter().fold(String::new(), |mut out, ip| {
            let _ = writeln!(out, "-A {CLUSTER_IPS} -d {ip} {refuse}");
            out
        });
        self.set_shared(Table::Filter, CLUSTER_IPS, text);
    }

    fn set_shared(&mut self, table: Table, name: &str, text: String) {
        self.chains.set_desired(Chain { table, name: name.into() }, text.into());
    }

    /// Takes in what `iptables-save` says of all tables: what is ours, by name.
    pub(super) fn observe(&mut self, saved: &str) {
        let mut chains: BTreeMap<Chain, String> = BTreeMap::new();
        let mut jumps = BTreeSet::new();
        let mut table = None;
        for line in saved.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = Table::ALL.into_iter().find(|table| table.name() == name);
            }
            let Some(table) = table else { continue };
            if let Some(name) = line.strip_prefix(':').and_then(|rest| rest.split(' ').next()) {
                if self.is_ours(table, name) {
                    chains.entry(Chain { table, name: name.into() }).or_default();
                }
            } else if let Some((name, rule)) = line.strip_prefix("-A ").and_then(|rest| rest.split_once(' '))
            {
                if let Some(text) = chains.get_mut(&Chain { table, name: name.into() }) {
                    text.push_str(line.trim_end());
                    text.push('\n');
                }
                let known = JUMPS
                    .iter()
                    .position(|j| j.table == table && j.from == name && j.rule() == rule.trim_end());
                jumps.extend(known);
            }
        }
        self.chains.replace_actual(chains.into_iter().map(|(chain, text)| (chain, text.into())));
        self.jumps.replace_actual(jumps.into_iter().map(|jump| (jump, ())));
    }

    fn is_ours(&self, table: Table, name: &str) -> bool {
        let chain = Chain { table, name: name.into() };
        self.chains.desired().contains_key(&chain)
            || (table == Table::Nat && (names::is_of_service(name) || name == chains::MARK_OUTSIDE))
            || OF_IPVS.contains(&(table, name))
    }

    /// What is missing, other than it should be or too much, as input of `iptables-restore --noflush`; empty if
    /// nothing is. Without `removing`, chains that should go are only emptied: somebody else's rule may lead
    /// there.
    pub(super) fn script(&self, removing: bool) -> String {
        let mut out = String::new();
        for table in Table::ALL {
            let updates = || self.chains.pending_updates().filter(move |(chain, _)| chain.table == table);
            let deletions = || self.chains.pending_deletions().filter(move |(chain, _)| chain.table == table);
            let superfluous = || {
                let there = self.jumps.pending_deletions().map(|(index, ())| JUMPS[*index]);
                there.filter(move |jump| jump.table == table)
            };
            let jumps = || {
                let missing = self.jumps.pending_updates().map(|(index, ())| JUMPS[*index]);
                missing.filter(move |jump| jump.table == table)
            };
            let in_sync = updates().next().is_none() && deletions().next().is_none();
            if in_sync && jumps().chain(superfluous()).next().is_none() {
                continue;
            }
            let _ = writeln!(out, "*{}", table.name());
            let mut chains: Vec<&str> = updates().chain(deletions()).map(|(chain, _)| &*chain.name).collect();
            // iptables-save sorts by name what the kernel has in the order in which it came, and takes longest where
            // that is the same.
            chains.sort_by_key(|name| tail(name));
            for chain in chains {
                let _ = writeln!(out, ":{chain} - [0:0]");
            }
            updates().for_each(|(_, text)| out.push_str(text));
            for jump in jumps() {
                let _ = writeln!(out, "-I {} {}", jump.from, jump.rule());
            }
            for jump in superfluous() {
                let _ = writeln!(out, "-D {} {}", jump.from, jump.rule());
            }
            for (chain, _) in deletions().filter(|_| removing) {
                let _ = writeln!(out, "-X {}", chain.name);
            }
            out.push_str("COMMIT\n");
        }
        out
    }

    /// How many chains there should be.
    pub(super) fn len(&self) -> usize {
        self.chains.desired().len()
    }

    /// How many chains and jumps differ.
    pub(super) fn count(&self) -> usize {
        self.chains.pending_updates().count()
            + self.chains.pending_deletions().count()
            + self.jumps.pending_updates().count()
            + self.jumps.pending_deletions().count()
    }

    /// None of it should be there.
    pub(super) fn desire_nothing(&mut self) {
        self.chains.replace_desired([]);
        self.jumps.replace_desired([]);
    }

    /// What should be there, to compare.
    #[cfg(test)]
    pub(super) fn whole(&self) -> &BTreeMap<Chain, Arc<str>> {
        self.chains.desired()
    }

    /// Whether the script has chains to remove.
    pub(super) fn removes(&self) -> bool {
        self.chains.pending_deletions().next().is_some()
    }

    /// The script was done. Chains that should go may still be there, empty, unless they are to be forgotten.
    pub(super) fn done(&mut self, forget: bool) {
        let updates: Vec<(Chain, Arc<str>)> =
            self.chains.pending_updates().map(|(chain, text)| (chain.clone(), text.clone())).collect();
        let deletions: Vec<Chain> = self.chains.pending_deletions().map(|(chain, _)| chain.clone()).collect();
        let jumps: Vec<usize> = self.jumps.pending_updates().map(|(index, ())| *index).collect();
        updates.into_iter().for_each(|(chain, text)| self.chains.observe(chain, text));
        for chain in deletions {
            match forget {
                true => self.chains.unobserve(&chain),
                false => self.chains.observe(chain, "".into()),
            }
        }
        let superfluous: Vec<usize> = self.jumps.pending_deletions().map(|(index, ())| *index).collect();
        superfluous.iter().for_each(|index| self.jumps.unobserve(index));
        jumps.into_iter().for_each(|jump| self.jumps.observe(jump, ()));
    }
}

/// The end of a chain's name, by which those of Services are in no order.
fn tail(name: &str) -> &[u8] {
    &name.as_bytes()[name.len().saturating_sub(8)..]
}

fn place(shared: Shared) -> (Table, &'static str) {
    match shared {
        Shared::Services => (Table::Nat, "KUBE-SERVICES"),
        Shared::NodePorts => (Table::Nat, "KUBE-NODEPORTS"),
        Shared::Nowhere => (Table::Filter, "KUBE-SERVICES"),
        Shared::ExternalNowhere => (Table::Filter, "KUBE-EXTERNAL-SERVICES"),
        Shared::Firewall => (Table::Filter, "KUBE-PROXY-FIREWALL"),
    }
}
