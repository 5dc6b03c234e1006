//! A connection's socket.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, bind, connect, getpeername, getsockname, send,
    socket_with, sockopt,
};
use weft_kernel::tcp;

use super::settings::{Neighbour, Ttl};

/// Hops that no neighbour is away.
const FARTHEST: u8 = 255;

#[derive(Debug)]
pub(super) struct Link {
    socket: OwnedFd,
    /// Our address.
    pub(super) local: IpAddr,
    /// It is not only being dialled.
    pub(super) connected: bool,
    /// The rest of what was written in part.
    half: Option<(Arc<[u8]>, usize)>,
    /// epoll is to say when there is room again.
    pub(super) blocked: bool,
}

impl Link {
    /// Dials a neighbour. It is not there yet.
    pub(super) fn dial(to: SocketAddr, neighbour: &Neighbour) -> io::Result<Link> {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        prepare(&socket, to.ip(), neighbour)?;
        if let Some(password) = &neighbour.password {
            tcp::set_md5(&socket, to.ip().into(), password.bytes())?;
        }
        if let Some(local) = neighbour.local_address {
            bind(&socket, &SocketAddr::new(local, 0))?;
        }
        match connect(&socket, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        // Known once it is connected.
        let local = neighbour.local_address.unwrap_or(to.ip());
        Ok(Link { socket, local, connected: false, half: None, blocked: false })
    }

    /// Takes a neighbour that has dialled.
    pub(super) fn accept(
        socket: OwnedFd,
        local: IpAddr,
        remote: IpAddr,
        neighbour: &Neighbour,
    ) -> io::Result<Link> {
        prepare(&socket, remote, neighbour)?;
        Ok(Link { socket, local, connected: true, half: None, blocked: false })
    }

    /// Whether what was dialled is there.
    pub(super) fn finish(&mut self) -> io::Result<bool> {
        sockopt::socket_error(&self.socket)??;
        match getpeername(&self.socket) {
            Err(Errno::NOTCONN) => return Ok(false),
            other => other?,
        };
        self.local = SocketAddr::try_from(getsockname(&self.socket)?).map_err(io::Error::other)?.ip();
        self.connected = true;
        Ok(true)
    }

    /// Reads what has come: `None` where nothing has, 0 at the end.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::io::read(&self.socket, buffer) {
            Ok(read) => Ok(Some(read)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes what there is, until `next` has no more, or no more can be taken at once: then it is `blocked`. Says how
    /// many bytes. An error: it has ended, as reading says too.
    pub(super) fn write(&mut self, mut next: impl FnMut() -> Option<Arc<[u8]>>) -> io::Result<usize> {
        let mut written = 0;
        self.blocked = false;
        loop {
            let Some((bytes, from)) = self.half.take().or_else(|| Some((next()?, 0))) else {
                return Ok(written);
            };
            match send(&self.socket, bytes.get(from..).unwrap_or_default(), SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    written += sent;
                    if from + sent < bytes.len() {
                        self.half = Some((bytes, from + sent));
                    }
                }
                Err(Errno::INTR) => self.half = Some((bytes, from)),
                Err(Errno::AGAIN) => {
                    self.half = Some((bytes, from));
                    self.blocked = true;
                    return Ok(written);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes the last words as far as that can be done at once. Says whether all of them went.
    pub(super) fn last(mut self, last: Vec<u8>) -> (OwnedFd, bool) {
        let mut last = Some(Arc::from(last));
        let done = self.connected && self.write(|| last.take()).is_ok() && !self.blocked;
        (self.socket, done)
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sets what both kinds have.
fn prepare(socket: &OwnedFd, remote: IpAddr, neighbour: &Neighbour) -> io::Result<()> {
    sockopt::set_tcp_nodelay(socket, true)?;
    let ttl = match neighbour.ttl {
        Ttl::Single => 1,
        Ttl::Hops(hops) => hops.max(1),
        Ttl::Security(_) => FARTHEST,
    };
    match remote {
        IpAddr::V4(_) => sockopt::set_ip_ttl(socket, ttl.into())?,
        IpAddr::V6(_) => sockopt::set_ipv6_unicast_hops(socket, Some(ttl))?,
    }
    if let Ttl::Security(hops) = neighbour.ttl {
        let least = FARTHEST - hops.clamp(1, FARTHEST - 1) + 1;
        tcp::set_minimum_ttl(socket, remote.is_ipv6(), least)?;
    }
    Ok(())
}
