//! The `sriov` plugin: a virtual function of a network card is set up through its physical one,
//! moves to the container, and comes back as it was. Configuration and files are those of the
//! sriov-cni project.

mod config;
mod state;

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use weft_kernel::{Link, LinkSet, Netlink, Netns, Op, PacketFilter, PacketSocket, VfSet};
use weft_model::Mac;

use crate::interface::single::{self, Sides, Ways};
use crate::interface::sriov::config::Keys;
use crate::interface::sriov::state::{Folder, Saved};
use crate::interface::{check, device, pod};
use crate::ipam::{self, Evidence, HOST_LOCAL, Ipam};
use crate::protocol::args::Command;
use crate::protocol::config::invalid;
use crate::protocol::error::{CniError, code};
use crate::protocol::plugin::{Answer, Call};
use crate::protocol::result::{CniResult, Interface};
use crate::sandbox;

/// How long a function may take until it has a carrier, before it is announced without.
const CARRIER: Duration = Duration::from_millis(200);

/// A virtual function as sysfs shows it.
#[derive(Debug)]
struct Function {
    /// Its folder.
    folder: PathBuf,
    /// The interface of its physical function.
    master: Link,
    number: u32,
}

pub(crate) fn plugin(call: &Call, answer: Answer<'_>) -> Result<(), CniError> {
    let keys: Result<Keys, CniError> = call.keys();
    if call.command == Command::Del {
        return del(call, &Folder::of(keys.ok().and_then(|keys| keys.cni_dir).as_deref())?);
    }
    let keys = keys?;
    let folder = Folder::of(keys.cni_dir.as_deref())?;
    let ipam = single::optional_ipam(call)?;
    match call.command {
        Command::Add => add(call, &keys, &folder, &ipam, answer),
        Command::Check => {
            let id = keys.device(call)?;
            if device::interface_of(&device::pci("deviceID", &id)?)?.is_none() && is_userspace(&id)? {
                return ipam::check(call, &ipam);
            }
            match single::check(call, &ipam, None)? {
                Some(link) if link.device.as_ref().is_some_and(|device| *device != id) => {
                    Err(check::differs(format!("{} is not the device {id}", link.name)))
                }
                _ => Ok(()),
            }
        }
        Command::Gc => {
            ipam::gc(call, &ipam)?;
            gc(call, &folder)
        }
        _ => ipam::status(call, &ipam),
    }
}

fn is_userspace(id: &str) -> Result<bool, CniError> {
    device::is_userspace(&device::pci("deviceID", id)?)
}

fn add(call: &Call, keys: &Keys, folder: &Folder, ipam: &Ipam, answer: Answer<'_>) -> Result<(), CniError> {
    let (id, wanted) = (keys.device(call)?, keys.wanted(call)?);
    let Some(path) = &call.args.netns else { return Ok(()) };
    let mut host = Netlink::open()?;
    let function = find(&mut host, &id)?;
    let mut held = folder.hold(&id)?;
    if held.owner().is_some() {
        return Err(CniError::new(code::TRY_AGAIN, format!("deviceID: another container has {id}")));
    }
    let name = device::interface_of(&function.folder)?;
    if name.is_none() && !device::is_userspace(&function.folder)? {
        return Err(invalid(&format!(
            "deviceID: {id} has neither an interface on this node nor a DPDK driver"
        )));
    }
    let link = name.map(|name| host.link(&name)).transpose()?.flatten();
    let wanted = VfSet { index: function.master.index, number: function.number, ..wanted };
    let saved = saved(call, &id, &function, &wanted, link.as_ref(), &mut host)?;
    folder.save(call, &saved)?;
    let done = held.give_to(path).and_then(|()| {
        host.apply(&Op::VfSet(wanted))?;
        match &link {
            Some(link) => add_link(call, ipam, &saved, link, &wanted, answer),
            None => add_userspace(call, ipam, &saved, answer),
        }
    });
    if done.is_err() {
        let netns = sandbox::open(path).ok();
        if release(&saved, netns.as_ref(), &call.args.ifname).is_ok() {
            if let Some(link) = &link {
                device::restore_up(&mut host, link);
            }
            folder.forget(call).and_then(|()| held.free()).ok();
        }
    }
    done
}

fn find(host: &mut Netlink, id: &str) -> Result<Function, CniError> {
    let folder = device::pci("deviceID", id)?;
    let physical = folder.join("physfn");
    let none = || invalid(&format!("deviceID: {id} is no virtual function whose physical one this node has"));
    let master = physical.exists().then(|| device::interface_of(&physical)).ok_or_else(none)??;
    let master = host.link(&master.ok_or_else(none)?)?.ok_or_else(none)?;
    let is_it =
        |path: &Path| fs::read_link(path).is_ok_and(|target| target.file_name() == folder.file_name());
    let entries = fs::read_dir(&physical).into_iter().flatten().flatten();
    let number = entries
        .filter(|entry| is_it(&entry.path()))
        .find_map(|entry| entry.file_name().to_str()?.strip_prefix("virtfn")?.parse().ok());
    Ok(Function { number: number.ok_or_else(none)?, folder, master })
}

fn saved(
    call: &Call,
    id: &str,
    function: &Function,
    wanted: &VfSet,
    link: Option<&Link>,
    host: &mut Netlink,
) -> Result<Saved, CniError> {
    let vfs = host.vfs(function.master.index)?;
    let gone = || {
        let message =
            format!("{} does not know its virtual function {}", function.master.name, function.number);
        CniError::new(code::IO, message)
    };
    let now = vfs.iter().find(|vf| vf.number == function.number).ok_or_else(gone)?;
    let mut saved = Saved {
        name: call.conf.network()?.to_owned(),
        ipam: call.conf.ipam.clone().unwrap_or_default().into(),
        device_id: id.to_owned(),
        master: function.master.name.clone(),
        number: function.number,
        ifname: call.args.ifname.clone(),
        netns: pod::sandbox(call).unwrap_or_default(),
        ..Saved::default()
    };
    saved.note(wanted, now);
    if let Some(link) = link {
        saved.before.ifname = link.name.clone();
        saved.before.effective_mac = link.mac.unwrap_or_default().to_string();
        saved.before.mtu = link.mtu;
    }
    Ok(saved)
}

fn add_link(
    call: &Call,
    ipam: &Ipam,
    saved: &Saved,
    link: &Link,
    wanted: &VfSet,
    answer: Answer<'_>,
) -> Result<(), CniError> {
    let make = |sides: &mut Sides| {
        // Only down does every driver take an address.
        let down = LinkSet { index: link.index, up: Some(false), ..LinkSet::default() };
        sides.host.apply(&Op::LinkSet(down))?;
        if let Some(mac) = wanted.mac {
            let trusted = wanted.trust.unwrap_or(saved.before.trust);
            set_mac(&mut sides.host, link.index, mac, &VfSet { trust: Some(trusted), ..*wanted })?;
        }
        device::move_in(sides, link, &call.args.ifname, None)
    };
    let ways = Ways {
        neighbourhood: pod::ANNOUNCE,
        mtu: true,
        pci_id: Some(saved.device_id.clone()),
        ..Ways::default()
    };
    let undo = |netns: &Netns| drop(release(saved, Some(netns), &call.args.ifname));
    let mut answer = |result: &CniResult| {
        // Neighbours would learn of it later: no reason to fail.
        announce(call, result).ok();
        answer(result)
    };
    single::add(call, ipam, None, ways, make, undo, &mut answer)
}

/// A program uses the function itself: it is only set up.
fn add_userspace(call: &Call, ipam: &Ipam, saved: &Saved, answer: Answer<'_>) -> Result<(), CniError> {
    let admin = saved.before.admin_mac.parse::<Mac>().ok().filter(|mac| *mac != Mac::default());
    let mac = Some(saved.mac.clone()).filter(|mac| !mac.is_empty()).or(admin.map(|mac| mac.to_string()));
    let attach = |mut result: CniResult| {
        let interface = Interface {
            name: call.args.ifname.clone(),
            mac,
            sandbox: pod::sandbox(call),
            pci_id: Some(saved.device_id.clone()),
            ..Interface::default()
        };
        pod::describe(call, vec![interface], &mut result);
        Ok(result)
    };
    ipam::add(call, ipam, Evidence::Nowhere, attach, || {}, answer)
}

/// The kernel announces addresses when the link comes up, when a card has no carrier yet: IPv4 is
/// announced again (gratuitous ARP); IPv6 is by the kernel when duplicate detection ends.
fn announce(call: &Call, result: &CniResult) -> Result<(), CniError> {
    let Some(path) = &call.args.netns else { return Ok(()) };
    let netns = sandbox::open(path)?;
    let mut pod = Netlink::open_in(&netns)?;
    let deadline = Instant::now() + CARRIER;
    let link = loop {
        match pod.link(&call.args.ifname)? {
            Some(link) if link.running || Instant::now() >= deadline => break link,
            Some(_) => thread::sleep(Duration::from_millis(5)),
            None => return Ok(()),
        }
    };
    let Some(mac) = link.mac else { return Ok(()) };
    let _inside = netns.guard()?;
    let socket = PacketSocket::open(link.index, PacketFilter::Arp)?;
    for ip in &result.ips {
        if let IpAddr::V4(ip) = ip.address.addr() {
            // RFC 826: Ethernet, IPv4, lengths, request, then both sides of it; both are ours.
            let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1];
            packet.extend_from_slice(&mac.0);
            packet.extend_from_slice(&ip.octets());
            packet.extend_from_slice(&[0; 6]);
            packet.extend_from_slice(&ip.octets());
            socket.send(Mac([0xff; 6]), &packet).ok();
        }
    }
    Ok(())
}

fn del(call: &Call, folder: &Folder) -> Result<(), CniError> {
    // An address must not be given again while this container can use it; other IPAM plugins may
    // need the interface to give the address back.
    let here = call.conf.ipam_type() == HOST_LOCAL;
    let freed = if here { Ok(()) } else { ipam::del(call) };
    // The address is the name of a file.
    if let Some(saved) = folder.load(call).filter(|saved| device::is_address(&saved.device_id)) {
        let netns = call.args.netns.as_ref().and_then(|path| sandbox::open(path).ok());
        give_back(folder, &saved, netns, &call.args.ifname)?;
    }
    folder.forget(call)?;
    if here { ipam::del(call) } else { freed }
}

/// GC: functions of attachments that are no more are given back.
fn gc(call: &Call, folder: &Folder) -> Result<(), CniError> {
    let valid = call.conf.valid_attachments.iter().flatten();
    let keep: Vec<String> = valid.map(|a| format!("{}-{}", a.container_id, a.ifname)).collect();
    for (path, saved) in folder.of_network(call.conf.network()?) {
        let kept = path.file_name().is_some_and(|name| keep.iter().any(|kept| name == kept.as_str()));
        if kept || !device::is_address(&saved.device_id) {
            continue;
        }
        give_back(folder, &saved, None, &saved.ifname)?;
        state::remove(&path)?;
    }
    Ok(())
}

/// The function is given back, unless another container has it by now: then it was given back when
/// that one's ADD found the namespace of this one gone.
fn give_back(folder: &Folder, saved: &Saved, netns: Option<Netns>, ifname: &str) -> Result<(), CniError> {
    let mut held = folder.hold(&saved.device_id)?;
    let owner = held.owner();
    let is_other = |(path, _): &(String, Netns)| !saved.netns.is_empty() && *path != saved.netns;
    if owner.as_ref().is_some_and(is_other) {
        return Ok(());
    }
    let netns = netns.or(owner.map(|(_, netns)| netns));
    release(saved, netns.as_ref(), ifname)?;
    held.free()
}

/// The function is as it was before, on the node. What is gone needs nothing; of what is refused
/// the first is the error, after all else is done.
fn release(saved: &Saved, netns: Option<&Netns>, ifname: &str) -> Result<(), CniError> {
    let Ok(folder) = device::pci("deviceID", &saved.device_id) else { return Ok(()) };
    let mut host = Netlink::open()?;
    let mut first = Ok(());
    let mut note = |done: Result<(), CniError>| {
        if first.is_ok() {
            first = done;
        }
    };
    // Through the physical function first: some drivers refuse the address of one not trusted.
    if let Some(master) = host.link(&saved.master)? {
        for set in saved.restoring() {
            // Not every driver takes the absence of an address back.
            let absent = set.mac == Some(Mac::default());
            let done = host.apply(&Op::VfSet(VfSet { index: master.index, ..set }));
            note(if absent { Ok(()) } else { done.map_err(CniError::from) });
        }
    }
    if saved.before.ifname.is_empty() {
        return first;
    }
    let name = pod::link_name("the name of the function", &saved.before.ifname)?;
    if let Some(netns) = netns {
        let mut pod = Netlink::open_in(netns)?;
        let link = pod.link(ifname)?.or(pod.link(name)?);
        // Before Linux 5.14 the kernel does not tell the device; what is of a kind is no card's.
        let own = |link: &Link| match &link.device {
            Some(device) => *device == saved.device_id,
            None => link.kind.is_none() && link.name != "lo",
        };
        if let Some(link) = link.filter(own) {
            note(device::move_back(&mut pod, &link, name));
        }
    }
    // When its namespace ended, the kernel put it there under the container's name.
    if let Some(link) = device::interface_of(&folder)?.map(|now| host.link(&now)).transpose()?.flatten() {
        note(as_before(&mut host, &link, saved, name));
    }
    first
}

fn as_before(host: &mut Netlink, link: &Link, saved: &Saved, name: &str) -> Result<(), CniError> {
    let index = link.index;
    let mac = saved.before.effective_mac.parse::<Mac>().ok().filter(|mac| *mac != Mac::default());
    let mac = mac.filter(|mac| !saved.mac.is_empty() && link.mac != Some(*mac));
    if mac.is_some() || link.name != name {
        host.apply(&Op::LinkSet(LinkSet { index, up: Some(false), ..LinkSet::default() }))?;
    }
    if link.name != name {
        host.apply(&Op::LinkSet(LinkSet { index, name: Some(name.to_owned()), ..LinkSet::default() }))?;
    }
    if let (Some(mac), Some(master)) = (mac, host.link(&saved.master)?) {
        let trust = Some(saved.before.trust);
        let set = VfSet { index: master.index, number: saved.number, trust, ..VfSet::default() };
        set_mac(host, index, mac, &set)?;
    }
    Ok(())
}

/// Gives the function's own interface an address. Some drivers (igb) let only a trusted function
/// change the address that its physical one gave it, be it to the same: then it is trusted for the
/// moment. `vf` says which one it is and whether it is trusted before and after.
fn set_mac(host: &mut Netlink, index: u32, mac: Mac, vf: &VfSet) -> Result<(), CniError> {
    let addressed = Op::LinkSet(LinkSet { index, mac: Some(mac), ..LinkSet::default() });
    let done = host.apply(&addressed);
    if done.is_ok() || vf.trust == Some(true) {
        return Ok(done?);
    }
    let trust = |on| VfSet { index: vf.index, number: vf.number, trust: Some(on), ..VfSet::default() };
    host.apply(&Op::VfSet(trust(true)))?;
    let again = host.apply(&addressed);
    host.apply(&Op::VfSet(trust(false)))?;
    Ok(again?)
}
