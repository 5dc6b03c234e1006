//! The chains of one port of a Service, and its lines in the chains that all share. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::names::Names;
use super::rules::{self, To, comment};
use crate::plan::{Backend, Choice, Frontend, FrontendKey, Kind, Place, Policy};

/// A chain that every Service may have a line in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shared {
    /// Of nat: addresses.
    Services,
    /// Of nat: ports of the node.
    NodePorts,
    /// Of filter: addresses of the cluster's own that lead nowhere.
    Nowhere,
    /// Of filter: what leads in from outside, and nowhere.
    ExternalNowhere,
    /// Of filter: what a firewall chain let through untranslated.
    Firewall,
}

/// What differs from node to node, of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ground {
    pub(super) ipv6: bool,
    /// Pods' addresses.
    pub(super) pods: Vec<IpNet>,
    /// The node's own addresses.
    pub(super) node: Vec<IpNet>,
}

/// The port of a Service in one family: its frontends.
pub(super) type Frontends = BTreeMap<FrontendKey, Arc<Frontend>>;

/// Chains of the table nat by name, each with its rules as lines `-A …`; and lines of shared chains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rendered {
    pub(super) chains: BTreeMap<String, String>,
    pub(super) lines: Vec<(Shared, FrontendKey, String)>,
}

/// Renders the port of a Service.
pub(super) fn render(names: &Names, frontends: &Frontends, ground: &Ground) -> Rendered {
    let mut port = Port { names, ground, affinity: None, out: Rendered::default() };
    let outer = frontends.values().find(|frontend| frontend.kind != Kind::ClusterIp);
    let (cluster, local) =
        (outer.map(|f| &f.all), outer.filter(|f| f.policy == Policy::Local).map(|f| &f.local));
    let inner = frontends.values().find(|frontend| frontend.kind == Kind::ClusterIp).map(|f| &f.all);
    // Who goes elsewhere than through the outer frontends is held to this node. Where there are no others,
    // the chain's name is that of the usual policy.
    let held = inner.zip(cluster).is_some_and(|(inner, cluster)| inner != cluster);
    for (key, frontend) in frontends {
        port.affinity = frontend.affinity;
        match frontend.kind {
            Kind::ClusterIp => port.inner(key, frontend, held),
            _ => port.outer(key, frontend),
        }
    }
    if let Some(frontend) = outer {
        port.external(frontend);
    }
    let cluster = cluster.or(inner.filter(|_| !held));
    let local = local.or(inner.filter(|_| held));
    let clients =
        |local: bool| frontends.iter().filter(move |(_, f)| f.kind == Kind::ClusterIp && held == local);
    let mut endpoints = BTreeSet::new();
    for (choice, chain, is_local) in [(cluster, names.cluster(), false), (local, names.local(), true)] {
        if let Some(Choice::Backends(backends)) = choice {
            port.spread(chain, backends, clients(is_local));
            endpoints.extend(backends.iter().map(|backend| backend.address));
        }
    }
    for address in endpoints {
        port.endpoint(address);
    }
    port.out
}

struct Port<'a> {
    names: &'a Names,
    ground: &'a Ground,
    affinity: Option<u32>,
    out: Rendered,
}

impl Port<'_> {
    fn to(&self, key: &FrontendKey) -> To {
        let address = match key.place {
            Place::Address(address) => Some(address),
            Place::NodePort { .. } => None,
        };
        To { address, protocol: self.names.protocol(), port: key.port }
    }

    fn line(&mut self, shared: Shared, key: &FrontendKey, line: String) {
        self.out.lines.push((shared, *key, line));
    }

    fn append(&mut self, chain: &str, rule: &str) {
        let rules = self.out.chains.entry(chain.to_owned()).or_default();
        let _ = writeln!(rules, "-A {chain} {rule}");
    }

    /// The line of an address of the cluster's own.
    fn inner(&mut self, key: &FrontendKey, frontend: &Frontend, held: bool) {
        let name = self.names.name();
        match &frontend.all {
            Choice::Backends(_) => {
                let when = self.to(key).when("", &format!("{name} cluster IP"), "");
                let chain = if held { self.names.local() } else { self.names.cluster() };
                self.line(Shared::Services, key, format!("{when} -j {chain}"));
            }
            choice => {
                let line = self.nowhere(key, choice);
                self.line(Shared::Nowhere, key, line);
            }
        }
    }

    /// Refuses or drops what no endpoint is there for.
    fn nowhere(&self, key: &FrontendKey, choice: &Choice) -> String {
        let name = self.names.name();
        let more =
            if matches!(key.place, Place::NodePort { .. }) { "-m addrtype --dst-type LOCAL " } else { "" };
        if *choice == Choice::Reject {
            let when = self.to(key).when("", &format!("{name} has no endpoints"), more);
            format!("{when} {}", rules::refuse(self.ground.ipv6))
        } else {
            let when = self.to(key).when("", &format!("{name} has no local endpoints"), more);
            format!("{when} -j DROP")
        }
    }

    /// The lines of an address or port that leads in from outside.
    fn outer(&mut self, key: &FrontendKey, frontend: &Frontend) {
        let name = self.names.name();
        let to = self.to(key);
        let leads = matches!(frontend.all, Choice::Backends(_));
        if leads {
            let (shared, text) = match frontend.kind {
                Kind::NodePort => (Shared::NodePorts, name.to_owned()),
                Kind::LoadBalancer => (Shared::Services, format!("{name} loadbalancer IP")),
                _ => (Shared::Services, format!("{name} external IP")),
            };
            let guarded = frontend.sources.is_some();
            let chain = if guarded { self.names.firewall() } else { self.names.external() };
            self.line(shared, key, format!("{} -j {chain}", to.when("", &text, "")));
            if guarded {
                let when = to.when("", &format!("{name} traffic not accepted by {chain}"), "");
                self.line(Shared::Firewall, key, format!("{when} -j DROP"));
            }
        }
        let last = if leads && frontend.policy == Policy::Local { &frontend.local } else { &frontend.all };
        if !matches!(last, Choice::Backends(_)) {
            let line = self.nowhere(key, last);
            self.line(Shared::ExternalNowhere, key, line);
        }
        if let (true, Some(sources)) = (leads, &frontend.sources) {
            self.firewall(key, sources);
        }
    }

    /// The chain that lets some sources through; further addresses add to it.
    fn firewall(&mut self, key: &FrontendKey, sources: &[IpNet]) {
        let (chain, external) = (self.names.firewall(), self.names.external());
        let text = comment(&format!("{} loadbalancer IP", self.names.name()));
        let last = comment(&format!(
            "other traffic to {} will be dropped by KUBE-PROXY-FIREWALL",
            self.names.name()
        ));
        let last = format!("-A {chain} {last}\n");
        let rules = self.out.chains.entry(chain.clone()).or_default();
        let begun = rules.strip_suffix(&last).map(str::to_owned);
        let is_new = begun.is_none();
        *rules = begun.unwrap_or_default();
        let mut allow = |net: &IpNet| {
            let _ = writeln!(rules, "-A {chain} {}{text} -j {external}", rules::from(net));
        };
        let ours = |net: &&IpNet| net.addr().is_ipv6() == self.ground.ipv6;
        if is_new {
            sources.iter().filter(ours).for_each(&mut allow);
        }
        // The node may have the balancer's address itself and call it from there.
        let node_may =
            self.ground.node.iter().any(|node| sources.iter().any(|net| net.contains(&node.addr())));
        if let (true, Place::Address(address)) = (node_may, key.place) {
            allow(&IpNet::from(address));
        }
        rules.push_str(&last);
    }

    /// The chain of what comes from outside.
    fn external(&mut self, frontend: &Frontend) {
        if !matches!(frontend.all, Choice::Backends(_)) {
            return;
        }
        let (chain, cluster, name) =
            (self.names.external(), self.names.cluster(), self.names.name().to_owned());
        if frontend.policy != Policy::Local {
            let text = comment(&format!("masquerade traffic for {name} external destinations"));
            self.append(&chain, &format!("{text} -j KUBE-MARK-MASQ"));
            self.append(&chain, &format!("-j {cluster}"));
            return;
        }
        for net in &self.ground.pods {
            let text = comment(&format!("pod traffic for {name} external destinations"));
            self.append(&chain, &format!("{}{text} -j {cluster}", rules::from(net)));
        }
        let own = "-m addrtype --src-type LOCAL";
        let text = comment(&format!("masquerade LOCAL traffic for {name} external destinations"));
        self.append(&chain, &format!("{text} {own} -j KUBE-MARK-MASQ"));
        let text = comment(&format!("route LOCAL traffic for {name} external destinations"));
        self.append(&chain, &format!("{text} {own} -j {cluster}"));
        if matches!(frontend.local, Choice::Backends(_)) {
            self.append(&chain, &format!("-j {}", self.names.local()));
        }
    }

    /// A chain that chooses an endpoint; clients of its addresses that are no pods are masqueraded.
    fn spread<'f>(
        &mut self,
        chain: String,
        backends: &[Backend],
        clients: impl Iterator<Item = (&'f FrontendKey, &'f Arc<Frontend>)>,
    ) {
        let name = self.names.name().to_owned();
        self.out.chains.entry(chain.clone()).or_default();
        for (key, _) in clients {
            let (source, target) = match self.ground.pods.as_slice() {
                [] => continue,
                [net] => (format!("! {}", rules::from(net)), "KUBE-MARK-MASQ"),
                _ => (String::new(), MARK_OUTSIDE),
            };
            let when = self.to(key).when(&source, &format!("{name} cluster IP"), "");
            self.append(&chain, &format!("{when} -j {target}"));
        }
        let texts: Vec<(String, String)> = backends
            .iter()
            .map(|b| (self.names.endpoint(b.address), comment(&format!("{name} -> {}", b.address))))
            .collect();
        if let Some(seconds) = self.affinity {
            for (endpoint, text) in &texts {
                let was_here = rules::was_here(endpoint, seconds, self.ground.ipv6);
                self.append(&chain, &format!("{text} {was_here} -j {endpoint}"));
            }
        }
        for (at, (endpoint, text)) in texts.iter().enumerate() {
            match texts.len() - at {
                1 => self.append(&chain, &format!("{text} -j {endpoint}")),
                left => self.append(&chain, &format!("{text} {} -j {endpoint}", rules::once_in(left))),
            }
        }
    }

    /// The chain that leads to one endpoint; one that calls itself is masqueraded.
    fn endpoint(&mut self, address: std::net::SocketAddr) {
        let chain = self.names.endpoint(address);
        let (text, protocol) = (comment(self.names.name()), self.names.protocol());
        let own: IpAddr = address.ip();
        self.append(&chain, &format!("-s {} {text} -j KUBE-MARK-MASQ", IpNet::from(own)));
        let remember = match self.affinity {
            Some(_) => format!(" {}", rules::remember(&chain, self.ground.ipv6)),
            None => String::new(),
        };
        let rule = format!("-p {protocol} {text}{remember} -m {protocol} {}", rules::translate(address));
        self.append(&chain, &rule);
    }
}

/// The chain that marks what is from no pod, where more than one network has pods.
pub(super) const MARK_OUTSIDE: &str = "WEFT-MARK-OUTSIDE";
