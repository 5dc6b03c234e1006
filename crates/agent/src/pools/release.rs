//! Giving back what an operator wants given back.

use std::net::IpAddr;

use anyhow::{Context, Result};
use weft_ipam::host_local::Store;
use weft_ipam::pools::{Change, Write};
use weft_kernel::Netlink;
use weft_model::Cluster;
use weft_model::pools::IpBlock;

/// The writes that say that what was asked for is given back, and what is not and why.
pub(super) fn release(cluster: &Cluster, node: &str, store: &Store) -> Result<(Vec<Write>, Vec<String>)> {
    let (mut writes, mut problems) = (Vec::new(), Vec::new());
    for block in cluster.blocks.values().filter(|block| !block.release.is_empty()) {
        let mut new = (**block).clone();
        for ip in block.release.iter().filter(|ip| holder(block, ip) == Some(node)) {
            if is_with_a_pod(cluster, ip) || !store.free(*ip, &|key| has_link(key))? {
                problems.push(format!(
                    "{ip} is to be released, and a container still uses it: delete that first"
                ));
            } else {
                new.release.remove(ip);
            }
        }
        if new != **block {
            let freed: Vec<String> =
                block.release.difference(&new.release).map(ToString::to_string).collect();
            let why = format!("release {}, as asked", freed.join(", "));
            writes.push(Write { change: Change::Replace, block: new, why });
        }
    }
    Ok((writes, problems))
}

fn holder<'a>(block: &'a IpBlock, ip: &IpAddr) -> Option<&'a str> {
    block.borrowed.get(ip).or(block.node.as_ref()).map(|node| &**node)
}

fn is_with_a_pod(cluster: &Cluster, ip: &IpAddr) -> bool {
    cluster.pods.values().any(|pod| !pod.host_network && pod.ips.contains(ip))
}

/// Whether the attachment's link is there; what cannot be found out counts as there.
fn has_link(name: &str) -> bool {
    let link = Netlink::open().context("open the routing socket").and_then(|mut n| Ok(n.link(name)?));
    link.map_or(true, |link| link.is_some())
}
