//! Persistent tap interfaces, which netlink cannot make.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use crate::{Error, Result};

/// A tap interface to make: Ethernet frames go to and from the program that opens it.
#[derive(Clone, Debug, Default)]
pub struct NewTap {
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Whether several queues may be opened.
    pub multi_queue: bool,
    /// Whether frames have the header of virtio-net in front.
    pub virtio_header: bool,
    /// Whether frames have the header of the tun driver in front.
    pub packet_info: bool,
    /// The user that may open it beside root.
    pub owner: Option<u32>,
    /// The group that may open it beside root.
    pub group: Option<u32>,
}

const DEVICE: &str = "/dev/net/tun";

/// The kernel's `struct ifreq` as the tun driver reads it: a name, flags, and the rest of the
/// union that it does not look at.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}

/// Makes a tap interface in the calling thread's namespace, which stays until it is removed.
/// Fails if the name is taken.
pub fn add_tap(tap: &NewTap) -> Result<()> {
    let failed = |e: std::io::Error| Error::sys("add tap interface", tap.name.clone(), e);
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(DEVICE)
        .map_err(|e| Error::sys("open", DEVICE, e))?;
    let mut request = Request { name: [0; libc::IFNAMSIZ], flags: flags(tap), rest: [0; 22] };
    if tap.name.is_empty() || tap.name.len() >= libc::IFNAMSIZ {
        return Err(failed(std::io::ErrorKind::InvalidInput.into()));
    }
    request.name[..tap.name.len()].copy_from_slice(tap.name.as_bytes());
    let fd = device.as_raw_fd();
    let done = |result: libc::c_int| {
        if result < 0 { Err(failed(std::io::Error::last_os_error())) } else { Ok(()) }
    };
    // SAFETY: fd is open; `request` has the size and form of struct ifreq and lives through the
    // call, which the driver may write the name back to.
    done(unsafe { libc::ioctl(fd, libc::TUNSETIFF, &raw mut request) })?;
    // From here on closing the device removes the interface again, until it is persistent.
    if let Some(owner) = tap.owner {
        // SAFETY: fd is open; the argument is a number.
        done(unsafe { libc::ioctl(fd, libc::TUNSETOWNER, libc::c_ulong::from(owner)) })?;
    }
    if let Some(group) = tap.group {
        // SAFETY: as above.
        done(unsafe { libc::ioctl(fd, libc::TUNSETGROUP, libc::c_ulong::from(group)) })?;
    }
    // SAFETY: as above.
    done(unsafe { libc::ioctl(fd, libc::TUNSETPERSIST, libc::c_ulong::from(1u32)) })
}

fn flags(tap: &NewTap) -> libc::c_short {
    let mut flags = libc::IFF_TAP | libc::IFF_TUN_EXCL;
    for (wanted, flag) in [
        (tap.multi_queue, libc::IFF_MULTI_QUEUE),
        (tap.virtio_header, libc::IFF_VNET_HDR),
        (!tap.packet_info, libc::IFF_NO_PI),
    ] {
        flags |= if wanted { flag } else { 0 };
    }
    // The bits fit sixteen; the highest of them makes the number negative.
    flags as libc::c_short
}
