//! Two networks that give one address on one node: the second ADD fails and names the owner, where
//! with the reference both containers have it and neither works.

use weft_ipam::host_local::{Attachment, elsewhere};
use weft_kernel::{Link, Netlink, Op};

use crate::ipam::{self, HOST_LOCAL};
use crate::protocol::config::invalid;
use crate::protocol::error::CniError;
use crate::protocol::plugin::Call;
use crate::protocol::result::CniResult;

const ADVICE: &str = "give the networks of this node ranges that do not overlap";

/// No port of the bridge belongs to a container that another network gave one of the addresses.
pub(crate) fn refuse_on_bridge(
    call: &Call,
    host: &mut Netlink,
    bridge: &Link,
    result: &CniResult,
) -> Result<(), CniError> {
    if call.conf.ipam_type() != HOST_LOCAL || result.ips.is_empty() {
        return Ok(());
    }
    let (data_dir, network) = (ipam::account_dir(call), call.conf.network()?);
    for ip in result.ips.iter().map(|ip| ip.address.addr()) {
        for (other, container_id, ifname) in elsewhere(&data_dir, network, ip) {
            let key = Attachment { container_id: &container_id, ifname: &ifname }.key();
            if host.link(&key)?.is_some_and(|link| link.master == Some(bridge.index)) {
                return Err(invalid(&format!(
                    "ipam: {ip} is taken on bridge {}: {ifname} of container {container_id} has it from network {other}; {ADVICE}",
                    bridge.name
                )));
            }
        }
    }
    Ok(())
}

/// Does `ops`, the node's routes to the addresses among them: one that is there leads to another
/// container.
pub(crate) fn apply_routes(host: &mut Netlink, ops: &[Op], result: &CniResult) -> Result<(), CniError> {
    let Some(error) = host.batch(ops).into_iter().find_map(Result::err) else { return Ok(()) };
    if !error.exists() {
        return Err(error.into());
    }
    for ip in result.ips.iter().map(|ip| ip.address.addr()) {
        let routes = host.routes()?;
        let Some(index) = routes.iter().find(|route| route.dst == ip.into()).and_then(|route| route.oif)
        else {
            continue;
        };
        let Some(link) = host.link_by_index(index)? else { continue };
        let owner = link.alias.map(|alias| format!(" ({alias})")).unwrap_or_default();
        return Err(invalid(&format!(
            "ipam: {ip} is taken: the node has a route to it by {}{owner}; {ADVICE}",
            link.name
        )));
    }
    Err(error.into())
}
