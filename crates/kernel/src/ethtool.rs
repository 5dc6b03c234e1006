//! Features of a device that only `ethtool` sets.

use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use crate::{Error, Result};

// linux/sockios.h and linux/ethtool.h, which libc has in part.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GTXCSUM: u32 = 0x16;
const ETHTOOL_STXCSUM: u32 = 0x17;

/// struct ethtool_value.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// struct ifreq with its pointer in use.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    data: *mut Value,
    rest: [u8; 16],
}

/// Whether the link `name` leaves checksums of what it sends to the device below
/// (`ethtool -k NAME`, tx-checksumming).
pub fn tx_checksum(name: &str) -> Result<bool> {
    exchange("read tx-checksumming of link", name, Value { command: ETHTOOL_GTXCSUM, data: 0 })
        .map(|data| data != 0)
}

/// Lets the link `name` leave checksums to the device below, or compute them itself
/// (`ethtool -K NAME tx on|off`).
pub fn set_tx_checksum(name: &str, on: bool) -> Result<()> {
    let value = Value { command: ETHTOOL_STXCSUM, data: on.into() };
    exchange("set tx-checksumming of link", name, value).map(drop)
}

fn exchange(what: &'static str, name: &str, mut value: Value) -> Result<u32> {
    let failed = |e: std::io::Error| Error::sys(what, name.to_owned(), e);
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(failed(std::io::ErrorKind::InvalidInput.into()));
    }
    // Any socket does: it names the namespace.
    let socket = UdpSocket::bind("127.0.0.1:0").or_else(|_| UdpSocket::bind("[::]:0")).map_err(failed)?;
    let mut request = Request { name: [0; libc::IFNAMSIZ], data: &raw mut value, rest: [0; 16] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: the descriptor is open; `request` has the form of struct ifreq and no less than its size,
    // and both it and `value`, which it points to, live through the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if done < 0 { Err(failed(std::io::Error::last_os_error())) } else { Ok(value.data) }
}
