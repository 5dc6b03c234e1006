//! The rules that `iptables-save` prints, as far as two proxies must have the same.

use std::collections::BTreeMap;
use std::process::Command;

/// Chains whose rules may be in any order: each is about addresses of its own.
const SHARED: [&str; 4] =
    ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-EXTERNAL-SERVICES", "KUBE-PROXY-FIREWALL"];
/// What differs on purpose: kubelet's chain, which kube-proxy makes too; ours for the ports of cluster IPs that no
/// Service has; the rule in the canary, by which a mere flush is noticed; what the node itself sends to an external
/// address without endpoints, which kube-proxy does not refuse.
const DIFFERENT: [&str; 4] = [
    "KUBE-FIREWALL",
    "WEFT-CLUSTER-IPS",
    "-A KUBE-PROXY-CANARY ",
    "-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\"",
];
/// A counter that kube-proxy uses where the kernel has it.
const COUNTER: &str = "-m nfacct --nfacct-name  ct_state_invalid_dropped_pkts ";

/// Rules by table and chain, of the calling thread's namespace.
pub(crate) fn saved(program: &str) -> BTreeMap<(String, String), Vec<String>> {
    let output = Command::new(program).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (mut chains, mut table) = (BTreeMap::<_, Vec<String>>::new(), String::new());
    for line in text.lines().filter(|line| !DIFFERENT.iter().any(|part| line.contains(part))) {
        if let Some(name) = line.strip_prefix('*') {
            table = name.to_owned();
        } else if let Some(name) = line.strip_prefix(':').and_then(|rest| rest.split(' ').next()) {
            chains.entry((table.clone(), name.to_owned())).or_default();
        } else if let Some((name, rule)) = line.strip_prefix("-A ").and_then(|rest| rest.split_once(' ')) {
            let rule = rule.replace(COUNTER, "").trim_end().to_owned();
            chains.entry((table.clone(), name.to_owned())).or_default().push(rule);
        }
    }
    for ((_, name), rules) in &mut chains {
        if SHARED.contains(&name.as_str()) {
            rules.sort();
        }
    }
    chains
}
