//! UDP sockets of protocols that speak over one hop: what comes says by how many hops and which interface.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::sockaddr::{from_name, to_name};
use crate::{Error, Result};

/// What is sent with: traffic class CS6, network control (RFC 2474).
const CLASS: libc::c_int = 0xc0;
/// The TTL or hop limit that it is sent with, the highest.
const HOPS: libc::c_int = 255;
/// The queue of a socket that receives, in bytes.
const QUEUE: libc::c_int = 1 << 20;

/// Control messages of one message, aligned as cmsg(3) wants them.
#[repr(C, align(8))]
struct Control([u8; 128]);

/// How a datagram came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The sender.
    pub from: SocketAddr,
    /// The address it was sent to.
    pub to: IpAddr,
    /// Index of the interface it came by.
    pub interface: u32,
    /// Its TTL or hop limit, as it came.
    pub hops: u8,
    /// Its length in bytes, of which the buffer has as many as fit.
    pub len: usize,
}

/// Receives what is sent to a UDP port of any address.
#[derive(Debug)]
pub struct HopReceiver(OwnedFd);

impl HopReceiver {
    /// Receives what is sent to `port` in the calling thread's namespace, IPv6 if `v6` and otherwise IPv4.
    pub fn open(port: u16, v6: bool) -> Result<HopReceiver> {
        let any = if v6 { IpAddr::from(Ipv6Addr::UNSPECIFIED) } else { Ipv4Addr::UNSPECIFIED.into() };
        let local = SocketAddr::new(any, port);
        let failed = |e: io::Error| Error::sys("receive UDP at", local.to_string(), e);
        let fd = socket(v6).map_err(failed)?;
        let option = |level, name, value| set(&fd, level, name, value).map_err(failed);
        if v6 {
            option(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
            option(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
            option(libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, 1)?;
        } else {
            option(libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
            option(libc::IPPROTO_IP, libc::IP_RECVTTL, 1)?;
        }
        // Beyond the limits of the machine where we may; what it is otherwise is good enough.
        if set(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, QUEUE).is_err() {
            option(libc::SOL_SOCKET, libc::SO_RCVBUF, QUEUE)?;
        }
        bind(&fd, local).map_err(failed)?;
        Ok(HopReceiver(fd))
    }

    /// The next datagram, into `buffer`; `WouldBlock` when there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Hop> {
        // SAFETY: all zero bytes are a valid sockaddr_storage and a valid msghdr.
        let (mut name, mut message): (libc::sockaddr_storage, libc::msghdr) = unsafe { mem::zeroed() };
        let mut control = Control([0; 128]);
        let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        message.msg_name = (&raw mut name).cast();
        message.msg_namelen = size_of_val(&name) as libc::socklen_t;
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = size_of_val(&control) as _;
        // SAFETY: `message` points to a name, a vector, a buffer and a place for control messages with their sizes,
        // which live through the call.
        let len = unsafe {
            libc::recvmsg(self.0.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT | libc::MSG_TRUNC)
        };
        let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
        let (to, interface, hops) = told(&message);
        let from = from_name(&name);
        let (Some(from), Some(to), Some(hops)) = (from, to, hops) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        Ok(Hop { from, to, interface, hops, len })
    }
}

impl AsFd for HopReceiver {
    /// Readable when something has come.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends from one port, with the highest TTL or hop limit and as network control.
#[derive(Debug)]
pub struct HopSender(OwnedFd);

impl HopSender {
    /// Sends from `local`, by `interface` alone where it is given, in the calling thread's namespace.
    pub fn open(local: SocketAddr, interface: Option<&str>) -> Result<HopSender> {
        let failed = |e: io::Error| {
            let by = interface.map(|name| format!(" by {name}")).unwrap_or_default();
            Error::sys("send UDP from", format!("{local}{by}"), e)
        };
        let fd = socket(local.is_ipv6()).map_err(failed)?;
        if let Some(name) = interface {
            let length = name.len() as libc::socklen_t;
            // SAFETY: `name` lives through the call and `length` is its size.
            let done = unsafe {
                let fd = fd.as_raw_fd();
                libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name.as_ptr().cast(), length)
            };
            if done < 0 {
                return Err(failed(io::Error::last_os_error()));
            }
        }
        let option = |level, name, value| set(&fd, level, name, value).map_err(failed);
        if local.is_ipv6() {
            option(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
            option(libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, HOPS)?;
            option(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, CLASS)?;
        } else {
            option(libc::IPPROTO_IP, libc::IP_TTL, HOPS)?;
            option(libc::IPPROTO_IP, libc::IP_TOS, CLASS)?;
        }
        // Nothing is read from it: the least that there is.
        option(libc::SOL_SOCKET, libc::SO_RCVBUF, 0)?;
        option(libc::SOL_SOCKET, libc::SO_PRIORITY, 6)?;
        bind(&fd, local).map_err(failed)?;
        Ok(HopSender(fd))
    }

    /// Sends a datagram. Does not wait.
    pub fn send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        let (name, length) = to_name(to);
        // SAFETY: both pointers are to memory that lives through the call, with its size.
        let sent = unsafe {
            let name = (&raw const name).cast();
            let fd = self.0.as_raw_fd();
            libc::sendto(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT, name, length)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn socket(v6: bool) -> io::Result<OwnedFd> {
    let domain = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    // SAFETY: no pointers; a negative result is no descriptor and is not wrapped.
    let raw = unsafe { libc::socket(domain, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above just made it and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn set(fd: &OwnedFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `value` lives through the call and `length` is its size.
    let done = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn bind(fd: &OwnedFd, local: SocketAddr) -> io::Result<()> {
    let (name, length) = to_name(local);
    // SAFETY: `name` lives through the call and `length` is its size.
    let done = unsafe { libc::bind(fd.as_raw_fd(), (&raw const name).cast(), length) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What the control messages of a message that came say: the address it was sent to, the interface, the hops.
fn told(message: &libc::msghdr) -> (Option<IpAddr>, u32, Option<u8>) {
    let (mut to, mut interface, mut hops) = (None, 0, None);
    // SAFETY: `message` is as recvmsg filled it in and its control buffer is still alive.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR only give headers that are whole within the buffer; the data is of the
        // type that ip(7) and ipv6(7) say, which may be unaligned.
        unsafe {
            let data = libc::CMSG_DATA(header);
            match ((*header).cmsg_level, (*header).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                    to = Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into());
                    interface = info.ipi_ifindex.cast_unsigned();
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    to = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
                    interface = info.ipi6_ifindex;
                }
                (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                    hops = u8::try_from(data.cast::<libc::c_int>().read_unaligned()).ok();
                }
                _ => {}
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    (to, interface, hops)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Netlink;
    use crate::testing::{TestNs, eventually};

    #[test]
    fn a_datagram_says_by_how_many_hops_and_which_interface_it_came() {
        let mut test = TestNs::new();
        let (here, there) = (test.ns().clone(), test.extra("there"));
        test.join((&here, "a", "10.0.0.1/24"), (&there, "b", "10.0.0.2/24"));
        test.join((&here, "a6", "fd00::1/64"), (&there, "b6", "fd00::2/64"));
        for (name, from, to) in [("b", "10.0.0.1:50001", "10.0.0.2"), ("b6", "[fd00::1]:50001", "fd00::2")] {
            let (from, to): (SocketAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let receiver = there.run(|| HopReceiver::open(3784, to.is_ipv6())).unwrap().unwrap();
            let interface = Netlink::open_in(&there).unwrap().link(name).unwrap().unwrap().index;
            let sender = HopSender::open(from, Some(&name.replace('b', "a"))).unwrap();
            let mut buffer = [0; 4];
            let mut got = None;
            sender.send(b"abcdef", SocketAddr::new(to, 3784)).unwrap();
            eventually(Duration::from_secs(10), "it comes", || {
                got = receiver.receive(&mut buffer).ok();
                got.is_some()
            });
            assert_eq!(got, Some(Hop { from, to, interface, hops: 255, len: 6 }));
            assert_eq!(&buffer, b"abcd");
            assert_eq!(receiver.receive(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
        assert!(HopSender::open("10.0.0.1:50002".parse().unwrap(), Some("none")).is_err());
    }
}
