//! Frames as they pass: one packet socket over all devices of a network namespace.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{Error, Netns, Result};

const SNAP: usize = 512;
const ROOM: libc::c_int = 8 << 20;
const CONTROL: usize = 128;
/// Loopback is the first device of every namespace.
const LOOPBACK: libc::c_int = 1;
/// IEEE 802 local experimental EtherType 1: no protocol listens for it.
const MARKER: u16 = 0x88b5;
const WARM_UP: u32 = 200;
const PACKET_STATISTICS: libc::c_int = 6;

/// Which way a frame passed a device, and for whom it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PacketKind {
    /// Came in, addressed to the device.
    Host,
    /// Came in, a broadcast.
    Broadcast,
    /// Came in, a multicast.
    Multicast,
    /// Came in, addressed to another station (usual on a bridge port).
    OtherHost,
    /// Went out.
    Outgoing,
}

/// One frame as seen on one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The device.
    pub ifindex: u32,
    /// Which way it passed.
    pub kind: PacketKind,
    /// Whether the bytes start with an Ethernet header; else with the network header.
    pub ethernet: bool,
    /// EtherType of what the link header carries, for devices without Ethernet.
    pub protocol: u16,
    /// Kernel time in nanoseconds since 1970. Devices the kernel passes a frame through on its
    /// way in may share one; then the order in the capture tells.
    pub at: u64,
    /// The first bytes, 512 at most.
    pub bytes: Vec<u8>,
    /// How long the frame was.
    pub length: usize,
}

/// A running capture. Frames wait in the kernel from the moment this is made.
#[derive(Debug)]
pub struct Capture {
    fd: OwnedFd,
}

impl Capture {
    /// Starts one in the calling thread's network namespace. Needs CAP_NET_RAW there.
    pub fn open() -> Result<Capture> {
        let failed = |e| Error::sys("open", "a packet capture", e);
        // SAFETY: no pointers; a negative result is no descriptor and is not wrapped. Protocol 0
        // receives nothing until bind.
        let raw = unsafe {
            libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0)
        };
        if raw < 0 {
            return Err(failed(io::Error::last_os_error()));
        }
        // SAFETY: the call above just made it and nobody else has it.
        let capture = Capture { fd: unsafe { OwnedFd::from_raw_fd(raw) } };
        capture.option(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1).map_err(failed)?;
        // Forcing needs a privilege that a user namespace does not give: then up to rmem_max.
        if capture.option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, ROOM).is_err() {
            capture.option(libc::SOL_SOCKET, libc::SO_RCVBUF, ROOM).map_err(failed)?;
        }
        capture.bind().map_err(failed)?;
        capture.await_timestamps();
        Ok(capture)
    }

    /// The kernel switches timestamps on a little after they were asked for, and until then
    /// gives the time of reading for that of passing. So a frame of a type that is nobody's is
    /// sent over the loopback device until one comes back with a time of its own.
    fn await_timestamps(&self) {
        for attempt in 0..WARM_UP {
            // Without loopback (it is down) there is nothing to ask with.
            if self.send_marker().is_err() {
                return;
            }
            while let Ok(before) = SystemTime::now().duration_since(UNIX_EPOCH)
                && let Ok(frame) = self.receive()
            {
                if frame.protocol == MARKER && u128::from(frame.at) < before.as_nanos() {
                    return;
                }
            }
            if attempt > 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn send_marker(&self) -> io::Result<()> {
        let mut frame = [0u8; 60];
        frame[12..14].copy_from_slice(&MARKER.to_be_bytes());
        // SAFETY: all zero bytes are a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = MARKER.to_be();
        address.sll_ifindex = LOOPBACK;
        address.sll_halen = 6;
        let length = size_of_val(&address) as libc::socklen_t;
        // SAFETY: both pointers are to locals that live through the call, with their sizes.
        let sent = unsafe {
            let to = (&raw const address).cast();
            libc::sendto(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, to, length)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Starts one in another network namespace.
    pub fn open_in(netns: &Netns) -> Result<Capture> {
        netns.run(Capture::open)?
    }

    /// The next frame that waits; `None` when there is none.
    pub fn try_next(&mut self) -> Result<Option<Frame>> {
        loop {
            match self.receive() {
                Ok(frame) => return Ok(Some(frame)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // A device went down; the socket stays good for the others.
                Err(e) if e.raw_os_error() == Some(libc::ENETDOWN) => {}
                Err(e) => return Err(Error::sys("read", "a packet capture", e)),
            }
        }
    }

    /// How many frames the kernel had no room for since the last call.
    pub fn dropped(&mut self) -> Result<u32> {
        // struct tpacket_stats: packets, drops.
        let mut stats = [0u32; 2];
        let mut length = size_of_val(&stats) as libc::socklen_t;
        // SAFETY: `stats` lives through the call and `length` is its size.
        let done = unsafe {
            let to = (&raw mut stats).cast();
            libc::getsockopt(self.fd.as_raw_fd(), libc::SOL_PACKET, PACKET_STATISTICS, to, &raw mut length)
        };
        if done < 0 {
            return Err(Error::sys("read the counters of", "a packet capture", io::Error::last_os_error()));
        }
        Ok(stats[1])
    }

    fn option(&self, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: `value` lives through the call and `length` is its size.
        let done =
            unsafe { libc::setsockopt(self.fd.as_raw_fd(), level, name, (&raw const value).cast(), length) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn bind(&self) -> io::Result<()> {
        // SAFETY: all zero bytes are a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        let length = size_of_val(&address) as libc::socklen_t;
        // SAFETY: `address` lives through the call and `length` is its size.
        let done = unsafe { libc::bind(self.fd.as_raw_fd(), (&raw const address).cast(), length) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn receive(&self) -> io::Result<Frame> {
        let mut bytes = vec![0u8; SNAP];
        // u64s, so that the control messages are aligned.
        let mut control = [0u64; CONTROL / 8];
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: all zero bytes are valid values of both.
        let (mut from, mut message): (libc::sockaddr_ll, libc::msghdr) = unsafe { mem::zeroed() };
        message.msg_name = (&raw mut from).cast();
        message.msg_namelen = size_of_val(&from) as libc::socklen_t;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: every pointer in `message` is to a local that lives through the call, with its
        // size. MSG_TRUNC makes the kernel say the whole length, it writes no more for it.
        let got = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, libc::MSG_TRUNC) };
        let length = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
        bytes.truncate(length);
        Ok(Frame {
            ifindex: from.sll_ifindex.cast_unsigned(),
            kind: kind(from.sll_pkttype),
            ethernet: matches!(from.sll_hatype, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK),
            protocol: u16::from_be(from.sll_protocol),
            at: timestamp(&message).unwrap_or(0),
            bytes,
            length,
        })
    }
}

impl AsFd for Capture {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn kind(number: u8) -> PacketKind {
    match number {
        libc::PACKET_HOST => PacketKind::Host,
        libc::PACKET_BROADCAST => PacketKind::Broadcast,
        libc::PACKET_MULTICAST => PacketKind::Multicast,
        libc::PACKET_OUTGOING => PacketKind::Outgoing,
        _ => PacketKind::OtherHost,
    }
}

fn timestamp(message: &libc::msghdr) -> Option<u64> {
    // SAFETY: `message` is as recvmsg filled it in and its control buffer is still alive.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR only give headers that are whole within the
        // buffer; a SCM_TIMESTAMPNS carries a timespec, which may be unaligned.
        unsafe {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_TIMESTAMPNS {
                let time = libc::CMSG_DATA(header).cast::<libc::timespec>().read_unaligned();
                let seconds = u64::try_from(time.tv_sec).ok()?;
                return Some(seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).ok()?);
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::process::Command;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    #[test]
    fn a_datagram_is_seen_going_out_and_coming_in_with_the_kernels_time() {
        unshare(CloneFlags::CLONE_NEWNET).expect("this test needs root");
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        let mut capture = Capture::open().unwrap();
        assert_eq!(capture.try_next().unwrap(), None);
        let now = || u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
        let before = now();
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let payload = [7u8; 1000];
        receiver.send_to(&payload, receiver.local_addr().unwrap()).unwrap();
        receiver.recv(&mut [0; 1]).unwrap();
        let sent = now();
        let frames: Vec<Frame> = std::iter::from_fn(|| capture.try_next().unwrap()).collect();
        assert_eq!(
            frames.iter().map(|f| f.kind).collect::<Vec<_>>(),
            [PacketKind::Outgoing, PacketKind::Host]
        );
        for frame in &frames {
            assert_eq!((frame.ifindex, frame.ethernet, frame.protocol), (1, true, 0x0800));
            assert_eq!((frame.bytes.len(), frame.length), (SNAP, 14 + 20 + 8 + 1000));
            assert!((before..sent).contains(&frame.at), "{} not in {before}..{sent}", frame.at);
        }
        assert_eq!(capture.dropped().unwrap(), 0);
    }
}
