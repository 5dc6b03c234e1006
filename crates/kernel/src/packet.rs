//! Packet sockets on one device: for who has no address yet.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use weft_model::Mac;

use crate::{Error, Result};

/// `TP_STATUS_CSUMNOTREADY`: the packet was made on this machine and its sum is left to a device.
const NOT_SUMMED: u32 = 1 << 3;
const PACKET_AUXDATA: libc::c_int = 8;
const CONTROL: usize = 64;

/// Which packets a socket takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketFilter {
    /// IPv4 packets that carry UDP for this port, unless they are later fragments.
    Udp {
        /// The destination port.
        port: u16,
    },
    /// The same in IPv6, where nothing stands between the headers.
    Udp6 {
        /// The destination port.
        port: u16,
    },
    /// ARP.
    Arp,
    /// Neighbour solicitations and advertisements of IPv6 (ICMPv6 135 and 136).
    Neighbours,
}

/// A socket for the packets of one device, without their link headers.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    ifindex: u32,
    protocol: u16,
}

/// A packet that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// How much of the buffer it fills.
    pub length: usize,
    /// Whether its transport checksum is filled in.
    pub summed: bool,
    /// The station that sent it.
    pub from: Mac,
}

impl PacketSocket {
    /// Opens one in the calling thread's network namespace. Needs CAP_NET_RAW there.
    pub fn open(ifindex: u32, filter: PacketFilter) -> Result<PacketSocket> {
        let failed = |e| Error::sys("open", format!("a packet socket on link {ifindex}"), e);
        // SAFETY: no pointers; a negative result is no descriptor and is not wrapped. Protocol 0
        // receives nothing until bind, so nothing slips in before the filter is there.
        let raw = unsafe {
            libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0)
        };
        if raw < 0 {
            return Err(failed(io::Error::last_os_error()));
        }
        // SAFETY: the call above just made it and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let protocol = match filter {
            PacketFilter::Udp { .. } => libc::ETH_P_IP,
            PacketFilter::Arp => libc::ETH_P_ARP,
            PacketFilter::Udp6 { .. } | PacketFilter::Neighbours => libc::ETH_P_IPV6,
        };
        let socket = PacketSocket { fd, ifindex, protocol: u16::try_from(protocol).unwrap_or_default() };
        match filter {
            PacketFilter::Udp { port } => socket.attach(&udp_program(port)).map_err(failed)?,
            PacketFilter::Udp6 { port } => socket.attach(&udp6_program(port)).map_err(failed)?,
            PacketFilter::Neighbours => socket.attach(&neighbours_program()).map_err(failed)?,
            PacketFilter::Arp => {}
        }
        socket.option(libc::SOL_PACKET, PACKET_AUXDATA, &1).map_err(failed)?;
        socket.bind().map_err(failed)?;
        Ok(socket)
    }

    /// Sends a packet to a station of the link.
    pub fn send(&self, to: Mac, packet: &[u8]) -> io::Result<()> {
        let mut address = self.address();
        address.sll_halen = 6;
        address.sll_addr[..6].copy_from_slice(&to.0);
        let length = size_of_val(&address) as libc::socklen_t;
        // SAFETY: both pointers are to memory that lives through the call, with its size.
        let sent = unsafe {
            let to = (&raw const address).cast();
            libc::sendto(self.fd.as_raw_fd(), packet.as_ptr().cast(), packet.len(), 0, to, length)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The next packet; `WouldBlock` when there is none. What is longer than `buffer` is cut.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        // u64s, so that the control messages are aligned.
        let mut control = [0u64; CONTROL / 8];
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: all zero bytes are a valid msghdr.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        let mut from = self.address();
        message.msg_name = (&raw mut from).cast();
        message.msg_namelen = size_of_val(&from) as libc::socklen_t;
        // SAFETY: every pointer in `message` is to memory that lives through the call, with its
        // size.
        let got = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, 0) };
        let length = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
        let [a, b, c, d, e, f, ..] = from.sll_addr;
        let from = Mac([a, b, c, d, e, f]);
        Ok(Received { length, summed: status(&message) & NOT_SUMMED == 0, from })
    }

    fn address(&self) -> libc::sockaddr_ll {
        // SAFETY: all zero bytes are a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = self.protocol.to_be();
        address.sll_ifindex = self.ifindex.cast_signed();
        address
    }

    fn bind(&self) -> io::Result<()> {
        let address = self.address();
        let length = size_of_val(&address) as libc::socklen_t;
        // SAFETY: `address` lives through the call and `length` is its size.
        let done = unsafe { libc::bind(self.fd.as_raw_fd(), (&raw const address).cast(), length) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn attach(&self, program: &[libc::sock_filter]) -> io::Result<()> {
        let length = u16::try_from(program.len()).unwrap_or_default();
        let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
        self.option(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
    }

    fn option<T>(&self, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
        let length = size_of::<T>() as libc::socklen_t;
        let value: *const T = value;
        // SAFETY: `value` lives through the call and `length` is its size; what a sock_fprog
        // points to is only read, during the call.
        let done = unsafe { libc::setsockopt(self.fd.as_raw_fd(), level, name, value.cast(), length) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn code(class: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(class).unwrap_or_default(), jt, jf, k }
}

/// Classic BPF over an IPv6 packet: next header UDP, destination port.
fn udp6_program(port: u16) -> [libc::sock_filter; 6] {
    let load = libc::BPF_LD | libc::BPF_ABS;
    let jump = libc::BPF_JMP | libc::BPF_K | libc::BPF_JEQ;
    [
        code(load | libc::BPF_B, 6, 0, 0),
        code(jump, libc::IPPROTO_UDP as u32, 0, 2),
        code(load | libc::BPF_H, 42, 0, 0),
        code(jump, port.into(), 1, 0),
        code(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        code(libc::BPF_RET | libc::BPF_K, u32::MAX, 0, 0),
    ]
}

/// Classic BPF over an IPv6 packet: next header ICMPv6, type 135 or 136.
fn neighbours_program() -> [libc::sock_filter; 7] {
    let load = libc::BPF_LD | libc::BPF_ABS | libc::BPF_B;
    let jump = libc::BPF_JMP | libc::BPF_K | libc::BPF_JEQ;
    [
        code(load, 6, 0, 0),
        code(jump, libc::IPPROTO_ICMPV6 as u32, 0, 3),
        code(load, 40, 0, 0),
        code(jump, 135, 2, 0),
        code(jump, 136, 1, 0),
        code(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        code(libc::BPF_RET | libc::BPF_K, u32::MAX, 0, 0),
    ]
}

/// Classic BPF over an IPv4 packet: protocol UDP, first fragment, destination port.
fn udp_program(port: u16) -> [libc::sock_filter; 9] {
    let load = libc::BPF_LD | libc::BPF_ABS;
    let jump = libc::BPF_JMP | libc::BPF_K;
    [
        code(load | libc::BPF_B, 9, 0, 0),
        code(jump | libc::BPF_JEQ, libc::IPPROTO_UDP as u32, 0, 5),
        code(load | libc::BPF_H, 6, 0, 0),
        code(jump | libc::BPF_JSET, 0x1fff, 3, 0),
        code(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0, 0, 0),
        code(libc::BPF_LD | libc::BPF_IND | libc::BPF_H, 2, 0, 0),
        code(jump | libc::BPF_JEQ, port.into(), 1, 0),
        code(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        code(libc::BPF_RET | libc::BPF_K, u32::MAX, 0, 0),
    ]
}

fn status(message: &libc::msghdr) -> u32 {
    // SAFETY: `message` is as recvmsg filled it in and its control buffer is still alive.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR only give headers that are whole within the
        // buffer; the data of PACKET_AUXDATA begins with tp_status, which may be unaligned.
        unsafe {
            if (*header).cmsg_level == libc::SOL_PACKET && (*header).cmsg_type == PACKET_AUXDATA {
                return libc::CMSG_DATA(header).cast::<u32>().read_unaligned();
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;
    use crate::testing::{TestNs, eventually};

    #[test]
    fn a_socket_gets_the_datagrams_for_its_port_and_nothing_else() {
        let mut test = TestNs::new();
        let (here, pod) = (test.ns().clone(), test.extra("pod"));
        test.join((&here, "a", "10.0.0.1/24"), (&pod, "b", "10.0.0.2/24"));
        let index = pod.run(|| crate::Netlink::open().unwrap().link("b").unwrap().unwrap().index).unwrap();
        let open = |filter| pod.run(|| PacketSocket::open(index, filter)).unwrap().unwrap();
        let (udp, arp) = (open(PacketFilter::Udp { port: 68 }), open(PacketFilter::Arp));
        let sender = UdpSocket::bind("10.0.0.1:0").unwrap();
        for port in [67, 68, 69] {
            sender.send_to(&[0x5a; 40], ("10.0.0.2", port)).unwrap();
        }
        let mut buffer = [0; 2000];
        let mut got = None;
        eventually(Duration::from_secs(10), "a datagram", || {
            got = udp.receive(&mut buffer).ok();
            got.is_some()
        });
        assert_eq!(got.unwrap().length, 20 + 8 + 40);
        assert_eq!(&buffer[22..24], &68u16.to_be_bytes());
        assert_eq!(udp.receive(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        eventually(Duration::from_secs(10), "an ARP packet", || arp.receive(&mut buffer).is_ok());
        assert_eq!(&buffer[..4], &[0, 1, 8, 0]);
    }

    #[test]
    fn of_ipv6_a_socket_gets_neighbours_or_datagrams_and_who_sent_them() {
        let mut test = TestNs::new();
        let (here, pod) = (test.ns().clone(), test.extra("pod"));
        test.join((&here, "a", "fd00::1/64"), (&pod, "b", "fd00::2/64"));
        let mac = test.netlink().link("a").unwrap().unwrap().mac.unwrap();
        let index = pod.run(|| crate::Netlink::open().unwrap().link("b").unwrap().unwrap().index).unwrap();
        let open = |filter| pod.run(|| PacketSocket::open(index, filter)).unwrap().unwrap();
        let (udp, neighbours) = (open(PacketFilter::Udp6 { port: 68 }), open(PacketFilter::Neighbours));
        let sender = UdpSocket::bind("[fd00::1]:0").unwrap();
        for port in [67, 68, 69] {
            sender.send_to(&[0x5a; 40], ("fd00::2", port)).unwrap();
        }
        let mut buffer = [0; 2000];
        let mut got = None;
        eventually(Duration::from_secs(10), "a datagram", || {
            got = udp.receive(&mut buffer).ok();
            got.is_some()
        });
        assert_eq!((got.unwrap().length, got.unwrap().from), (40 + 8 + 40, mac));
        assert_eq!(&buffer[42..44], &68u16.to_be_bytes());
        assert_eq!(udp.receive(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        eventually(Duration::from_secs(10), "a solicitation", || {
            neighbours.receive(&mut buffer).is_ok_and(|got| got.from == mac && buffer[40] == 135)
        });
        while neighbours.receive(&mut buffer).is_ok() {
            assert!(matches!(buffer[40], 135 | 136), "type {}", buffer[40]);
        }
    }

    #[test]
    fn what_is_sent_arrives_on_the_other_side() {
        let mut test = TestNs::new();
        let (here, pod) = (test.ns().clone(), test.extra("pod"));
        test.join((&here, "a", "10.0.0.1/24"), (&pod, "b", "10.0.0.2/24"));
        let index = test.netlink().link("a").unwrap().unwrap().index;
        let there = pod.run(|| crate::Netlink::open().unwrap().link("b").unwrap().unwrap().index).unwrap();
        let (from, to) = (
            PacketSocket::open(index, PacketFilter::Arp).unwrap(),
            pod.run(|| PacketSocket::open(there, PacketFilter::Arp)).unwrap().unwrap(),
        );
        from.send(Mac([0xff; 6]), &[7; 28]).unwrap();
        let mut buffer = [0; 100];
        eventually(Duration::from_secs(10), "the packet", || {
            to.receive(&mut buffer).is_ok_and(|got| buffer[..got.length].starts_with(&[7; 28]))
        });
    }
}
