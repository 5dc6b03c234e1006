use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::net::RecvFlags;

/// asm-generic/socket.h.
const SO_NETNS_COOKIE: i32 = 71;
const RECEIVE_SIZE: usize = 64 * 1024;

/// A NETLINK_NETFILTER socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    port: u32,
}

impl Socket {
    pub(super) fn open() -> io::Result<Socket> {
        // SAFETY: plain system call; the descriptor is checked and then owned.
        let fd = unsafe {
            let fd =
                libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_NETFILTER);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let mut socket = Socket { fd, port: 0 };
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            socket.option(libc::SOL_NETLINK, option, 1)?;
        }
        socket.port = socket.bind()?;
        Ok(socket)
    }

    fn bind(&self) -> io::Result<u32> {
        // SAFETY: an all-zero sockaddr_nl is a valid value.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as u16;
        let mut length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: the pointer and the length describe `address`, which outlives the calls.
        let bound = unsafe {
            let raw = (&raw mut address).cast::<libc::sockaddr>();
            libc::bind(self.fd.as_raw_fd(), raw, length) == 0
                && libc::getsockname(self.fd.as_raw_fd(), raw, &mut length) == 0
        };
        if bound { Ok(address.nl_pid) } else { Err(io::Error::last_os_error()) }
    }

    pub(super) fn join(&self, group: i32) -> io::Result<()> {
        self.option(libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, group)
    }

    pub(super) fn leave(&self, group: i32) -> io::Result<()> {
        self.option(libc::SOL_NETLINK, libc::NETLINK_DROP_MEMBERSHIP, group)
    }

    pub(super) fn option(&self, level: i32, name: i32, value: i32) -> io::Result<()> {
        // SAFETY: the pointer and the length describe `value`.
        let result = unsafe {
            let size = size_of::<i32>() as libc::socklen_t;
            libc::setsockopt(self.fd.as_raw_fd(), level, name, (&raw const value).cast(), size)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Takes in no messages of this port. A transaction's notifications come as one packet, all of one port.
    pub(super) fn ignore(&self, port: u32) -> io::Result<()> {
        let code = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
        let program = [
            // nlmsg_pid, which has the machine's order of bytes, where a filter reads the network's.
            code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 12, 0, 0),
            code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, port.to_be(), 0, 1),
            code(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
            code(libc::BPF_RET | libc::BPF_K, u32::MAX, 0, 0),
        ];
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
        // SAFETY: the pointer and the length describe `filter`; the program that it points to is read during the call.
        let result = unsafe {
            let size = size_of_val(&filter) as libc::socklen_t;
            let value = (&raw const filter).cast();
            libc::setsockopt(self.fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, value, size)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The network namespace that it is in, by the kernel's number for it; none before Linux 5.14.
    pub(super) fn namespace(&self) -> Option<u64> {
        let mut cookie = 0u64;
        let mut size = size_of::<u64>() as libc::socklen_t;
        // SAFETY: the pointer and the length describe `cookie`, which outlives the call.
        let result = unsafe {
            let place = (&raw mut cookie).cast();
            libc::getsockopt(self.fd.as_raw_fd(), libc::SOL_SOCKET, SO_NETNS_COOKIE, place, &raw mut size)
        };
        (result == 0).then_some(cookie)
    }

    /// Makes room for one message of `size` bytes; without CAP_NET_ADMIN in the first user
    /// namespace only up to `net.core.wmem_max`.
    pub(super) fn reserve(&self, size: usize) {
        let size = i32::try_from(size.saturating_add(4096)).unwrap_or(i32::MAX / 2);
        if self.option(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, size).is_err() {
            let _ = self.option(libc::SOL_SOCKET, libc::SO_SNDBUF, size);
        }
    }

    pub(super) fn port(&self) -> u32 {
        self.port
    }

    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        // SAFETY: the pointer and the length describe `bytes`.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// One datagram; with `wait` false, WouldBlock when there is none.
    pub(super) fn receive(&self, wait: bool) -> io::Result<Vec<u8>> {
        // Not cleared: most answers are short.
        let mut buffer = Vec::with_capacity(RECEIVE_SIZE);
        let flags = if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        loop {
            match rustix::net::recv(&self.fd, rustix::buffer::spare_capacity(&mut buffer), flags) {
                Err(rustix::io::Errno::INTR) => {}
                got => return got.map(|_| buffer).map_err(Into::into),
            }
        }
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> OwnedFd {
        socket.fd
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
