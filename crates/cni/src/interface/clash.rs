//! Two networks that give one address on one node: the second ADD fails and names the owner, where
//! with the reference both containers have it and neither works.

use weft_kernel::{Netlink, Op};

use crate::protocol::config::invalid;
use crate::protocol::error::CniError;
use crate::protocol::result::CniResult;

const ADVICE: &str = "give the networks of this node ranges that do not overlap";

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
