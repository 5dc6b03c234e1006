//! A device of the node that a container has for a while: where it is in sysfs, how it goes to
//! the container, and how it comes back.

use std::fs;
use std::path::{Path, PathBuf};

use weft_kernel::{Link, LinkSet, Netlink, Netns, Op};

use crate::interface::single::Sides;
use crate::protocol::config::invalid;
use crate::protocol::error::{CniError, code};

/// The folder of a bus's devices, each by its address.
const PCI: &str = "/sys/bus/pci/devices";
const AUXILIARY: &str = "/sys/bus/auxiliary/devices";
/// Drivers that give the device to a program (DPDK): there is no interface then.
const USERSPACE_DRIVERS: [&str; 3] = ["vfio-pci", "uio_pci_generic", "igb_uio"];

/// Whether it can be the address of a device, and so the name of a file.
pub(crate) fn is_address(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '.' | '-' | '_');
    !text.is_empty() && !text.starts_with('.') && text.len() <= 64 && text.chars().all(plain)
}

/// A device of a bus by its address in `key`: its folder in sysfs, if it is there.
fn on_bus(bus: &str, key: &str, address: &str) -> Result<Option<PathBuf>, CniError> {
    if !is_address(address) {
        return Err(invalid(&format!("{key}: {address:?} is no address of a device")));
    }
    let path = Path::new(bus).join(address);
    Ok(path.exists().then_some(path))
}

/// A PCI device.
pub(crate) fn pci(key: &str, address: &str) -> Result<PathBuf, CniError> {
    let absent = || invalid(&format!("{key}: there is no PCI device {address} on this node"));
    on_bus(PCI, key, address)?.ok_or_else(absent)
}

/// The device of a runtime: a PCI address or the name of a device on the auxiliary bus.
pub(crate) fn of_runtime(id: &str) -> Result<PathBuf, CniError> {
    let key = "runtimeConfig.deviceID";
    if let Some(path) = on_bus(PCI, key, id)? {
        return Ok(path);
    }
    let absent = || invalid(&format!("{key}: there is no PCI or auxiliary device {id} on this node"));
    on_bus(AUXILIARY, key, id)?.ok_or_else(absent)
}

/// Whether a program has the device by one of the drivers for that.
pub(crate) fn is_userspace(device: &Path) -> Result<bool, CniError> {
    let driver = fs::canonicalize(device.join("driver"))
        .map_err(|error| io(&format!("cannot read the driver of {}: {error}", device.display())))?;
    Ok(driver.file_name().is_some_and(|name| USERSPACE_DRIVERS.iter().any(|known| name == *known)))
}

/// The name of the device's interface; that of a virtio device is one level below.
pub(crate) fn interface_of(device: &Path) -> Result<Option<String>, CniError> {
    let first = |folder: &Path| -> Option<String> {
        fs::read_dir(folder).ok()?.flatten().find_map(|entry| entry.file_name().into_string().ok())
    };
    if let Some(name) = first(&device.join("net")) {
        return Ok(Some(name));
    }
    let below = fs::read_dir(device)
        .map_err(|error| io(&format!("cannot read {}: {error}", device.display())))?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("virtio"));
    Ok(below.map(|entry| entry.path().join("net")).find_map(|folder| first(&folder)))
}

/// Moves `link` to the container under `name` and with this alias, by one request: it is there
/// whole or not at all.
pub(crate) fn move_in(
    sides: &mut Sides,
    link: &Link,
    name: &str,
    alias: Option<String>,
) -> Result<Link, CniError> {
    let moved = LinkSet {
        index: link.index,
        name: Some(name.to_owned()),
        alias,
        netns: Some(sides.netns.clone()),
        ..LinkSet::default()
    };
    if let Err(error) = sides.host.apply(&Op::LinkSet(moved)) {
        // Only its name was refused: it is in the other namespace, under its own.
        if let (true, Ok(Some(stray))) = (error.exists(), sides.pod.link(&link.name)) {
            move_back(&mut sides.pod, &stray, &link.name).ok();
        }
        restore_up(&mut sides.host, link);
        return Err(error.into());
    }
    let gone = || CniError::new(code::TRY_AGAIN, format!("{} vanished while it was moved", link.name));
    sides.pod.link(name)?.ok_or_else(gone)
}

/// A link that was up before is up again: moving sets it down.
pub(crate) fn restore_up(host: &mut Netlink, link: &Link) {
    if let (true, Ok(Some(back))) = (link.up, host.link(&link.name)) {
        host.apply(&Op::LinkSet(LinkSet { index: back.index, up: Some(true), ..LinkSet::default() })).ok();
    }
}

/// Moves the container's `link` back to the node, the calling thread's namespace, as `name`. It
/// is renamed before, so that no program of the node sees it with the container's name.
pub(crate) fn move_back(pod: &mut Netlink, link: &Link, name: &str) -> Result<(), CniError> {
    let index = link.index;
    let down = LinkSet { index, up: Some(false), ..LinkSet::default() };
    let renamed =
        LinkSet { index, name: Some(name.to_owned()), alias: Some(String::new()), ..LinkSet::default() };
    let mut moved = LinkSet { index, netns: Some(Netns::current()?), ..LinkSet::default() };
    let results = pod.batch(&[Op::LinkSet(down), Op::LinkSet(renamed.clone())]);
    for done in results {
        match done {
            // The container has another one of that name: renamed while it is moved then.
            Err(error) if error.exists() => {
                (moved.name, moved.alias) = (renamed.name.clone(), renamed.alias.clone());
            }
            other => other?,
        }
    }
    if let Err(error) = pod.apply(&Op::LinkSet(moved)) {
        let before = LinkSet {
            index,
            name: Some(link.name.clone()),
            alias: Some(name.to_owned()),
            up: Some(link.up),
            ..LinkSet::default()
        };
        pod.apply(&Op::LinkSet(before)).ok();
        return Err(error.into());
    }
    Ok(())
}

fn io(message: &str) -> CniError {
    CniError::new(code::IO, message)
}
