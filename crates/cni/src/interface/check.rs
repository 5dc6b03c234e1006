//! CHECK: the kernel still has what ADD answered.

use weft_kernel::{Link, Netlink, Route};

use crate::protocol::error::{CniError, code};
use crate::protocol::result::{CniResult, Interface};

/// The link `name` is there, of this kind if one is given, with the hardware address that
/// prevResult has for it.
pub(crate) fn link(
    netlink: &mut Netlink,
    name: &str,
    kind: Option<&str>,
    made: &CniResult,
) -> Result<Link, CniError> {
    let link = netlink.link(name)?.ok_or_else(|| differs(format!("{name} is gone")))?;
    if let Some(kind) = kind.filter(|kind| link.kind.as_deref() != Some(*kind)) {
        return Err(differs(format!("{name} is no {kind}")));
    }
    let listed: Option<&Interface> = made.interfaces.iter().find(|interface| interface.name == name);
    let mac = listed.and_then(|interface| interface.mac.as_ref()).filter(|mac| !mac.is_empty());
    let actual = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
    if mac.is_some_and(|mac| !mac.eq_ignore_ascii_case(&actual)) {
        return Err(differs(format!("{name} has the MAC {actual} and not the one in prevResult")));
    }
    Ok(link)
}

/// The container's interface has the addresses, and the container the routes.
pub(crate) fn addresses_and_routes(pod: &mut Netlink, link: &Link, made: &CniResult) -> Result<(), CniError> {
    let actual = pod.addresses()?;
    let has = |ip: &ipnet::IpNet| actual.iter().any(|a| a.ifindex == link.index && a.net == *ip);
    if let Some(ip) = made.ips.iter().find(|ip| !has(&ip.address)) {
        return Err(differs(format!("{} does not have {}", link.name, ip.address)));
    }
    let actual = pod.routes()?;
    for route in &made.routes {
        let same = |found: &&Route| {
            found.dst == route.dst.trunc()
                && route.gw.is_none_or(|gw| found.via == Some(gw))
                && route.table.is_none_or(|table| found.table == table)
        };
        if !actual.iter().any(|found| same(&found)) {
            return Err(differs(format!("the container has no route to {}", route.dst)));
        }
    }
    Ok(())
}

/// The network is not as it was made.
pub(crate) fn differs(message: impl Into<String>) -> CniError {
    CniError::new(code::NOT_AS_MADE, message)
}
