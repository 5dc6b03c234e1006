//! Where an attachment's interface is. The daemon holds no descriptor of a pod's namespace beyond
//! an exchange with a server, so that it keeps none alive; it comes back by the path, and then
//! makes sure that it is still the same namespace and interface.

use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use weft_ipam::dhcp::Settings;
use weft_kernel::{Address, Link, LinkSet, Netlink, Netns, Op, Route, sysctl};
use weft_model::Mac;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A network namespace and an interface in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    netns: PathBuf,
    /// Device and inode number of the namespace: they are unique within a boot.
    id: (u64, u64),
    boot: String,
    ifindex: u32,
    mac: String,
}

/// Why nothing could be done in a place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    /// The pod or its interface is no more.
    #[error("the interface or its network namespace is gone")]
    Gone,
    /// It is there, or may be.
    #[error(transparent)]
    Kernel(#[from] weft_kernel::Error),
}

type Result<T> = std::result::Result<T, PlaceError>;

impl Place {
    /// The interface `ifname` of the namespace at `path`. It is set up.
    pub(crate) fn find(path: &Path, ifname: &str, with_v6: bool) -> std::result::Result<Place, String> {
        let shown = path.display();
        let netns = Netns::open(path).map_err(|error| format!("CNI_NETNS {shown}: {error}"))?;
        let find = || -> weft_kernel::Result<Option<Link>> {
            let mut netlink = Netlink::open()?;
            let Some(link) = netlink.link(ifname)? else { return Ok(None) };
            if with_v6 {
                // A runtime may have switched it off in a pod of which it knew no IPv6 address.
                sysctl::ensure(&format!("net/ipv6/conf/{ifname}/disable_ipv6"), "0")?;
            }
            if !link.up {
                let up = LinkSet { index: link.index, up: Some(true), ..LinkSet::default() };
                netlink.apply(&Op::LinkSet(up))?;
            }
            Ok(Some(link))
        };
        let link = netns.run(find).and_then(|found| found).map_err(|error| error.to_string())?;
        let link =
            link.ok_or_else(|| format!("CNI_IFNAME {ifname}: there is no such interface in {shown}"))?;
        let mac =
            link.mac.ok_or_else(|| format!("{ifname} in {shown} has no Ethernet address: DHCP needs one"))?;
        let id = netns.id().map_err(|error| error.to_string())?;
        Ok(Place { netns: path.to_owned(), id, boot: boot(), ifindex: link.index, mac: mac.to_string() })
    }

    /// The interface's hardware address, as it was when it was found.
    pub(crate) fn mac(&self) -> Mac {
        self.mac.parse().unwrap_or_default()
    }

    pub(crate) fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Does `work` in the namespace, with a routing socket there.
    pub(crate) fn inside<R: Send>(
        &self,
        work: impl FnOnce(&mut Netlink) -> weft_kernel::Result<R> + Send,
    ) -> Result<R> {
        let netns = match Netns::open(&self.netns) {
            Ok(netns) => netns,
            Err(weft_kernel::Error::NotANetns { .. }) => return Err(PlaceError::Gone),
            Err(error) if error.not_found() => return Err(PlaceError::Gone),
            Err(error) => return Err(error.into()),
        };
        if netns.id()? != self.id || self.boot != boot() {
            return Err(PlaceError::Gone);
        }
        netns.run(|| {
            let mut netlink = Netlink::open()?;
            match netlink.link_by_index(self.ifindex)? {
                Some(_) => Ok(work(&mut netlink)?),
                None => Err(PlaceError::Gone),
            }
        })?
    }

    /// An address and its routes take the place of those that were lost.
    pub(crate) fn put(&self, address: IpNet, settings: &Settings, metric: u32) -> Result<()> {
        self.inside(|netlink| {
            let mut ops = vec![Op::AddrAdd(Address::new(self.ifindex, address))];
            for route in &settings.routes {
                let mut wanted = Route::new(route.destination);
                wanted.via = Some(route.gateway).filter(|gateway| !gateway.is_unspecified());
                wanted.scope = if wanted.via.is_none() { 253 } else { wanted.scope };
                (wanted.oif, wanted.metric) = (Some(self.ifindex), metric);
                ops.push(Op::RouteReplace(wanted));
            }
            netlink
                .batch(&ops)
                .into_iter()
                .find(|done| done.as_ref().is_err_and(|e| !e.exists()))
                .unwrap_or(Ok(()))
        })
    }

    /// An address whose lease is over goes, and with it the routes through its subnet.
    pub(crate) fn take(&self, address: IpNet) -> Result<()> {
        self.inside(|netlink| match netlink.apply(&Op::AddrDel(Address::new(self.ifindex, address))) {
            Err(error) if !error.not_found() => Err(error),
            _ => Ok(()),
        })
    }

    /// Whether another host answered for the address when the kernel probed for it.
    pub(crate) fn is_duplicate(&self, address: Ipv6Addr) -> Result<bool> {
        self.inside(|netlink| {
            let own = |a: &Address| a.ifindex == self.ifindex && a.net.addr() == address;
            Ok(netlink.addresses()?.iter().any(|a| own(a) && a.duplicate))
        })
    }
}

/// The link-local address of an interface; none as long as it may not be used.
pub(crate) fn link_local(netlink: &mut Netlink, ifindex: u32) -> weft_kernel::Result<Option<Ipv6Addr>> {
    let addresses = netlink.addresses()?;
    let usable = addresses.iter().filter(|a| a.ifindex == ifindex && !a.tentative && !a.duplicate);
    Ok(usable
        .filter_map(|a| if let IpNet::V6(net) = a.net { Some(net.addr()) } else { None })
        .find(|a| a.is_unicast_link_local()))
}

fn boot() -> String {
    std::fs::read_to_string(BOOT_ID).map(|id| id.trim().to_owned()).unwrap_or_default()
}
