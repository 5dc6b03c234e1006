//! Where connections are taken.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use ipnet::IpNet;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, acceptfrom_with, bind, getsockname, listen, socket_with, sockopt,
};
use weft_kernel::tcp;

use super::Error;
use super::settings::{Password, Settings};
use super::token::Token;

/// Connections that may wait to be taken.
const BACKLOG: i32 = 1024;
/// Who wants to be sure that a neighbour is near wants this of its first packet too.
const TTL: u8 = 255;

#[derive(Debug)]
struct Listener {
    wanted: SocketAddr,
    bound: SocketAddr,
    socket: OwnedFd,
    /// Whose segments are signed, and how.
    keys: BTreeMap<IpNet, Password>,
}

#[derive(Debug, Default)]
pub(super) struct Listeners {
    all: BTreeMap<u32, Listener>,
    next: u32,
    /// Held to be closed when no descriptor is left, so that a connection can be taken and refused.
    spare: Option<OwnedFd>,
}

/// A connection that somebody has dialled.
pub(super) struct Arrival {
    pub(super) socket: OwnedFd,
    pub(super) local: IpAddr,
    pub(super) remote: IpAddr,
}

impl Listeners {
    /// Listens where it is wanted, and with these keys.
    pub(super) fn set(&mut self, poll: &OwnedFd, settings: &Settings) -> Result<(), Error> {
        self.all.retain(|_, listener| settings.listen.contains(&listener.wanted));
        for wanted in &settings.listen {
            if !self.all.values().any(|listener| listener.wanted == *wanted) {
                self.next += 1;
                let listener = open(poll, self.next, *wanted)
                    .map_err(|e| Error::new(format!("listen at {wanted}"), e))?;
                self.all.insert(self.next, listener);
            }
        }
        self.spare = self.spare.take().or_else(spare);
        let passwords = settings
            .neighbours
            .values()
            .filter_map(|neighbour| Some((neighbour.remote.net(), neighbour.password.clone()?)));
        let keys: BTreeMap<IpNet, Password> = passwords.collect();
        for listener in self.all.values_mut() {
            listener.sign(&keys).map_err(|e| Error::new(format!("sign at {}", listener.wanted), e))?;
        }
        Ok(())
    }

    /// Takes a connection that waits.
    pub(super) fn accept(&mut self, number: u32) -> Option<Arrival> {
        let listener = self.all.get(&number)?;
        loop {
            let (socket, remote) =
                match acceptfrom_with(&listener.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                    Ok((socket, Some(remote))) => (socket, remote),
                    Ok(_) | Err(Errno::INTR | Errno::CONNABORTED) => continue,
                    Err(Errno::MFILE | Errno::NFILE) => {
                        // Left in its queue it would have the thread turn in circles.
                        self.spare = None;
                        let _ = acceptfrom_with(&listener.socket, SocketFlags::CLOEXEC);
                        self.spare = spare();
                        return None;
                    }
                    Err(_) => return None,
                };
            let local = getsockname(&socket).ok().and_then(|local| SocketAddr::try_from(local).ok());
            if let (Some(local), Ok(remote)) = (local, SocketAddr::try_from(remote)) {
                return Some(Arrival { socket, local: local.ip(), remote: remote.ip() });
            }
        }
    }

    /// Where connections are taken.
    pub(super) fn bound(&self) -> Vec<SocketAddr> {
        self.all.values().map(|listener| listener.bound).collect()
    }
}

impl Listener {
    fn sign(&mut self, keys: &BTreeMap<IpNet, Password>) -> io::Result<()> {
        let v4 = self.bound.is_ipv4();
        let gone: Vec<IpNet> = self.keys.keys().filter(|peers| !keys.contains_key(peers)).copied().collect();
        for peers in gone {
            tcp::set_md5(&self.socket, peers, &[])?;
            self.keys.remove(&peers);
        }
        for (peers, password) in keys.iter().filter(|(peers, _)| matches!(peers, IpNet::V4(_)) == v4) {
            if self.keys.get(peers) != Some(password) {
                tcp::set_md5(&self.socket, *peers, password.bytes())?;
                self.keys.insert(*peers, password.clone());
            }
        }
        Ok(())
    }
}

fn open(poll: &OwnedFd, number: u32, wanted: SocketAddr) -> io::Result<Listener> {
    let family = if wanted.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if wanted.is_ipv4() {
        sockopt::set_ip_freebind(&socket, true)?;
        sockopt::set_ip_ttl(&socket, TTL.into())?;
    } else {
        sockopt::set_ipv6_v6only(&socket, true)?;
        sockopt::set_ipv6_freebind(&socket, true)?;
        sockopt::set_ipv6_unicast_hops(&socket, Some(TTL))?;
    }
    bind(&socket, &wanted)?;
    listen(&socket, BACKLOG)?;
    epoll::add(poll, &socket, EventData::new_u64(Token::Listener(number).write()), EventFlags::IN)?;
    let bound = SocketAddr::try_from(getsockname(&socket)?).unwrap_or(wanted);
    Ok(Listener { wanted, bound, socket, keys: BTreeMap::new() })
}

fn spare() -> Option<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
}
