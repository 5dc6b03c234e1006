use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::low::verdict;
use super::monitor::joined;
use super::ruleset::{Family, Table};
use super::socket::Socket;
use super::wire::{Message, Messages, msg};
use crate::{Error, Netns, Result};

const GROUP_TRACE: i32 = 9;

/// What met the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceKind {
    /// The base chain's policy.
    Policy,
    /// The end of a chain, or a return.
    Return,
    /// A rule that matched.
    Rule,
}

/// What was decided there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The packet passes this base chain.
    Accept,
    /// The packet is gone.
    Drop,
    /// The next rule is asked.
    Continue,
    /// Another chain is asked.
    Jump(String),
    /// Back to the calling chain.
    Return,
    /// Another decision, by its code.
    Other(i32),
}

/// One step of a packet whose `nftrace` is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceEvent {
    /// The same for all steps of one packet in this namespace.
    pub id: u32,
    /// In which table.
    pub table: Table,
    /// In which chain.
    pub chain: String,
    /// What met the packet.
    pub kind: TraceKind,
    /// Which rule (see [`super::LiveRule::handle`]), for [`TraceKind::Rule`].
    pub handle: Option<u64>,
    /// What was decided; a policy's verdict for [`TraceKind::Policy`].
    pub verdict: Verdict,
    /// Index of the device it came in by.
    pub iif: Option<u32>,
    /// Index of the device it goes out by.
    pub oif: Option<u32>,
    /// The network header; only in a packet's first event of a chain.
    pub network: Vec<u8>,
    /// The start of the transport header, likewise.
    pub transport: Vec<u8>,
}

/// Reports packets marked by [`super::Expr::Trace`], in the namespace where it was opened.
#[derive(Debug)]
pub struct TraceMonitor {
    socket: Socket,
}

impl TraceMonitor {
    /// Opens one in the calling thread's network namespace.
    pub fn open() -> Result<TraceMonitor> {
        Ok(TraceMonitor { socket: joined(GROUP_TRACE, "an nftables trace")? })
    }

    /// Opens one in another network namespace.
    pub fn open_in(netns: &Netns) -> Result<TraceMonitor> {
        netns.run(TraceMonitor::open)?
    }

    /// The events that wait, without waiting for more. Lost ones (ENOBUFS) are left out: the
    /// report is best effort.
    pub fn ready(&mut self) -> Result<Vec<TraceEvent>> {
        let mut events = Vec::new();
        loop {
            match self.socket.receive(false) {
                Ok(datagram) => events.extend(decode_traces(&datagram)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(events),
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(e) => return Err(Error::sys("read", "nftables traces", e)),
            }
        }
    }
}

impl AsFd for TraceMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The steps that a datagram of an nftables socket tells of; what makes no sense is left out.
pub fn decode_traces(datagram: &[u8]) -> impl Iterator<Item = TraceEvent> {
    Messages(datagram).filter_map(|message| event(&message))
}

fn event(message: &Message<'_>) -> Option<TraceEvent> {
    (message.kind == msg::TRACE).then_some(())?;
    let a = message.attributes();
    let kind = match a.be32(4)? {
        1 => TraceKind::Policy,
        2 => TraceKind::Return,
        3 => TraceKind::Rule,
        _ => return None,
    };
    let given = a.nested(5);
    let code = if kind == TraceKind::Policy { a.be32(16).or(given.be32(1))? } else { given.be32(1)? };
    let verdict = match code.cast_signed() {
        verdict::ACCEPT => Verdict::Accept,
        verdict::DROP => Verdict::Drop,
        verdict::CONTINUE => Verdict::Continue,
        verdict::JUMP | verdict::GOTO => Verdict::Jump(given.text(2).unwrap_or_default()),
        verdict::RETURN => Verdict::Return,
        other => Verdict::Other(other),
    };
    Some(TraceEvent {
        id: a.be32(6)?,
        table: Table { family: Family::from_number(message.family()), name: a.text(1)? },
        chain: a.text(2)?,
        kind,
        handle: a.be64(3),
        verdict,
        iif: a.be32(10),
        oif: a.be32(12),
        network: a.get(8).unwrap_or_default().to_vec(),
        transport: a.get(9).unwrap_or_default().to_vec(),
    })
}
