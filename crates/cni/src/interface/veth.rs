//! The veth pair between a container and the node.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

use weft_kernel::{Link, LinkKind, Netlink, Netns, NewLink, Op, sysctl};
use weft_model::{Mac, mark};

use crate::interface::pod;
use crate::protocol::error::{CniError, code};
use crate::protocol::plugin::Call;
use crate::protocol::result::Interface;
use crate::sandbox;

/// How long the kernel may take until a new pair has a carrier.
const CARRIER: Duration = Duration::from_secs(5);

/// The node, the container, and a socket in each.
pub(crate) struct Sides {
    pub(crate) host: Netlink,
    pub(crate) pod: Netlink,
    pub(crate) netns: Netns,
}

impl Sides {
    /// Opens both; the container has no interface CNI_IFNAME yet.
    pub(crate) fn open(call: &Call) -> Result<Sides, CniError> {
        let netns = sandbox::of(call)?;
        let mut sides = Sides { host: Netlink::open()?, pod: Netlink::open_in(&netns)?, netns };
        match sides.pod.link(&call.args.ifname)? {
            Some(_) => Err(pod::present(call)),
            None => Ok(sides),
        }
    }
}

/// A pair to make.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    /// The name of the node's end.
    pub(crate) host_link: String,
    pub(crate) host_mac: Mac,
    /// Random when absent.
    pub(crate) pod_mac: Option<Mac>,
    /// The kernel's default when absent.
    pub(crate) mtu: Option<u32>,
    /// The bridge that the node's end becomes a port of.
    pub(crate) master: Option<u32>,
    pub(crate) alias: Option<String>,
}

impl Pair {
    /// The pair of an attachment. The hardware address of the node's end is made from its name:
    /// one that is set when the link is made is left alone by udev.
    pub(crate) fn of(call: &Call, mtu: Option<u32>) -> Pair {
        let host_link = host_link(call);
        let digits = host_link.get(2..12).unwrap_or("0000000000");
        let number = u64::from_str_radix(digits, 16).unwrap_or_default().to_be_bytes();
        Pair {
            host_mac: Mac([0x5a, number[3], number[4], number[5], number[6], number[7]]),
            pod_mac: None,
            mtu,
            master: None,
            alias: call.args.extra.pod.as_ref().map(|pod| format!("{}{pod}", mark::ALIAS_PREFIX)),
            host_link,
        }
    }

    /// Makes both ends by one request, each where it belongs, so that none is ever visible
    /// elsewhere. The node's end is up; answers it, and the index of the container's. `made` says
    /// whether there is something to undo.
    pub(crate) fn make(
        &self,
        call: &Call,
        made: &Cell<bool>,
        sides: &mut Sides,
    ) -> Result<(Link, u32), CniError> {
        let kind = LinkKind::Veth {
            peer_name: call.args.ifname.clone(),
            peer_netns: Some(sides.netns.clone()),
            peer_mac: self.pod_mac,
            peer_mtu: self.mtu,
            // With its addresses, in one batch of the container's socket.
            peer_up: false,
        };
        let mut pair = NewLink::new(&self.host_link, kind);
        pair.mtu = self.mtu;
        pair.mac = Some(self.host_mac);
        pair.master = self.master;
        pair.alias = self.alias.clone();
        pair.up = true;
        match sides.host.apply(&Op::LinkAdd(pair)) {
            Err(error) if error.exists() && sides.pod.link(&call.args.ifname)?.is_some() => {
                return Err(pod::present(call));
            }
            Err(error) => {
                // Of an answer that got lost nobody knows whether it was made.
                made.set(!error.exists());
                return Err(error.into());
            }
            Ok(()) => made.set(true),
        }
        // A kernel without IPv6 has no such parameter; routes come from us, not from the pods.
        sysctl::set(&format!("net/ipv6/conf/{}/accept_ra", self.host_link), "0").ok();
        let gone = |what: &str| CniError::new(code::TRY_AGAIN, format!("{} {what}", self.host_link));
        let link = sides.host.link(&self.host_link)?.ok_or_else(|| gone("vanished while it was made"))?;
        let peer = link.peer.ok_or_else(|| gone("has no other end"))?;
        Ok((link, peer))
    }
}

/// The container's end as the result names it. It is only asked for where its hardware address is
/// the kernel's choice.
pub(crate) fn inside(
    call: &Call,
    sides: &mut Sides,
    index: u32,
    link: &Link,
    mac: Option<Mac>,
) -> Result<Interface, CniError> {
    if let Some(mac) = mac {
        let name = call.args.ifname.clone();
        let pod = Link { name, mac: Some(mac), mtu: link.mtu, ..Link::default() };
        return Ok(Interface::of(&pod, pod::sandbox(call)));
    }
    let gone = || CniError::new(code::TRY_AGAIN, format!("{} vanished from the container", call.args.ifname));
    let pod = sides.pod.link_by_index(index)?.ok_or_else(gone)?;
    Ok(Interface::of(&pod, pod::sandbox(call)))
}

/// The name of the node's end.
pub(crate) fn host_link(call: &Call) -> String {
    call.args.attachment().key()
}

/// Waits until the kernel has told the link of its carrier, which is soon but not at once: a
/// bridge opens its port only then, and what the container sent before would be lost.
pub(crate) fn wait_carrier(host: &mut Netlink, link: &Link) -> Result<(), CniError> {
    let deadline = Instant::now() + CARRIER;
    let mut pause = Duration::from_micros(100);
    loop {
        match host.link_by_index(link.index)? {
            Some(link) if link.running => return Ok(()),
            Some(_) if Instant::now() < deadline => {}
            found => {
                let state = if found.is_some() { "got no carrier" } else { "vanished" };
                return Err(CniError::new(code::TRY_AGAIN, format!("{} {state}", link.name)));
            }
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// DEL: removes the pair, whatever is left of it. A container that another program attached has
/// another name on the node's side, so it is looked for in the container then.
pub(crate) fn remove(call: &Call) -> Result<(), CniError> {
    if remove_link(&mut Netlink::open()?, &host_link(call))? {
        return Ok(());
    }
    let netns = call.args.netns.as_ref().and_then(|path| sandbox::open(path).ok());
    let Some(netns) = netns else { return Ok(()) };
    remove_link(&mut Netlink::open_in(&netns)?, &call.args.ifname).map(drop)
}

/// Whether there was such a veth to be removed.
pub(crate) fn remove_link(netlink: &mut Netlink, name: &str) -> Result<bool, CniError> {
    let link = netlink.link(name)?;
    let Some(link) = link.filter(|link| link.kind.as_deref() == Some("veth")) else { return Ok(false) };
    match netlink.apply(&Op::LinkDel(link.index)) {
        Err(error) if !error.not_found() => Err(error.into()),
        _ => Ok(true),
    }
}
