//! The `host-device` plugin: an interface of the node moves to the container and back.

use std::cell::RefCell;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use weft_kernel::{Link, Netlink, Netns};

use crate::interface::single::{self, Sides, Ways};
use crate::interface::{device, pod};
use crate::ipam::{self, Evidence, Ipam};
use crate::protocol::args::Command;
use crate::protocol::config::{Dns, invalid};
use crate::protocol::error::CniError;
use crate::protocol::plugin::{Answer, Call};
use crate::protocol::result::{CniResult, Interface};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Keys {
    device: Option<String>,
    hwaddr: Option<String>,
    kernelpath: Option<String>,
    #[serde(rename = "pciBusID")]
    pci_bus_id: Option<String>,
}

/// How the device is named; the first key that is given decides.
#[derive(Debug)]
enum Named {
    Name(String),
    Address(String),
    /// Its folder in sysfs.
    Folder(PathBuf),
}

pub(crate) fn plugin(call: &Call, answer: Answer<'_>) -> Result<(), CniError> {
    if call.command == Command::Del {
        return single::del_with(call, |netns| give_back(call, netns));
    }
    let ipam = single::optional_ipam(call)?;
    match call.command {
        Command::Add => {
            let (named, pci) = named(call)?;
            if pci.as_deref().map(device::is_userspace).transpose()? == Some(true) {
                return add_userspace(call, &ipam, answer);
            }
            add(call, &ipam, &named, answer)
        }
        Command::Check => {
            let (_, pci) = named(call)?;
            if pci.as_deref().map(device::is_userspace).transpose()? == Some(true) {
                return ipam::check(call, &ipam);
            }
            single::check(call, &ipam, None).map(drop)
        }
        Command::Gc => ipam::gc(call, &ipam),
        _ => ipam::status(call, &ipam),
    }
}

/// The device, and its folder if it is a PCI device.
fn named(call: &Call) -> Result<(Named, Option<PathBuf>), CniError> {
    let keys: Keys = call.keys()?;
    let given = |key: Option<String>| key.filter(|text| !text.is_empty());
    let runtime = call.conf.runtime_config.as_ref().and_then(|config| config.device_id.clone());
    let folder = match (given(runtime), given(keys.pci_bus_id)) {
        (Some(id), _) => Some(device::of_runtime(&id)?),
        (None, Some(address)) => Some(device::pci("pciBusID", &address)?),
        (None, None) => None,
    };
    let pci = folder.clone().filter(|folder| folder.starts_with("/sys/bus/pci"));
    let named = if let Some(name) = given(keys.device) {
        Named::Name(pod::link_name("device", &name)?.to_owned())
    } else if let Some(address) = given(keys.hwaddr) {
        Named::Address(address)
    } else if let Some(path) = given(keys.kernelpath) {
        Named::Folder(kernel_path(path)?)
    } else if let Some(folder) = folder {
        Named::Folder(folder)
    } else {
        return Err(invalid("the device is missing: give device, hwaddr, kernelpath or pciBusID"));
    };
    Ok((named, pci))
}

fn kernel_path(path: String) -> Result<PathBuf, CniError> {
    let refused = || invalid(&format!("kernelpath: {path:?} does not begin with /sys/devices/"));
    let plain = Path::new(&path).components().all(|part| !matches!(part, Component::ParentDir));
    if plain && path.starts_with("/sys/devices/") { Ok(path.into()) } else { Err(refused()) }
}

fn find(host: &mut Netlink, named: &Named) -> Result<Link, CniError> {
    let absent =
        |key: &str, value: &str| invalid(&format!("{key}: there is no interface {value} on this node"));
    match named {
        Named::Name(name) => host.link(name)?.ok_or_else(|| absent("device", name)),
        Named::Address(text) => {
            let mac = pod::parse_mac("hwaddr", text)?;
            let found = host.links()?.into_iter().find(|link| link.mac == Some(mac));
            found.ok_or_else(|| absent("hwaddr", text))
        }
        Named::Folder(folder) => {
            let shown = folder.display().to_string();
            let name = device::interface_of(folder)?;
            let none = || invalid(&format!("the device {shown} has no interface"));
            host.link(&name.ok_or_else(none)?)?.ok_or_else(|| absent("the device", &shown))
        }
    }
}

fn add(call: &Call, ipam: &Ipam, named: &Named, answer: Answer<'_>) -> Result<(), CniError> {
    let before = RefCell::new(None);
    let make = |sides: &mut Sides| {
        let link = find(&mut sides.host, named)?;
        before.replace(Some(link.clone()));
        device::move_in(sides, &link, &call.args.ifname, Some(link.name.clone()))
    };
    let undo = |netns: &Netns| {
        give_back(call, netns).ok();
        if let (Some(link), Ok(mut host)) = (before.take(), Netlink::open()) {
            device::restore_up(&mut host, &link);
        }
    };
    single::add(call, ipam, None, Ways::default(), make, undo, answer)
}

/// A program uses the device itself: there is only an address to get.
fn add_userspace(call: &Call, ipam: &Ipam, answer: Answer<'_>) -> Result<(), CniError> {
    let attach = |mut result: CniResult| {
        result.dns = Dns::default();
        let interface =
            Interface { name: call.args.ifname.clone(), sandbox: pod::sandbox(call), ..Interface::default() };
        pod::describe(call, vec![interface], &mut result);
        Ok(result)
    };
    ipam::add(call, ipam, Evidence::Nowhere, attach, || {}, answer)
}

/// The device gets its name, which is its alias, and goes back to the node, where it stays down as
/// nobody knows how it was. An interface without an alias is none that came from there.
fn give_back(call: &Call, netns: &Netns) -> Result<(), CniError> {
    let mut pod = Netlink::open_in(netns)?;
    let Some(link) = pod.link(&call.args.ifname)? else { return Ok(()) };
    match &link.alias {
        Some(name) => device::move_back(&mut pod, &link, pod::link_name("the alias of the device", name)?),
        None => Ok(()),
    }
}
