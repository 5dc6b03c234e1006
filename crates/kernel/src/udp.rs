//! UDP sockets that move trains of datagrams: UDP_SEGMENT, UDP_GRO and many messages a call.

use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use crate::sockaddr::{from_name, to_name};
use crate::{Error, Result};

const UDP_SEGMENT: libc::c_int = 103;
const UDP_GRO: libc::c_int = 104;
/// Room for two control messages of an int each.
const CONTROL: usize = 64;
/// The most messages of one call.
const MAX_MESSAGES: usize = 64;
/// The most pieces of one call, over all its messages.
const MAX_PIECES: usize = 4096;

/// A part of an arena of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins.
    pub start: u32,
    /// Its length in bytes.
    pub len: u32,
}

impl Piece {
    /// Its bytes; nothing if it does not lie in `arena`.
    pub fn of(self, arena: &[u8]) -> Option<&[u8]> {
        let start = self.start as usize;
        arena.get(start..start.checked_add(self.len as usize)?)
    }
}

/// Datagrams to one receiver, all of one size but for the last, which may be shorter.
#[derive(Clone, Copy, Debug)]
pub struct Train {
    /// The receiver.
    pub to: SocketAddr,
    /// Its pieces: index of the first.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// The size of one datagram where there are several.
    pub segment: Option<u16>,
    /// The two ECN bits of its packets (RFC 3168).
    pub ecn: u8,
}

/// What one message brought: a train of datagrams that the kernel joined, or one.
#[derive(Clone, Copy, Debug)]
pub struct Arrived {
    /// The sender.
    pub from: SocketAddr,
    /// Where in the arena, and how much.
    pub piece: Piece,
    /// The size of each datagram but the last.
    pub segment: u32,
    /// Whether the end did not fit.
    pub truncated: bool,
    /// The two ECN bits of its packets (RFC 3168).
    pub ecn: u8,
}

/// Control messages of one message, aligned as cmsg(3) wants them.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// A UDP socket with buffers for many messages a call.
pub struct UdpSocket {
    fd: OwnedFd,
    headers: Vec<libc::mmsghdr>,
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
    vectors: Vec<libc::iovec>,
}

// SAFETY: the pointers in `headers` and `vectors` are set and used within one call, and kept by
// nobody in between.
unsafe impl Send for UdpSocket {}

impl std::fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UdpSocket").field("fd", &self.fd).finish_non_exhaustive()
    }
}

impl UdpSocket {
    /// Binds one of a group of sockets that share `local` in the calling thread's namespace. It
    /// never fragments: what exceeds the path's MTU is refused with EMSGSIZE. `buffer` is asked
    /// for as the size of both of its queues in bytes.
    pub fn bind(local: SocketAddr, buffer: u32) -> Result<UdpSocket> {
        let failed = |e: io::Error| Error::sys("bind UDP socket", local.to_string(), e);
        let fd = new_socket(local.ip()).map_err(failed)?;
        // SAFETY: all zero bytes are a valid mmsghdr and a valid sockaddr_storage.
        let (header, name) = unsafe { (mem::zeroed(), mem::zeroed()) };
        let socket = UdpSocket {
            fd,
            headers: vec![header; MAX_MESSAGES],
            names: vec![name; MAX_MESSAGES],
            controls: vec![Control([0; CONTROL]); MAX_MESSAGES],
            vectors: vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; MAX_PIECES],
        };
        let option = |level, name, value: libc::c_int| set(&socket.fd, level, name, &value).map_err(failed);
        option(libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        option(libc::IPPROTO_UDP, UDP_GRO, 1)?;
        if local.is_ipv4() {
            option(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO)?;
            option(libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
        } else {
            option(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
            option(libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO)?;
            option(libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
        }
        let size = libc::c_int::try_from(buffer).unwrap_or(libc::c_int::MAX);
        // Beyond the limits of the machine where we may; what it is otherwise is good enough.
        for (force, plain) in
            [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
        {
            if set(&socket.fd, libc::SOL_SOCKET, force, &size).is_err() {
                option(libc::SOL_SOCKET, plain, size)?;
            }
        }
        let (name, length) = to_name(local);
        // SAFETY: `name` lives through the call and `length` is its size.
        let done = unsafe { libc::bind(socket.fd.as_raw_fd(), (&raw const name).cast(), length) };
        if done < 0 { Err(failed(io::Error::last_os_error())) } else { Ok(socket) }
    }

    /// Has the kernel choose among the `sockets` of this socket's group by the addresses and ports
    /// of the packet that a datagram carries, so that one flow stays with one socket.
    pub fn spread_by_inner_flow(&self, sockets: u32) -> Result<()> {
        let program = inner_flow_program(sockets.max(1));
        let length = u16::try_from(program.len()).unwrap_or_default();
        let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
        let done = set(&self.fd, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &program);
        done.map_err(|e| Error::sys("attach", "the choice among UDP sockets", e))
    }

    /// Sends trains whose datagrams lie in `pieces` of `arena`: how many were sent, or why the
    /// first was not. Does not wait.
    pub fn send(&mut self, arena: &[u8], pieces: &[Piece], trains: &[Train]) -> io::Result<usize> {
        let mut used = 0;
        let mut ready = 0;
        for train in trains.iter().take(MAX_MESSAGES) {
            let first = train.first as usize;
            let own = pieces.get(first..first.saturating_add(train.count as usize));
            let own = own.ok_or(io::ErrorKind::InvalidInput)?;
            let Some(vectors) = self.vectors.get_mut(used..used + own.len()) else { break };
            for (vector, piece) in vectors.iter_mut().zip(own) {
                let bytes = piece.of(arena).ok_or(io::ErrorKind::InvalidInput)?;
                vector.iov_base = bytes.as_ptr().cast_mut().cast();
                vector.iov_len = bytes.len();
            }
            let at = used;
            used += own.len();
            self.address(ready, train.to);
            let length = self.control(ready, train);
            let message = &mut self.headers[ready].msg_hdr;
            message.msg_iov = &raw mut self.vectors[at];
            message.msg_iovlen = own.len() as _;
            message.msg_control =
                if length > 0 { (&raw mut self.controls[ready]).cast() } else { ptr::null_mut() };
            message.msg_controllen = length as _;
            message.msg_flags = 0;
            ready += 1;
        }
        if ready == 0 {
            return if trains.is_empty() { Ok(0) } else { Err(io::ErrorKind::InvalidInput.into()) };
        }
        // SAFETY: the first `ready` headers were just filled in with pointers to our own vectors
        // with their sizes, and those point into `arena`; all live through the call.
        let sent = unsafe {
            libc::sendmmsg(
                self.fd.as_raw_fd(),
                self.headers.as_mut_ptr(),
                ready as libc::c_uint,
                libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Takes in what has come, at most `slots` messages, each into its own part of `arena` of
    /// `stride` bytes; `WouldBlock` when nothing has. Describes them in `arrived`.
    pub fn receive(
        &mut self,
        arena: &mut [u8],
        stride: usize,
        slots: usize,
        arrived: &mut Vec<Arrived>,
    ) -> io::Result<()> {
        arrived.clear();
        let slots = slots.min(MAX_MESSAGES).min(arena.len() / stride.max(1));
        for (i, slot) in arena.chunks_exact_mut(stride.max(1)).take(slots).enumerate() {
            self.vectors[i] = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
            let message = &mut self.headers[i].msg_hdr;
            message.msg_name = (&raw mut self.names[i]).cast();
            message.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            message.msg_iov = &raw mut self.vectors[i];
            message.msg_iovlen = 1;
            message.msg_control = (&raw mut self.controls[i]).cast();
            message.msg_controllen = CONTROL as _;
        }
        // SAFETY: the first `slots` headers were just filled in with pointers to our own names,
        // controls and vectors with their sizes, and those point to parts of `arena` that do not
        // overlap; all live through the call.
        let got = unsafe {
            libc::recvmmsg(
                self.fd.as_raw_fd(),
                self.headers.as_mut_ptr(),
                slots as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
        for (i, header) in self.headers.iter().take(got).enumerate() {
            let Some(from) = from_name(&self.names[i]) else { continue };
            let piece = Piece { start: (i * stride) as u32, len: header.msg_len };
            let (joined, ecn) = told(&header.msg_hdr);
            let segment = joined.filter(|size| *size > 0).unwrap_or(piece.len);
            let truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            arrived.push(Arrived { from, piece, segment, truncated, ecn });
        }
        Ok(())
    }

    fn address(&mut self, i: usize, to: SocketAddr) {
        let (name, length) = to_name(to);
        self.names[i] = name;
        let message = &mut self.headers[i].msg_hdr;
        message.msg_name = (&raw mut self.names[i]).cast();
        message.msg_namelen = length;
    }

    /// Writes what message `i` says beside its bytes, UDP_SEGMENT and the ECN bits where there are
    /// any; its length.
    fn control(&mut self, i: usize, train: &Train) -> usize {
        let bytes = &mut self.controls[i].0;
        let mut at = 0;
        if let Some(size) = train.segment {
            at += control_message(bytes, at, libc::IPPROTO_UDP, UDP_SEGMENT, &size.to_ne_bytes());
        }
        if train.ecn != 0 {
            let (level, kind) = if train.to.is_ipv4() {
                (libc::IPPROTO_IP, libc::IP_TOS)
            } else {
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
            };
            at += control_message(bytes, at, level, kind, &libc::c_int::from(train.ecn).to_ne_bytes());
        }
        at
    }
}

impl AsFd for UdpSocket {
    /// Readable when something has come.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Classic BPF over a datagram's payload, an IPv4 or IPv6 packet: a number below `sockets` from
/// its addresses and, of TCP and UDP, its ports. What is too short for it gives 0.
fn inner_flow_program(sockets: u32) -> [libc::sock_filter; 30] {
    use libc::{
        BPF_A, BPF_ABS, BPF_ALU, BPF_B, BPF_IMM, BPF_JA, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_LDX,
    };
    use libc::{BPF_MEM, BPF_MISC, BPF_MOD, BPF_RET, BPF_RSH, BPF_ST, BPF_TAX, BPF_W, BPF_X, BPF_XOR};
    let code = |class: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: class as u16, jt, jf, k };
    let word = |at| code(BPF_LD | BPF_W | BPF_ABS, at, 0, 0);
    let byte = |at| code(BPF_LD | BPF_B | BPF_ABS, at, 0, 0);
    let same = |value: libc::c_int, jt, jf| code(BPF_JMP | BPF_JEQ | BPF_K, value.cast_unsigned(), jt, jf);
    let skip = |count| code(BPF_JMP | BPF_JA, count, 0, 0);
    let tax = code(BPF_MISC | BPF_TAX, 0, 0, 0);
    let xor = code(BPF_ALU | BPF_XOR | BPF_X, 0, 0, 0);
    [
        byte(0),
        code(BPF_JMP | BPF_JSET | BPF_K, 0x20, 10, 0),
        // IPv4: the addresses are kept; then the ports, if there are any.
        word(12),
        tax,
        word(16),
        xor,
        code(BPF_ST, 0, 0, 0),
        byte(9),
        same(libc::IPPROTO_TCP, 1, 0),
        same(libc::IPPROTO_UDP, 0, 12),
        word(20),
        skip(11),
        // IPv6: of the addresses the ends.
        word(20),
        tax,
        word(36),
        xor,
        code(BPF_ST, 0, 0, 0),
        byte(6),
        same(libc::IPPROTO_TCP, 1, 0),
        same(libc::IPPROTO_UDP, 0, 2),
        word(40),
        skip(1),
        code(BPF_LD | BPF_IMM, 0, 0, 0),
        code(BPF_LDX | BPF_MEM, 0, 0, 0),
        xor,
        tax,
        code(BPF_ALU | BPF_RSH | BPF_K, 16, 0, 0),
        xor,
        code(BPF_ALU | BPF_MOD | BPF_K, sockets, 0, 0),
        code(BPF_RET | BPF_A, 0, 0, 0),
    ]
}

/// The MTU of the path from `from` to `to` as the kernel knows it now, in bytes.
pub fn path_mtu(from: IpAddr, to: SocketAddr) -> Result<u32> {
    let failed = |e: io::Error| Error::sys("read the path MTU to", to.to_string(), e);
    let fd = new_socket(to.ip()).map_err(failed)?;
    for (address, connect) in [(SocketAddr::new(from, 0), false), (to, true)] {
        let (name, length) = to_name(address);
        let name = (&raw const name).cast();
        // SAFETY: the name lives through the call and `length` is its size.
        let done = unsafe {
            if connect {
                libc::connect(fd.as_raw_fd(), name, length)
            } else {
                libc::bind(fd.as_raw_fd(), name, length)
            }
        };
        if done < 0 {
            return Err(failed(io::Error::last_os_error()));
        }
    }
    let (level, option) =
        if to.is_ipv4() { (libc::IPPROTO_IP, libc::IP_MTU) } else { (libc::IPPROTO_IPV6, libc::IPV6_MTU) };
    let mut mtu: libc::c_int = 0;
    let mut length = size_of_val(&mtu) as libc::socklen_t;
    // SAFETY: `mtu` and `length` live through the call, and `length` is the size of `mtu`.
    let done =
        unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, (&raw mut mtu).cast(), &raw mut length) };
    if done < 0 { Err(failed(io::Error::last_os_error())) } else { Ok(mtu.cast_unsigned()) }
}

fn new_socket(family: IpAddr) -> io::Result<OwnedFd> {
    let domain = if family.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: no pointers; a negative result is no descriptor and is not wrapped.
    let raw = unsafe { libc::socket(domain, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above just made it and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn set<T>(fd: &OwnedFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    let value: *const T = value;
    // SAFETY: `value` lives through the call and `length` is its size.
    let done = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.cast(), length) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Where the data of a control message begins, and what all of it is aligned to (`CMSG_ALIGN`).
const CONTROL_DATA: usize = size_of::<libc::cmsghdr>().next_multiple_of(size_of::<usize>());

/// Writes a control message (cmsg(3)) at `at`; the room it takes. Nothing if it does not fit.
fn control_message(bytes: &mut [u8], at: usize, level: libc::c_int, kind: libc::c_int, data: &[u8]) -> usize {
    let len = CONTROL_DATA + data.len();
    let room = len.next_multiple_of(size_of::<usize>());
    let Some(bytes) = bytes.get_mut(at..at + room) else { return 0 };
    let (length, rest) = bytes.split_at_mut(size_of::<usize>());
    length.copy_from_slice(&len.to_ne_bytes());
    rest[..4].copy_from_slice(&level.to_ne_bytes());
    rest[4..8].copy_from_slice(&kind.to_ne_bytes());
    bytes[CONTROL_DATA..len].copy_from_slice(data);
    room
}

/// What the control messages of a message that came say: the size of the datagrams the kernel
/// joined (UDP_GRO), and the ECN bits.
fn told(message: &libc::msghdr) -> (Option<u32>, u8) {
    let (mut size, mut ecn) = (None, 0);
    // SAFETY: `message` is as recvmmsg filled it in and its control buffer is still alive.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR only give headers that are whole within the
        // buffer; the data of UDP_GRO and IPV6_TCLASS is an int, which may be unaligned, and that
        // of IP_TOS a byte.
        unsafe {
            let data = libc::CMSG_DATA(header);
            let number = || data.cast::<libc::c_int>().read_unaligned();
            match ((*header).cmsg_level, (*header).cmsg_type) {
                (libc::IPPROTO_UDP, UDP_GRO) => size = u32::try_from(number()).ok(),
                (libc::IPPROTO_IP, libc::IP_TOS) => ecn = data.read() & 3,
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => ecn = (number() & 3) as u8,
                _ => {}
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    (size, ecn)
}
