//! Which host a Node object is of. A host without kubelet says its new addresses there itself; another host
//! of the same name says nothing, so that the first keeps its pods.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use serde_json::{Value, json};
use weft_kernel::{Event, Netlink, Result, Route};
use weft_model::Node;
use weft_model::network::HOST_ANNOTATION;

use crate::files;

/// This host's number: made once and kept in the state folder. One that cannot be kept is of this run.
pub(crate) fn id(state_dir: &Path) -> Arc<str> {
    let path = state_dir.join("host-id");
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return text.trim().into(),
        _ => {}
    }
    // A random number from the kernel; without /proc nothing else here works either.
    let new = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    if let Err(error) = files::ensure(&path, new.as_bytes()) {
        tracing::warn!("{error:#}: a change of this host's address will not be announced after a restart");
    }
    new.trim().into()
}

/// How this host stands to its Node object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// This host's number.
    pub host: Arc<str>,
    /// Whether a link of this host has the node's InternalIP.
    pub here: bool,
    /// Whether the Node object is another host's.
    pub elsewhere: bool,
    /// What the node's InternalIPs are to be; empty where they are so.
    pub addresses: Vec<IpAddr>,
}

impl Standing {
    /// That of the host with number `host`, of which a link has the InternalIP of `node` or not (`here`),
    /// and which has `addresses` in the place of the node's.
    pub(crate) fn of(host: &Arc<str>, node: Option<&Node>, here: bool, addresses: Vec<IpAddr>) -> Standing {
        let said = node.and_then(|node| node.host.as_ref());
        let elsewhere = !here && said.is_some_and(|said| said != host);
        // Only who was there before may say that it has moved.
        let addresses = if said == Some(host) { addresses } else { Vec::new() };
        Standing { host: host.clone(), here, elsewhere, addresses }
    }
}

/// Which host a Node object read from the API is of, as far as it says so.
pub(crate) fn said(object: &Value) -> Option<&str> {
    object.pointer("/metadata/annotations").and_then(|all| all.get(HOST_ANNOTATION)).and_then(Value::as_str)
}

/// The node's addresses as the host has them now: in the place of each that no link has, one of the same
/// family of the same link. That is the link that has others of them, else `known`, else that of the
/// default route. Addresses in `pods` are pods' gateways. Empty when nothing is to be changed.
pub(crate) fn addresses(
    netlink: &mut Netlink,
    node: &[IpAddr],
    known: Option<&str>,
    pods: &[IpNet],
) -> Result<Vec<IpAddr>> {
    let all = netlink.addresses()?;
    let has = |ip: &IpAddr| all.iter().find(|address| address.net.addr() == *ip);
    if node.is_empty() || node.iter().all(|ip| has(ip).is_some()) {
        return Ok(Vec::new());
    }
    let mut link = node.iter().find_map(has).map(|address| address.ifindex);
    if let (None, Some(name)) = (link, known) {
        link = netlink.link(name)?.map(|link| link.index);
    }
    if link.is_none() {
        link = default_link(&netlink.routes()?, node);
    }
    let usable = |a: &&weft_kernel::Address| {
        let pods = pods.iter().any(|cidr| cidr.contains(&a.net.addr()));
        Some(a.ifindex) == link && a.scope == 0 && !(a.tentative || a.duplicate || a.temporary || pods)
    };
    let mut usable: Vec<IpAddr> = all.iter().filter(usable).map(|address| address.net.addr()).collect();
    usable.retain(|ip| !node.contains(ip));
    usable.sort();
    let like = |ip: &IpAddr| usable.iter().find(|new| new.is_ipv4() == ip.is_ipv4()).copied();
    let now: Vec<IpAddr> =
        node.iter().map(|ip| has(ip).map_or_else(|| like(ip).unwrap_or(*ip), |_| *ip)).collect();
    Ok(if now == node { Vec::new() } else { now })
}

/// The link of the best default route of a family that the node has.
fn default_link(routes: &[Route], node: &[IpAddr]) -> Option<u32> {
    let ours = |route: &&Route| {
        route.table == weft_kernel::TABLE_MAIN
            && is_default(route)
            && node.iter().any(|ip| ip.is_ipv4() == route.dst.addr().is_ipv4())
    };
    routes.iter().filter(ours).min_by_key(|route| route.metric)?.oif
}

fn is_default(route: &Route) -> bool {
    route.dst.prefix_len() == 0
}

/// Whether `event` may have changed what [`addresses`] says while the node's own address is missing.
pub(crate) fn concerns(event: &Event) -> bool {
    match event {
        Event::Address { new, .. } => *new,
        Event::Route { new, route } => *new && is_default(route),
        _ => false,
    }
}

/// `status.addresses` of a Node object with these InternalIPs in the place of its own.
pub(crate) fn merged(object: &Value, addresses: &[IpAddr]) -> Value {
    let found = object.pointer("/status/addresses").and_then(Value::as_array);
    let others = found.into_iter().flatten().filter(|entry| entry["type"] != "InternalIP").cloned();
    let ours = addresses.iter().map(|ip| json!({ "type": "InternalIP", "address": ip }));
    ours.chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: Option<&str>) -> Node {
        Node { host: host.map(Into::into), ..Node::default() }
    }

    #[test]
    fn only_the_host_that_was_there_says_that_it_moved() {
        let me: Arc<str> = "me".into();
        let new: Vec<IpAddr> = vec!["10.0.0.9".parse().unwrap()];
        let of = |said, here| Standing::of(&me, Some(&node(said)), here, new.clone());
        assert_eq!((of(Some("me"), false).elsewhere, of(Some("me"), false).addresses), (false, new.clone()));
        assert_eq!((of(Some("other"), false).elsewhere, of(Some("other"), false).addresses), (true, vec![]));
        // A host that was installed anew is the one that has the address.
        assert!(!of(Some("other"), true).elsewhere);
        // Before anybody said so, nobody is refused and nobody moves.
        assert_eq!((of(None, false).elsewhere, of(None, false).addresses), (false, vec![]));
    }

    #[test]
    fn other_kinds_of_addresses_stay() {
        let object = json!({"status": {"addresses": [
            {"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "n"}]}});
        let now = merged(&object, &["10.0.0.9".parse().unwrap()]);
        assert_eq!(
            now,
            json!([{"type": "InternalIP", "address": "10.0.0.9"}, object["status"]["addresses"][1]])
        );
    }

    #[test]
    fn a_host_has_one_number() {
        let dir = tempfile::tempdir().unwrap();
        let first = id(dir.path());
        assert!(first.len() > 30 && first == id(dir.path()));
    }
}
