//! Persistent TUN interfaces with several queues: whole IP packets, in trains of segments.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use crate::{Error, Piece, Result};

const DEVICE: &str = "/dev/net/tun";
/// `TUN_F_USO4 | TUN_F_USO6` (Linux 6.2).
const USO: libc::c_uint = 0x20 | 0x40;
/// The most pieces of one frame: the kernel's `UIO_MAXIOV`.
const MAX_PIECES: usize = 1024;

/// The kernel's `struct ifreq` as the tun driver reads it.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}

/// One queue of a TUN interface. A frame is the ten bytes of `struct virtio_net_hdr` in host
/// byte order and one IP packet, which the header may declare to be a train of segments.
#[derive(Debug)]
pub struct TunQueue {
    fd: OwnedFd,
    /// Whether the kernel gives and takes trains of UDP datagrams too.
    udp_trains: bool,
    /// For `writev`; filled and emptied by each write.
    vector: Vec<Vector>,
}

/// A `struct iovec` that may go to another thread: it is only filled during a call.
#[derive(Debug)]
#[repr(transparent)]
struct Vector(libc::iovec);

// SAFETY: the pointers are set and used within one call, and kept by nobody in between.
unsafe impl Send for Vector {}

/// Opens `queues` queues of the TUN interface `name` in the calling thread's namespace. It is
/// made where it is missing and stays when the queues are closed, with its addresses and routes.
/// Fails with EINVAL if a link of this name is no TUN interface with several queues.
pub fn open_tun(name: &str, queues: usize) -> Result<Vec<TunQueue>> {
    (0..queues).map(|_| open_queue(name)).collect()
}

fn open_queue(name: &str) -> Result<TunQueue> {
    let failed = |e: io::Error| Error::sys("open a queue of TUN interface", name, e);
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(DEVICE)
        .map_err(|e| Error::sys("open", DEVICE, e))?;
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
    let mut request = Request { name: [0; libc::IFNAMSIZ], flags: flags as libc::c_short, rest: [0; 22] };
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    }
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    let fd = device.as_raw_fd();
    let done = |result: libc::c_int| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    // SAFETY: fd is open; `request` has the size and form of struct ifreq and lives through the
    // call, which the driver may write the name back to.
    done(unsafe { libc::ioctl(fd, libc::TUNSETIFF, &raw mut request) }).map_err(failed)?;
    // SAFETY: fd is open; the argument is a number.
    done(unsafe { libc::ioctl(fd, libc::TUNSETPERSIST, libc::c_ulong::from(1u32)) }).map_err(failed)?;
    let base = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    // SAFETY: as above.
    let offer =
        |bits: libc::c_uint| done(unsafe { libc::ioctl(fd, libc::TUNSETOFFLOAD, libc::c_ulong::from(bits)) });
    let udp_trains = offer(base | USO).is_ok();
    if !udp_trains {
        offer(base).map_err(failed)?;
    }
    Ok(TunQueue { fd: device.into(), udp_trains, vector: Vec::with_capacity(MAX_PIECES) })
}

impl TunQueue {
    /// The interface's index.
    pub fn ifindex(&self) -> Result<u32> {
        let failed = |e: io::Error| Error::sys("read the name of", "a TUN interface", e);
        let mut request = Request { name: [0; libc::IFNAMSIZ], flags: 0, rest: [0; 22] };
        // SAFETY: the descriptor is open; `request` has the size and form of struct ifreq and
        // lives through the call, which writes to it.
        let done = unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TUNGETIFF, &raw mut request) };
        if done < 0 {
            return Err(failed(io::Error::last_os_error()));
        }
        // SAFETY: the name ends with a zero byte within its sixteen, as the kernel wrote it.
        let index = unsafe { libc::if_nametoindex(request.name.as_ptr().cast()) };
        if index == 0 { Err(failed(io::Error::last_os_error())) } else { Ok(index) }
    }

    /// Whether trains of UDP datagrams may be written (and will be read).
    pub fn udp_trains(&self) -> bool {
        self.udp_trains
    }

    /// The next frame the host sends; `WouldBlock` when there is none. `buffer` must hold the
    /// largest, 10 + 65,535 bytes; what is longer is cut.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the buffer is ours, lives through the call and is given with its size.
        let got = unsafe { libc::read(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        usize::try_from(got).map_err(|_| io::Error::last_os_error())
    }

    /// Gives the host one frame, which lies in `pieces` of `arena`.
    pub fn write(&mut self, arena: &[u8], pieces: &[Piece]) -> io::Result<()> {
        self.vector.clear();
        for piece in pieces.iter().take(MAX_PIECES) {
            let bytes = piece.of(arena).ok_or(io::ErrorKind::InvalidInput)?;
            self.vector.push(Vector(libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            }));
        }
        let count = self.vector.len() as libc::c_int;
        // SAFETY: Vector is an iovec in memory; each points to bytes of `arena`, which lives
        // through the call and is only read.
        let sent = unsafe { libc::writev(self.fd.as_raw_fd(), self.vector.as_ptr().cast(), count) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsFd for TunQueue {
    /// Readable when the host sends.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
