//! Options by which a TCP socket takes nothing but a neighbour's packets: signatures and the TTL.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

use ipnet::IpNet;

use crate::sockaddr::to_name;

/// The longest key of [`set_md5`], in bytes (`TCP_MD5SIG_MAXKEYLEN`).
pub const MD5_KEY: usize = 80;

/// Of `linux/tcp.h`; keys for whole prefixes are there from Linux 4.13 on.
const TCP_MD5SIG_EXT: libc::c_int = 32;
const PREFIX: u8 = 1;
/// Of `linux/in6.h`.
const IPV6_MINHOPCOUNT: libc::c_int = 73;

/// `struct tcp_md5sig`.
#[repr(C)]
struct Md5 {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix: u8,
    length: u16,
    interface: libc::c_int,
    key: [u8; MD5_KEY],
}

/// Signs what `socket` sends to `peers` and takes from them only what is signed (RFC 2385); a listener's connections
/// have its keys. An empty key takes the one of just these `peers` away, which is no error where there is none.
pub fn set_md5(socket: &impl AsFd, peers: IpNet, key: &[u8]) -> io::Result<()> {
    let (address, _) = to_name(SocketAddr::new(peers.network(), 0));
    let length = u16::try_from(key.len()).ok().filter(|length| usize::from(*length) <= MD5_KEY);
    let length = length.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    let mut md5 =
        Md5 { address, flags: PREFIX, prefix: peers.prefix_len(), length, interface: 0, key: [0; MD5_KEY] };
    md5.key[..key.len()].copy_from_slice(key);
    match set(socket, libc::IPPROTO_TCP, TCP_MD5SIG_EXT, &md5) {
        Err(error) if key.is_empty() && error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        done => done,
    }
}

/// Drops what comes to `socket` (of IPv6 if `v6`) with a smaller TTL than this (RFC 5082).
pub fn set_minimum_ttl(socket: &impl AsFd, v6: bool, ttl: u8) -> io::Result<()> {
    let (level, name) =
        if v6 { (libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT) } else { (libc::IPPROTO_IP, libc::IP_MINTTL) };
    set(socket, level, name, &libc::c_int::from(ttl))
}

fn set<T>(socket: &impl AsFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` lives through the call and `len` is its size.
    let done =
        unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, (value as *const T).cast(), len) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

    use super::*;
    use crate::testing::TestNs;

    /// Whether a client that signs with `key` and sends with this TTL reaches the listener in a short while.
    fn reaches(listener: &TcpListener, key: &[u8], ttl: u32) -> bool {
        let to = listener.local_addr().unwrap();
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        if !key.is_empty() {
            set_md5(&socket, IpNet::from(to.ip()), key).unwrap();
        }
        match to {
            SocketAddr::V4(_) => sockopt::set_ip_ttl(&socket, ttl).unwrap(),
            SocketAddr::V6(_) => sockopt::set_ipv6_unicast_hops(&socket, Some(ttl as u8)).unwrap(),
        }
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(Duration::from_millis(300)))
            .unwrap();
        let connected = connect(&socket, &to).is_ok();
        drop(TcpStream::from(socket));
        connected
    }

    #[test]
    fn who_signs_otherwise_or_is_farther_away_does_not_get_through() {
        let ns = TestNs::new();
        ns.ns()
            .run(|| {
                for (at, peers) in [("127.0.0.1:0", "127.0.0.0/8"), ("[::1]:0", "::1/128")] {
                    let listener = TcpListener::bind(at).unwrap();
                    let peers: IpNet = peers.parse().unwrap();
                    set_md5(&listener, peers, b"secret").unwrap();
                    assert!(reaches(&listener, b"secret", 255), "{at}");
                    assert!(!reaches(&listener, b"other", 255), "{at}");
                    assert!(!reaches(&listener, b"", 255), "{at}");
                    set_md5(&listener, peers, b"").unwrap();
                    set_md5(&listener, peers, b"").unwrap();
                    assert!(reaches(&listener, b"", 1), "{at}");
                    set_minimum_ttl(&listener, !at.starts_with('1'), 255).unwrap();
                    assert!(!reaches(&listener, b"", 254), "{at}");
                    assert!(reaches(&listener, b"", 255), "{at}");
                }
                assert!(
                    set_md5(
                        &TcpListener::bind("127.0.0.1:0").unwrap(),
                        "127.0.0.1/32".parse().unwrap(),
                        &[1; 81]
                    )
                    .is_err()
                );
            })
            .unwrap();
    }
}
