//! The pools of a lab whose pods have their addresses out of pools.

use anyhow::Context as _;
use ipnet::IpNet;
use serde_json::json;
use weft_store::Api;

/// Makes a pool of each pod CIDR.
pub(super) async fn make(api: &Api, pod_cidrs: &[IpNet]) -> anyhow::Result<()> {
    for cidr in pod_cidrs {
        let name = if cidr.addr().is_ipv4() { "default-ipv4" } else { "default-ipv6" };
        let pool = json!({"apiVersion": "weft.dev/v1", "kind": "IPPool", "metadata": {"name": name},
            "spec": {"cidr": cidr, "natOutgoing": true}});
        match api.create("/apis/weft.dev/v1/ippools", &pool).await {
            Err(error) if !error.already_exists() => {
                return Err(error).with_context(|| format!("make the pool {name}"));
            }
            _ => {}
        }
    }
    Ok(())
}
