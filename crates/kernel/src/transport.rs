//! What the kernel knows of the path of one TCP or UDP socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Offsets in `struct tcp_info` (`linux/tcp.h`), which only ever grows at its end.
const SEND_MSS: usize = 16;
const TOTAL_RETRANS: usize = 100;
const DSACK_DUPS: usize = 216;
const TCP_INFO: usize = 224;

/// What TCP did for one connection so far (`TCP_INFO`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpInfo {
    /// Bytes of data in one segment, as sent now.
    pub segment: u32,
    /// Segments sent again.
    pub retransmits: u32,
    /// Those of them that had arrived before, as the other side said (RFC 2883); from Linux 4.19 on.
    pub needless: u32,
}

impl TcpInfo {
    /// What the kernel says of the connection `socket`.
    pub fn of(socket: &impl AsFd) -> io::Result<TcpInfo> {
        let mut bytes = [0u8; TCP_INFO];
        get(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut bytes)?;
        let number = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Ok(TcpInfo {
            segment: number(SEND_MSS),
            retransmits: number(TOTAL_RETRANS),
            needless: number(DSACK_DUPS),
        })
    }
}

/// Has `socket` (of IPv6 if `v6`) send every packet with the bit that forbids to fragment it, and
/// refuse (EMSGSIZE) what is larger than the path is known to take.
pub fn forbid_fragments(socket: &impl AsFd, v6: bool) -> io::Result<()> {
    let (level, name, value) = match v6 {
        false => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
        true => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO),
    };
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `value` lives through the call and `len` is its size.
    let done =
        unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, (&raw const value).cast(), len) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The largest packet, in bytes with its IP header, that the path of the connected `socket` is known
/// to take.
pub fn path_mtu(socket: &impl AsFd, v6: bool) -> io::Result<u32> {
    let (level, name) =
        if v6 { (libc::IPPROTO_IPV6, libc::IPV6_MTU) } else { (libc::IPPROTO_IP, libc::IP_MTU) };
    let mut bytes = [0u8; 4];
    get(socket, level, name, &mut bytes)?;
    Ok(u32::from_ne_bytes(bytes))
}

/// Reads an option; what the kernel does not fill stays zero.
fn get(socket: &impl AsFd, level: libc::c_int, name: libc::c_int, bytes: &mut [u8]) -> io::Result<()> {
    let mut len = bytes.len() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `bytes` is writable for `len` bytes through the call, and any bytes are valid there.
    let done = unsafe { libc::getsockopt(fd, level, name, bytes.as_mut_ptr().cast(), &raw mut len) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;
    use crate::testing::TestNs;

    #[test]
    fn a_path_has_the_mtu_of_its_narrowest_known_link_and_a_stream_counts_what_it_sends_again() {
        let ns = TestNs::new();
        ns.ns()
            .run(|| {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let mut far = listener.accept().unwrap().0;
                near.write_all(b"x").unwrap();
                far.read_exact(&mut [0]).unwrap();
                let info = TcpInfo::of(&near).unwrap();
                assert_eq!((info.retransmits, info.needless), (0, 0));
                assert!(info.segment > 30_000, "{info:?}");
                for (v6, to, mtu) in [(false, "127.0.0.1:9", 65_535), (true, "[::1]:9", 65_536)] {
                    let socket = UdpSocket::bind(if v6 { "[::1]:0" } else { "127.0.0.1:0" }).unwrap();
                    socket.connect(to).unwrap();
                    forbid_fragments(&socket, v6).unwrap();
                    assert_eq!(path_mtu(&socket, v6).unwrap(), mtu, "{to}");
                }
            })
            .unwrap();
    }
}
