//! What does not depend on Services: the chains that their rules use, and how packets come to them.

use std::fmt::Write as _;

use ipnet::IpNet;

use super::chains::{Ground, MARK_OUTSIDE};
use super::rules::{self, comment};
use super::tables::{Chain, Table};

/// The mark of what is to be masqueraded, that of kube-proxy (`masqueradeBit` 14).
const MARK: &str = "0x4000/0x4000";
/// The chain whose rule tells by its absence that somebody flushed a table.
pub(super) const CANARY: &str = "KUBE-PROXY-CANARY";
/// The chain of cluster IPs, whose ports that no Service has are refused. It tells our chains from kube-proxy's.
pub const CLUSTER_IPS: &str = "WEFT-CLUSTER-IPS";

/// What the canary's rule says of itself.
pub(super) const CANARY_TEXT: &str = "if this is gone, so is the rest";
const NEW: &str = "-m conntrack --ctstate NEW ";

/// A rule of one of iptables' own chains that leads into one of ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Jump {
    pub(super) table: Table,
    pub(super) from: &'static str,
    when: &'static str,
    pub(super) text: &'static str,
    to: &'static str,
}

impl Jump {
    /// The rule without its chain.
    pub(super) fn rule(&self) -> String {
        format!("{}{} -j {}", self.when, comment(self.text), self.to)
    }
}

const fn jump(
    table: Table,
    from: &'static str,
    when: &'static str,
    text: &'static str,
    to: &'static str,
) -> Jump {
    Jump { table, from, when, text, to }
}

const OUTSIDE: &str = "kubernetes externally-visible service portals";
const PORTALS: &str = "kubernetes service portals";
const FIREWALL: &str = "kubernetes load balancer firewall";

/// All of them, in the order in which each is put before what is there: that of kube-proxy, which leaves out what
/// the node's own processes send to addresses that lead in from outside, and nowhere.
pub(super) const JUMPS: [Jump; 18] = [
    jump(Table::Filter, "INPUT", NEW, OUTSIDE, "KUBE-EXTERNAL-SERVICES"),
    jump(Table::Filter, "FORWARD", NEW, OUTSIDE, "KUBE-EXTERNAL-SERVICES"),
    jump(Table::Filter, "OUTPUT", NEW, OUTSIDE, "KUBE-EXTERNAL-SERVICES"),
    jump(Table::Filter, "INPUT", "", "kubernetes health check service ports", "KUBE-NODEPORTS"),
    jump(Table::Filter, "FORWARD", NEW, PORTALS, "KUBE-SERVICES"),
    jump(Table::Filter, "OUTPUT", NEW, PORTALS, "KUBE-SERVICES"),
    jump(Table::Filter, "FORWARD", "", "kubernetes forwarding rules", "KUBE-FORWARD"),
    jump(Table::Filter, "INPUT", NEW, FIREWALL, "KUBE-PROXY-FIREWALL"),
    jump(Table::Filter, "OUTPUT", NEW, FIREWALL, "KUBE-PROXY-FIREWALL"),
    jump(Table::Filter, "FORWARD", NEW, FIREWALL, "KUBE-PROXY-FIREWALL"),
    jump(Table::Nat, "OUTPUT", "", PORTALS, "KUBE-SERVICES"),
    jump(Table::Nat, "PREROUTING", "", PORTALS, "KUBE-SERVICES"),
    jump(Table::Nat, "POSTROUTING", "", "kubernetes postrouting rules", "KUBE-POSTROUTING"),
    jump(Table::Filter, "INPUT", "", "kubernetes health check rules", "KUBE-NODE-PORT"),
    jump(Table::Filter, "INPUT", "", "kube-proxy firewall rules", "KUBE-PROXY-FIREWALL"),
    jump(Table::Filter, "FORWARD", "", "kube-proxy firewall rules", "KUBE-PROXY-FIREWALL"),
    jump(Table::Filter, "INPUT", "", "kubernetes ipvs access filter", "KUBE-IPVS-FILTER"),
    jump(Table::Filter, "OUTPUT", "", "kubernetes ipvs access filter", "KUBE-IPVS-OUT-FILTER"),
];

/// So many of them, the first, are to be there. The others are those of kube-proxy's mode ipvs alone.
pub(super) const WANTED_JUMPS: usize = 13;

/// The chains of kube-proxy's mode ipvs alone.
pub(super) const OF_IPVS: [(Table, &str); 6] = [
    (Table::Nat, "KUBE-NODE-PORT"),
    (Table::Nat, "KUBE-LOAD-BALANCER"),
    (Table::Filter, "KUBE-NODE-PORT"),
    (Table::Filter, "KUBE-SOURCE-RANGES-FIREWALL"),
    (Table::Filter, "KUBE-IPVS-FILTER"),
    (Table::Filter, "KUBE-IPVS-OUT-FILTER"),
];

/// The chains whose rules follow from the node alone.
pub(super) fn chains(ground: &Ground) -> Vec<(Chain, String)> {
    let lines = |table: Table, name: &str, rules: &[String]| {
        let text = rules.iter().map(|rule| format!("-A {name} {rule}\n")).collect();
        (Chain { table, name: name.into() }, text)
    };
    let canary = [format!("{} -j RETURN", comment(CANARY_TEXT))];
    let forward = [
        "-m conntrack --ctstate INVALID -j DROP".to_owned(),
        format!("{} -m mark --mark {MARK} -j ACCEPT", comment("kubernetes forwarding rules")),
        format!(
            "{} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            comment("kubernetes forwarding conntrack rule")
        ),
    ];
    let postrouting = [
        format!("-m mark ! --mark {MARK} -j RETURN"),
        // Who passes here again is not masqueraded again.
        "-j MARK --set-xmark 0x4000/0x0".to_owned(),
        format!("{} -j MASQUERADE --random-fully", comment("kubernetes service traffic requiring SNAT")),
    ];
    let mut out: Vec<(Chain, String)> =
        [Table::Mangle, Table::Filter, Table::Nat].map(|table| lines(table, CANARY, &canary)).into();
    out.push(lines(Table::Filter, "KUBE-FORWARD", &forward));
    out.push(lines(Table::Nat, "KUBE-MARK-MASQ", &[format!("-j MARK --set-xmark {MARK}")]));
    out.push(lines(Table::Nat, "KUBE-POSTROUTING", &postrouting));
    if ground.pods.len() > 1 {
        let mut rules: Vec<String> =
            ground.pods.iter().map(|net| format!("{}-j RETURN", rules::from(net))).collect();
        rules.push("-j KUBE-MARK-MASQ".to_owned());
        out.push(lines(Table::Nat, MARK_OUTSIDE, &rules));
    }
    out
}

/// The last rules of nat's KUBE-SERVICES: where node ports are served.
pub(super) fn to_node_ports(ground: &Ground) -> String {
    let text = comment("kubernetes service nodeports; NOTE: this must be the last rule in this chain");
    let local = "-m addrtype --dst-type LOCAL";
    let loopback = if ground.ipv6 { "::1/128" } else { "127.0.0.0/8" };
    ground.node.iter().fold(String::new(), |mut out, net| {
        let rule = match net.prefix_len() {
            // Answers to a packet from the loopback would never leave.
            0 => format!("! -d {loopback} {text} {local}"),
            length if length == net.max_prefix_len() => format!("-d {net} {text}"),
            _ => format!("-d {} {text} {local}", net.trunc()),
        };
        let _ = writeln!(out, "-A KUBE-SERVICES {rule} -j KUBE-NODEPORTS");
        out
    })
}

/// The rule that leads to [`CLUSTER_IPS`] what may have the address of a Service and was not translated: no
/// packet that was meets the list.
pub(super) fn to_cluster_ips<'a>(ips: impl Iterator<Item = &'a IpNet>) -> Option<String> {
    let cover = ips.copied().reduce(cover)?;
    let when = if cover.prefix_len() == 0 { String::new() } else { format!("-d {cover} ") };
    Some(format!("-A KUBE-SERVICES {when}{} -j {CLUSTER_IPS}\n", comment("ports that no Service has")))
}

/// The smallest network that has both.
fn cover(mut a: IpNet, b: IpNet) -> IpNet {
    while !a.contains(&b) {
        match a.supernet() {
            Some(wider) => a = wider,
            None => break,
        }
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_covers_what_it_is_made_of() {
        let of = |text: &[&str]| {
            let nets: Vec<IpNet> = text.iter().map(|t| t.parse().unwrap()).collect();
            to_cluster_ips(nets.iter())
        };
        assert_eq!(of(&[]), None);
        assert!(of(&["10.96.0.1/32"]).unwrap().contains("-d 10.96.0.1/32 "));
        assert!(of(&["10.96.0.1/32", "10.96.0.10/32", "10.97.3.4/32"]).unwrap().contains("-d 10.96.0.0/15 "));
        assert!(!of(&["10.96.0.1/32", "200.0.0.1/32"]).unwrap().contains("-d "));
    }
}
