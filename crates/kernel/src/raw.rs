//! Sending IP packets whose headers are one's own.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::sockaddr::to_name;
use crate::{Error, Result};

/// Sends whole IPv4 and IPv6 packets; receives nothing.
#[derive(Debug)]
pub struct RawSender {
    v4: OwnedFd,
    /// Missing where the kernel has no IPv6.
    v6: Option<OwnedFd>,
}

impl RawSender {
    /// Opens it in the calling thread's namespace. Needs CAP_NET_RAW there.
    pub fn open() -> Result<RawSender> {
        let failed = |e| Error::sys("open", "a raw IP socket", e);
        Ok(RawSender { v4: open(libc::AF_INET).map_err(failed)?, v6: open(libc::AF_INET6).ok() })
    }

    /// Sends a packet, headers included, by the route to `to`.
    pub fn send(&self, to: IpAddr, packet: &[u8]) -> io::Result<()> {
        let fd = if to.is_ipv4() { Some(&self.v4) } else { self.v6.as_ref() };
        let fd = fd.ok_or(io::ErrorKind::Unsupported)?;
        let (name, length) = to_name(SocketAddr::new(to, 0));
        // SAFETY: both pointers are to memory that lives through the call, with its size.
        let sent = unsafe {
            let name = (&raw const name).cast();
            libc::sendto(fd.as_raw_fd(), packet.as_ptr().cast(), packet.len(), 0, name, length)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn open(family: libc::c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers; a negative result is no descriptor and is not wrapped. Of IPPROTO_RAW
    // the headers are always the sender's own, and nothing is received.
    let raw = unsafe { libc::socket(family, kind, libc::IPPROTO_RAW) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above just made it and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}
