//! What flannel left on this host that would be in our way.

use std::path::Path;

use ipnet::IpNet;
use weft_kernel::{Address, Event, Link, Netlink};

/// Flannel's configuration for the container runtime, which goes before ours by its name.
pub(crate) const CONFLIST: &str = "10-flannel.conflist";
/// The bridge that its plugin makes; others call theirs so too.
pub(crate) const BRIDGE: &str = "cni0";

/// Flannel's own things on this host, as last looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leftovers(Vec<String>);

impl Leftovers {
    /// Looks at the links and at the runtime's folder; `pod_cidrs` are this node's.
    pub(crate) fn find(
        netlink: &mut Netlink,
        conf_dir: &Path,
        pod_cidrs: &[IpNet],
    ) -> weft_kernel::Result<Leftovers> {
        let links = netlink.links()?;
        let addresses = netlink.addresses()?;
        let mut found: Vec<String> =
            in_the_way(&links, &addresses, pod_cidrs).map(|link| format!("link {}", link.name)).collect();
        let conflist = conf_dir.join(CONFLIST);
        if conflist.exists() {
            found.push(format!("file {}", conflist.display()));
        }
        Ok(Leftovers(found))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What an operator should do, while there are any.
    pub(crate) fn error(&self) -> Option<String> {
        let found = self.0.join(", ");
        (!self.is_empty()).then(|| {
            format!(
                "flannel is still on this host ({found}), so nothing is changed here: end flanneld, then run weft network adopt-flannel"
            )
        })
    }

    /// Whether `event` may have changed what [`find`](Leftovers::find) said.
    pub(crate) fn concerns(&self, event: &Event) -> bool {
        match event {
            Event::Link { link, .. } => !self.is_empty() || named(link),
            Event::Overrun => true,
            _ => false,
        }
    }
}

/// The links that have a number or an address that ours need.
pub(crate) fn in_the_way<'a>(
    links: &'a [Link],
    addresses: &'a [Address],
    pod_cidrs: &'a [IpNet],
) -> impl Iterator<Item = &'a Link> {
    links.iter().filter(move |link| {
        let ours = |address: &Address| pod_cidrs.iter().any(|cidr| cidr.contains(&address.net.addr()));
        let has_ours = || addresses.iter().any(|address| address.ifindex == link.index && ours(address));
        named(link) && (link.name != BRIDGE || has_ours())
    })
}

/// `flannel.1`, `flannel-v6.1`, `flannel0`, `flannel.ipip`, `flannel-wg`; and the bridge.
fn named(link: &Link) -> bool {
    link.name == BRIDGE || link.name.starts_with("flannel")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flannel_s_links_are_known_and_the_bridge_of_another_is_not() {
        let link = |index, name: &str| Link { index, name: name.into(), ..Link::default() };
        let links = [link(1, "eth0"), link(2, "flannel.1"), link(3, "cni0"), link(4, "weft0")];
        let addresses = [Address::new(3, "10.244.1.1/24".parse().unwrap())];
        let names = |cidr: &str| -> Vec<String> {
            in_the_way(&links, &addresses, &[cidr.parse().unwrap()]).map(|link| link.name.clone()).collect()
        };
        assert_eq!(names("10.244.1.0/24"), ["flannel.1", "cni0"]);
        assert_eq!(names("10.85.0.0/16"), ["flannel.1"]);
    }
}
