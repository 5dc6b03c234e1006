//! The file `/run/flannel/subnet.env`, which flannel's CNI plugin and start scripts of container
//! engines read.

use std::fmt::Write;

use ipnet::IpNet;
use weft_model::network::parse_cidr;

use crate::LocalPlan;

/// A line that names no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no network: restart flannel or correct the file")]
pub struct BadSubnetEnv(String);

/// The networks of all nodes' pods that the file names.
pub fn networks_of(text: &str) -> Result<Vec<IpNet>, BadSubnetEnv> {
    let value = |line| {
        ["FLANNEL_NETWORK=", "FLANNEL_IPV6_NETWORK="].iter().find_map(|key| str::strip_prefix(line, *key))
    };
    let values = text.lines().filter_map(value);
    // One network a family today; several joined by commas in an earlier flannel.
    let nets = values.flat_map(|value| value.split(','));
    nets.map(|net| parse_cidr(net).map_err(|_| BadSubnetEnv(net.chars().take(64).collect()))).collect()
}

/// Its text, as flannel writes it: each pod CIDR with its gateway's address. We masquerade, so the
/// plugin shall not.
pub fn subnet_env(local: &LocalPlan, cluster_cidrs: &[IpNet]) -> String {
    let mut text = String::new();
    for (prefix, ipv6) in [("FLANNEL", false), ("FLANNEL_IPV6", true)] {
        let of_family = |net: &&IpNet| net.addr().is_ipv6() == ipv6;
        let Some(subnet) = local.bridge.addresses.iter().find(of_family) else { continue };
        let network = cluster_cidrs.iter().filter(of_family).find(|net| net.contains(&subnet.addr()));
        let network = network.copied().unwrap_or(*subnet).trunc();
        let _ = write!(text, "{prefix}_NETWORK={network}\n{prefix}_SUBNET={subnet}\n");
    }
    let _ = write!(text, "FLANNEL_MTU={}\nFLANNEL_IPMASQ=true\n", local.bridge.mtu);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_networks_are_read_and_nonsense_is_refused() {
        let text = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_IPV6_NETWORK=fd00:244::/48\nFLANNEL_MTU=1450\n";
        let found: Vec<String> = networks_of(text).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.244.0.0/16", "fd00:244::/48"]);
        assert_eq!(networks_of(""), Ok(vec![]));
        assert!(networks_of("FLANNEL_NETWORK=pods").is_err());
    }
}
