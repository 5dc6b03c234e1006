//! The raw netlink socket under [`crate::Netlink`], [`crate::Monitor`] and [`crate::ipvs::Ipvs`].

use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Dumps arrive in pieces of at most 32 KiB; a single answer is larger only for a card of hundreds of
/// virtual functions. Below the size from which the allocator maps memory, which takes longer, and
/// not cleared: only the pages that are used are touched.
const BUFFER: usize = 120 * 1024;

#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    buffer: Box<[MaybeUninit<u8>]>,
}

impl Socket {
    /// A socket in the calling thread's namespace that also receives the multicast `groups` (a
    /// bit for each), with room for `receive_bytes` of unread messages.
    pub(crate) fn open(groups: u32, receive_bytes: libc::c_int) -> io::Result<Socket> {
        Socket::open_for(libc::NETLINK_ROUTE, groups, receive_bytes)
    }

    /// The same for another protocol of netlink.
    pub(crate) fn open_for(
        protocol: libc::c_int,
        groups: u32,
        receive_bytes: libc::c_int,
    ) -> io::Result<Socket> {
        // SAFETY: no pointers; a negative result is no descriptor and is not wrapped.
        let raw = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above just made it and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let socket = Socket { fd, buffer: Box::new_uninit_slice(BUFFER) };
        socket.option(libc::SOL_NETLINK, libc::NETLINK_GET_STRICT_CHK, 1)?;
        socket.option(libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, 1)?;
        socket.option(libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1)?;
        // Forcing needs a privilege that a user namespace does not give: then up to rmem_max.
        if socket.option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, receive_bytes).is_err() {
            socket.option(libc::SOL_SOCKET, libc::SO_RCVBUF, receive_bytes)?;
        }
        socket.bind(groups)?;
        Ok(socket)
    }

    fn option(&self, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
        let len = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: `value` lives through the call and `len` is its size.
        let done =
            unsafe { libc::setsockopt(self.fd.as_raw_fd(), level, name, (&raw const value).cast(), len) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn bind(&self, groups: u32) -> io::Result<()> {
        // SAFETY: all zero bytes are a valid sockaddr_nl.
        let mut address: libc::sockaddr_nl = unsafe { mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        address.nl_groups = groups;
        let len = size_of_val(&address) as libc::socklen_t;
        // SAFETY: `address` lives through the call and `len` is its size.
        let done = unsafe { libc::bind(self.fd.as_raw_fd(), (&raw const address).cast(), len) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Sends one datagram of requests to the kernel.
    pub(crate) fn send(&self, requests: &[u8]) -> io::Result<()> {
        let to_kernel = rustix::net::SendFlags::empty();
        loop {
            match rustix::net::send(&self.fd, requests, to_kernel) {
                Err(rustix::io::Errno::INTR) => {}
                sent => return sent.map(drop).map_err(Into::into),
            }
        }
    }

    /// One datagram of the kernel. With `wait` false and nothing there: `WouldBlock`.
    pub(crate) fn receive(&mut self, wait: bool) -> io::Result<&[u8]> {
        let flags = if wait { 0 } else { libc::MSG_DONTWAIT };
        let len = loop {
            match self.receive_from(flags | libc::MSG_TRUNC) {
                // Another process may write to our port; only the kernel is port 0.
                Ok((_, sender)) if sender != 0 => {}
                Ok((len, _)) => break len,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        };
        let datagram = self.buffer.get(..len).ok_or_else(|| io::Error::from_raw_os_error(libc::EMSGSIZE))?;
        // SAFETY: the kernel has written `len` bytes, which the buffer has room for.
        Ok(unsafe { datagram.assume_init_ref() })
    }

    fn receive_from(&mut self, flags: libc::c_int) -> io::Result<(usize, u32)> {
        // SAFETY: all zero bytes are a valid sockaddr_nl.
        let mut sender: libc::sockaddr_nl = unsafe { mem::zeroed() };
        let mut sender_len = size_of_val(&sender) as libc::socklen_t;
        // SAFETY: the buffer and `sender` are ours, live through the call, and are given with
        // their sizes.
        let len = unsafe {
            libc::recvfrom(
                self.fd.as_raw_fd(),
                self.buffer.as_mut_ptr().cast(),
                self.buffer.len(),
                flags,
                (&raw mut sender).cast(),
                &raw mut sender_len,
            )
        };
        let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
        Ok((len, sender.nl_pid))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
