use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::Netlink;

/// Sends whole Ethernet frames, hardware addresses and all, out of `device` of the calling thread's
/// namespace.
pub fn send_frames(device: &str, frames: impl IntoIterator<Item = Vec<u8>>) -> io::Result<()> {
    let link = Netlink::open().and_then(|mut netlink| netlink.link(device)).map_err(io::Error::other)?;
    let index = link.ok_or(io::ErrorKind::NotFound)?.index;
    // SAFETY: no pointers; a negative result is no descriptor and is not wrapped.
    let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above just made it and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: all zero bytes are a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = index.cast_signed();
    let length = size_of_val(&address) as libc::socklen_t;
    for frame in frames {
        // SAFETY: both pointers are to memory that lives through the call, with its size.
        let sent = unsafe {
            let to = (&raw const address).cast();
            libc::sendto(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, to, length)
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
