use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::client::Nft;
use super::ruleset::{Family, Table};
use super::socket::Socket;
use super::wire::{self, Messages, msg};
use crate::{Error, Netns, Result};

const GROUP_NFTABLES: i32 = 7;
const ROOM: i32 = 4 << 20;

/// Something changed in nftables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NftEvent {
    /// A table, or a chain, rule, set or element in it, was added or removed.
    Touched {
        /// Which table.
        table: Table,
        /// The netlink port of who did it; [`super::Nft::port`] for oneself.
        port: u32,
    },
    /// A transaction is complete; its `Touched` events came before.
    Committed {
        /// The generation it made.
        generation: u32,
        /// The netlink port of who did it.
        port: u32,
    },
    /// Events were lost: read everything again.
    Overrun,
}

impl NftEvent {
    /// Whether another than `own`, a netlink port, changed a table of this name in any family, or may have.
    pub fn is_anothers(&self, name: &str, own: Option<u32>) -> bool {
        match self {
            NftEvent::Touched { table, port } => table.name == name && Some(*port) != own,
            NftEvent::Overrun => true,
            NftEvent::Committed { .. } => false,
        }
    }
}

/// Says which tables change, in the namespace where it was opened.
///
/// While this process makes a large transaction there, its monitors do not listen: to write down an element for
/// them takes the kernel several times as long as to add it. Where another transaction was made meanwhile they
/// say [`NftEvent::Overrun`].
#[derive(Debug)]
pub struct NftMonitor {
    ear: Arc<Ear>,
}

#[derive(Debug)]
struct Ear {
    socket: Socket,
    /// Whether something may have happened while it did not listen.
    missed: AtomicBool,
}

/// All monitors of the process.
static EARS: Mutex<Vec<Weak<Ear>>> = Mutex::new(Vec::new());

/// Does `work`, which is one transaction of `nft`, while no monitor of its namespace listens.
pub(super) fn unheard(nft: &mut Nft, work: impl FnOnce(&mut Nft) -> Result<()>) -> Result<()> {
    let mut all = EARS.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|ear| ear.strong_count() > 0);
    let place = nft.namespace();
    let here = all.iter().filter_map(Weak::upgrade);
    let ears: Vec<Arc<Ear>> = here.filter(|ear| place.is_some() && ear.socket.namespace() == place).collect();
    if ears.is_empty() {
        drop(all);
        return work(nft);
    }
    let before = nft.generation()?;
    // Who cannot leave hears it.
    ears.iter().for_each(|ear| _ = ear.socket.leave(GROUP_NFTABLES));
    let done = work(nft);
    let own = u32::from(done.is_ok());
    let joined: io::Result<()> = ears.iter().try_for_each(|ear| ear.socket.join(GROUP_NFTABLES));
    if joined.is_err() || nft.generation().ok() != Some(before.wrapping_add(own)) {
        for ear in ears {
            ear.missed.store(true, Ordering::Release);
            // The answer wakes who waits.
            let _ = ear.socket.send(&generation_request());
        }
    }
    joined.map_err(|e| Error::sys("listen to", "nftables again", e))?;
    done
}

fn generation_request() -> Vec<u8> {
    let mut out = Vec::new();
    wire::message(&mut out, msg::GET_GEN, 0, 0, 0, 0, &[]);
    out
}

impl NftMonitor {
    /// Opens one in the calling thread's network namespace.
    pub fn open() -> Result<NftMonitor> {
        let socket = joined(GROUP_NFTABLES, "an nftables monitor")?;
        let ear = Arc::new(Ear { socket, missed: AtomicBool::new(false) });
        EARS.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&ear));
        Ok(NftMonitor { ear })
    }

    /// Opens one in another network namespace.
    pub fn open_in(netns: &Netns) -> Result<NftMonitor> {
        netns.run(NftMonitor::open)?
    }

    /// Tells no more of what the socket with this netlink port changes, and wakes nobody for it. Of two ports the
    /// last one counts.
    pub fn ignore(&mut self, port: u32) -> Result<()> {
        self.ear.socket.ignore(port).map_err(|e| Error::sys("filter", "nftables events", e))
    }

    /// The next events, at least one; repeats about one table by one port are given once.
    pub fn wait(&mut self) -> Result<Vec<NftEvent>> {
        loop {
            if let Some(events) = self.read(true)?.filter(|e| !e.is_empty()) {
                return Ok(events);
            }
        }
    }

    /// The events that wait; `None` when there are none. For use with the descriptor.
    pub fn try_next(&mut self) -> Result<Option<Vec<NftEvent>>> {
        loop {
            match self.read(false)? {
                Some(events) if events.is_empty() => {}
                other => return Ok(other),
            }
        }
    }

    fn read(&mut self, wait: bool) -> Result<Option<Vec<NftEvent>>> {
        if self.ear.missed.swap(false, Ordering::AcqRel) {
            return Ok(Some(vec![NftEvent::Overrun]));
        }
        match self.ear.socket.receive(wait) {
            Ok(datagram) => {
                let mut events: Vec<NftEvent> = Messages(&datagram).filter_map(|m| event(&m)).collect();
                events.dedup();
                Ok(Some(events))
            }
            Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => Ok(Some(vec![NftEvent::Overrun])),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(Error::sys("read", "nftables events", e)),
        }
    }
}

impl AsFd for NftMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ear.socket.as_fd()
    }
}

pub(super) fn joined(group: i32, what: &'static str) -> Result<Socket> {
    let open = || -> io::Result<Socket> {
        let socket = Socket::open()?;
        if socket.option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, ROOM).is_err() {
            socket.option(libc::SOL_SOCKET, libc::SO_RCVBUF, ROOM)?;
        }
        socket.join(group)?;
        Ok(socket)
    };
    open().map_err(|e| Error::sys("open", what, e))
}

fn event(message: &wire::Message<'_>) -> Option<NftEvent> {
    if message.kind & 0xff00 != wire::SUBSYSTEM || message.kind == msg::TRACE {
        return None;
    }
    if message.kind == msg::NEW_GEN {
        let generation = message.attributes().be32(1)?;
        return Some(NftEvent::Committed { generation, port: message.port });
    }
    // In tables, chains, rules, sets and elements alike the first attribute type is the table's name.
    let table = Table { family: Family::from_number(message.family()), name: message.attributes().text(1)? };
    Some(NftEvent::Touched { table, port: message.port })
}
