//! kube-proxy on this host: two that translate one connection would not agree where it goes.

use weft_kernel::Result;
use weft_kernel::nft::{Family, Nft, Table};
use weft_service::iptables::CLUSTER_IPS;

/// Where kube-proxy's rules are in this namespace, in words; none where there are none.
pub(super) fn find(nft: &mut Nft) -> Result<Option<String>> {
    for family in [Family::Ip, Family::Ip6] {
        let own = Table::new(family, "kube-proxy");
        if nft.has_chain(&own, "services")? {
            return Ok(Some(format!("nftables table {own}")));
        }
        let nat = Table::new(family, "nat");
        // kubelet alone makes other chains of this prefix; beside the other one they are an agent's before.
        let ours = nft.has_chain(&Table::new(family, "filter"), CLUSTER_IPS)?;
        if !ours && nft.has_chain(&nat, "KUBE-SERVICES")? {
            return Ok(Some(format!("chain KUBE-SERVICES of {nat} (iptables)")));
        }
    }
    Ok(None)
}
