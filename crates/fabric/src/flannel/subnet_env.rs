//! The file `/run/flannel/subnet.env`, which flannel's CNI plugin and start scripts of container
//! engines read.

use std::fmt::Write;

use ipnet::IpNet;

use crate::{FabricConfig, LocalPlan};

/// Its text, as flannel writes it: each pod CIDR with its gateway's address. We masquerade, so the
/// plugin shall not.
pub fn subnet_env(local: &LocalPlan, cfg: &FabricConfig) -> String {
    let mut text = String::new();
    for (prefix, ipv6) in [("FLANNEL", false), ("FLANNEL_IPV6", true)] {
        let of_family = |net: &&IpNet| net.addr().is_ipv6() == ipv6;
        let Some(subnet) = local.bridge.addresses.iter().find(of_family) else { continue };
        let network = cfg.cluster_cidrs.iter().filter(of_family).find(|net| net.contains(&subnet.addr()));
        let network = network.copied().unwrap_or(*subnet).trunc();
        let _ = write!(text, "{prefix}_NETWORK={network}\n{prefix}_SUBNET={subnet}\n");
    }
    let _ = write!(text, "FLANNEL_MTU={}\nFLANNEL_IPMASQ=true\n", local.bridge.mtu);
    text
}
