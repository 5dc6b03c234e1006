//! Takes a host over from flannel, whose daemon has ended: what would be in the way goes, and its
//! pods keep their links and addresses.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use weft_kernel::nft::{Nft, Transaction};
use weft_kernel::{Link, LinkSet, Netlink, Op};
use weft_model::mark;

use super::iptables;
use super::leftovers::{BRIDGE, CONFLIST, in_the_way};

/// Where flannel's things are on this host.
#[derive(Clone, Debug)]
pub struct Adoption {
    /// Only says what it would do.
    pub dry_run: bool,
    /// Where the container runtime looks for network configurations.
    pub cni_conf_dir: PathBuf,
    /// Where `host-local` keeps its allocations, flannel's and ours.
    pub cni_data_dir: PathBuf,
    /// The name of flannel's network there.
    pub network: String,
    /// Flannel's `subnet.env`.
    pub subnet_file: PathBuf,
}

/// Does what is to be done in the calling thread's network namespace; `tell` gets a sentence for
/// each step before it is taken.
pub fn adopt(options: &Adoption, mut tell: impl FnMut(&str)) -> Result<()> {
    if let Some(pid) = flanneld() {
        bail!("flanneld runs here (process {pid}): end it first, so that the two do not fight");
    }
    let mut adopter = Adopter { options, netlink: Netlink::open()?, tell: &mut tell };
    let networks = networks(&options.subnet_file)?;
    // The reservations first: from when the bridge is ours, our plugin gives addresses.
    adopter.reservations()?;
    adopter.conflist()?;
    adopter.routes(&networks)?;
    adopter.links(&networks)?;
    adopter.rules()
}

struct Adopter<'a> {
    options: &'a Adoption,
    netlink: Netlink,
    tell: &'a mut dyn FnMut(&str),
}

impl Adopter<'_> {
    /// Says `what`; whether it is to be done.
    fn step(&mut self, what: &str) -> bool {
        (self.tell)(what);
        !self.options.dry_run
    }

    /// Addresses that flannel's pods have become reservations of our network, in the same words.
    fn reservations(&mut self) -> Result<()> {
        let from = self.options.cni_data_dir.join(&self.options.network);
        let to = self.options.cni_data_dir.join(mark::CNI_NETWORK);
        let Ok(entries) = fs::read_dir(&from) else { return Ok(()) };
        let is_address = |name: &str| name.parse::<IpAddr>().is_ok();
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| is_address(name)).collect();
        names.sort();
        if names.is_empty() || !self.step(&format!("keep {} addresses of {}", names.len(), from.display())) {
            return Ok(());
        }
        fs::create_dir_all(&to).with_context(|| format!("make the folder {}", to.display()))?;
        for name in names {
            let (old, new) = (from.join(&name), to.join(&name));
            // Not over one of ours: whoever has the address now keeps it.
            if !new.exists() {
                fs::rename(&old, &new).with_context(|| format!("move {}", old.display()))?;
            }
        }
        Ok(())
    }

    fn conflist(&mut self) -> Result<()> {
        let path = self.options.cni_conf_dir.join(CONFLIST);
        let aside = path.with_extension("conflist.adopted");
        if path.exists() && self.step(&format!("rename {} to {}", path.display(), aside.display())) {
            fs::rename(&path, &aside).with_context(|| format!("rename {}", path.display()))?;
        }
        Ok(())
    }

    /// Routes to flannel's other subnets, of the backends that make them on other links than theirs.
    fn routes(&mut self, networks: &[IpNet]) -> Result<()> {
        let theirs = |route: &weft_kernel::Route| {
            let inside = networks.iter().any(|network| network.contains(&route.dst) && *network != route.dst);
            inside && route.via.is_some() && route.protocol != mark::ROUTE_PROTOCOL
        };
        for route in self.netlink.routes()?.into_iter().filter(theirs) {
            if self.step(&format!("remove the route to {}", route.dst)) {
                gone(self.netlink.apply(&Op::RouteDel(route)))?;
            }
        }
        Ok(())
    }

    fn links(&mut self, networks: &[IpNet]) -> Result<()> {
        let (links, addresses) = (self.netlink.links()?, self.netlink.addresses()?);
        for link in in_the_way(&links, &addresses, networks) {
            if link.name == BRIDGE {
                self.bridge(link, &links)?;
            } else if self.step(&format!("remove the link {}", link.name)) {
                gone(self.netlink.apply(&Op::LinkDel(link.index)))?;
            }
        }
        Ok(())
    }

    /// Its bridge becomes ours with all its ports, or its ports go to ours where there is one.
    fn bridge(&mut self, theirs: &Link, links: &[Link]) -> Result<()> {
        let Some(ours) = links.iter().find(|link| link.name == mark::BRIDGE) else {
            if self.step(&format!("rename the bridge {BRIDGE} to {}", mark::BRIDGE)) {
                let set = LinkSet { index: theirs.index, ..LinkSet::default() };
                let name = Some(mark::BRIDGE.to_owned());
                self.netlink.apply(&Op::LinkSet(LinkSet { up: Some(false), ..set.clone() }))?;
                self.netlink.apply(&Op::LinkSet(LinkSet { name, ..set.clone() }))?;
                self.netlink.apply(&Op::LinkSet(LinkSet { up: Some(true), ..set }))?;
            }
            return Ok(());
        };
        let ports: Vec<&Link> = links.iter().filter(|link| link.master == Some(theirs.index)).collect();
        if self.step(&format!("move {} links from {BRIDGE} to {} and remove it", ports.len(), mark::BRIDGE)) {
            for port in ports {
                let master = Some(Some(ours.index));
                let set = LinkSet { index: port.index, master, ..LinkSet::default() };
                gone(self.netlink.apply(&Op::LinkSet(set)))?;
                let set = LinkSet { index: port.index, hairpin: Some(true), ..LinkSet::default() };
                gone(self.netlink.apply(&Op::LinkSet(set)))?;
            }
            gone(self.netlink.apply(&Op::LinkDel(theirs.index)))?;
        }
        Ok(())
    }

    /// Flannel's masquerading and forwarding, in nftables and by iptables.
    fn rules(&mut self) -> Result<()> {
        let mut nft = Nft::open()?;
        for table in nft.tables()?.iter().filter(|t| t.name == "flannel-ipv4" || t.name == "flannel-ipv6") {
            if self.step(&format!("remove the nftables table {}", table.name)) {
                let mut transaction = Transaction::default();
                transaction.delete_table(table);
                nft.apply(&transaction)?;
            }
        }
        iptables::remove(&nft.tables()?, &mut |what| self.step(what))
    }
}

/// What is gone already needs nothing.
fn gone(result: weft_kernel::Result<()>) -> weft_kernel::Result<()> {
    match result {
        Err(error) if error.not_found() => Ok(()),
        other => other,
    }
}

/// The networks of all nodes as `subnet.env` names them; none where there is no such file.
fn networks(subnet_file: &Path) -> Result<Vec<IpNet>> {
    let text = match fs::read_to_string(subnet_file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", subnet_file.display())),
    };
    weft_fabric::flannel::networks_of(&text).with_context(|| format!("read {}", subnet_file.display()))
}

/// A running flanneld in this network namespace.
fn flanneld() -> Option<u32> {
    let here = fs::read_link("/proc/thread-self/ns/net").ok()?;
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.find(|pid| {
        let is = |file: &str, text: &str| fs::read_to_string(file).is_ok_and(|found| found.trim() == text);
        is(&format!("/proc/{pid}/comm"), "flanneld")
            && fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|there| there == here)
    })
}
