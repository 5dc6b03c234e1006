//! Virtual servers of the kernel (IPVS): an address, protocol and port whose connections a scheduler gives to
//! destinations. By generic netlink, without `ipvsadm`; all that are there by the kernel's own listing.

mod codec;
mod listing;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;

use crate::ack::{Refusal, end_of_dump, kernel_error, refusal};
use crate::socket::Socket;
use crate::wire::{acknowledge_last_only, append, messages};
use crate::{Error, Result};

pub use listing::{Destination, Listed};

/// One send carries at most so much.
const SEND_BYTES: usize = 32 * 1024;
const RECEIVE_BYTES: libc::c_int = 2 * 1024 * 1024;
const DUMP: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
const ACKED: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;

/// How a virtual server chooses; `net/netfilter/ipvs/ip_vs_*.c`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheduler {
    /// One after the other.
    #[default]
    RoundRobin,
    /// The same by weights.
    WeightedRoundRobin,
    /// Who has the fewest connections.
    LeastConnections,
    /// The same by weights.
    WeightedLeastConnections,
    /// By a hash of the destination address.
    DestinationHash,
    /// By a hash of the client's address.
    SourceHash,
    /// Who would be done first.
    ShortestExpectedDelay,
    /// Who is idle, else as the one before.
    NeverQueue,
    /// By Maglev's consistent hash of the client's address (Linux 4.18).
    Maglev,
    /// By the destination address, to where it went before unless that is busy.
    LocalityLeastConnections,
}

impl Scheduler {
    /// All of them, with the kernel's names.
    pub const ALL: [(&'static str, Scheduler); 10] = [
        ("rr", Scheduler::RoundRobin),
        ("wrr", Scheduler::WeightedRoundRobin),
        ("lc", Scheduler::LeastConnections),
        ("wlc", Scheduler::WeightedLeastConnections),
        ("dh", Scheduler::DestinationHash),
        ("sh", Scheduler::SourceHash),
        ("sed", Scheduler::ShortestExpectedDelay),
        ("nq", Scheduler::NeverQueue),
        ("mh", Scheduler::Maglev),
        ("lblc", Scheduler::LocalityLeastConnections),
    ];

    /// The kernel's name.
    pub fn name(self) -> &'static str {
        Scheduler::ALL.iter().find(|(_, of)| *of == self).map_or("rr", |(name, _)| name)
    }

    /// Whether it goes on choosing a destination of weight 0, whose clients it then drops.
    pub fn ignores_weight(self) -> bool {
        self == Scheduler::DestinationHash
    }

    /// `IP_VS_SVC_F_SCHED1` (fallback): another where the one that the hash says has weight 0.
    fn flags(self) -> u32 {
        if matches!(self, Scheduler::SourceHash | Scheduler::Maglev) { 0x8 } else { 0 }
    }
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scheduler {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Scheduler, String> {
        let found = Scheduler::ALL.iter().find(|(name, _)| *name == text);
        let names = Scheduler::ALL.map(|(name, _)| name).join(", ");
        found.map(|(_, of)| *of).ok_or_else(|| format!("{text:?} is no scheduler: use one of {names}"))
    }
}

/// Which virtual server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerKey {
    /// Where its clients connect to.
    pub at: SocketAddr,
    /// IANA's number of the protocol: 6 TCP, 17 UDP, 132 SCTP.
    pub protocol: u8,
}

impl fmt::Display for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.protocol {
            6 => "TCP",
            17 => "UDP",
            132 => "SCTP",
            _ => "?",
        };
        write!(f, "{name} {}", self.at)
    }
}

/// What a virtual server is but for its destinations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// How it chooses, by the kernel's name.
    pub scheduler: String,
    /// For how many seconds a client stays with its destination.
    pub persistence: Option<u32>,
    /// Flags that belong to the scheduler.
    flags: u32,
}

impl Server {
    /// A virtual server.
    pub fn new(scheduler: Scheduler, persistence: Option<u32>) -> Server {
        Server { scheduler: scheduler.name().to_owned(), persistence, flags: scheduler.flags() }
    }
}

/// One change. Destinations are reached by translation (`Masq`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new virtual server.
    Add(ServerKey, Server),
    /// Another scheduler or persistence.
    Set(ServerKey, Server),
    /// It goes with its destinations.
    Remove(ServerKey),
    /// A new destination with its weight.
    AddDestination(ServerKey, SocketAddr, u32),
    /// Another weight.
    SetDestination(ServerKey, SocketAddr, u32),
    /// It goes; the kernel does not lead its connections any more.
    RemoveDestination(ServerKey, SocketAddr),
}

impl Change {
    fn describe(&self) -> (&'static str, String) {
        match self {
            Change::Add(key, _) => ("add virtual server", key.to_string()),
            Change::Set(key, _) => ("change virtual server", key.to_string()),
            Change::Remove(key) => ("remove virtual server", key.to_string()),
            Change::AddDestination(key, to, _) => {
                ("add destination to virtual server", format!("{key} {to}"))
            }
            Change::SetDestination(key, to, _) => {
                ("change destination of virtual server", format!("{key} {to}"))
            }
            Change::RemoveDestination(key, to) => {
                ("remove destination of virtual server", format!("{key} {to}"))
            }
        }
    }
}

/// A socket for virtual servers. It stays in the namespace it was opened in.
#[derive(Debug)]
pub struct Ipvs {
    socket: Socket,
    family: u16,
    seq: u32,
}

impl Ipvs {
    /// One in the calling thread's namespace; ENOENT where the kernel has no IPVS (module `ip_vs`).
    pub fn open() -> Result<Ipvs> {
        let failed = |e: io::Error| Error::sys("open", "IPVS", e);
        let socket = Socket::open_for(libc::NETLINK_GENERIC, 0, RECEIVE_BYTES).map_err(failed)?;
        let mut ipvs = Ipvs { socket, family: codec::CONTROL, seq: 0 };
        let mut family = None;
        let question = codec::family();
        ipvs.ask(&question, ACKED, &mut |payload| family = family.or(codec::read_family(payload)))?;
        ipvs.family = family.ok_or_else(|| failed(io::Error::from_raw_os_error(libc::ENOENT)))?;
        Ok(ipvs)
    }

    /// All virtual servers of the namespace but those that marks lead to.
    pub fn servers(&mut self) -> Result<BTreeMap<ServerKey, Server>> {
        let mut found = BTreeMap::new();
        self.ask(&codec::get_servers(), DUMP, &mut |payload| found.extend(codec::read_server(payload)))?;
        Ok(found)
    }

    /// The destinations of these virtual servers, which are in the calling thread's namespace.
    pub fn destinations<'a>(&mut self, of: impl IntoIterator<Item = &'a ServerKey>) -> Result<Listed> {
        let path = "/proc/thread-self/net/ip_vs";
        let text = std::fs::read_to_string(path).map_err(|e| Error::sys("read", path, e))?;
        let mut listed = listing::parse(&text);
        let mut out = Listed::new();
        for key in of {
            let destinations = match listed.remove(key) {
                Some(destinations) => destinations,
                // The listing leaves some out where other namespaces have virtual servers too (6.1): a reading that
                // goes on counts theirs.
                None => self.destinations_of(key)?,
            };
            out.insert(*key, destinations);
        }
        Ok(out)
    }

    fn destinations_of(&mut self, key: &ServerKey) -> Result<BTreeMap<SocketAddr, Destination>> {
        let mut found = BTreeMap::new();
        let ipv6 = key.at.is_ipv6();
        let mut visit = |payload: &[u8]| found.extend(codec::read_destination(payload, ipv6));
        self.ask(&codec::get_destinations(key), DUMP, &mut visit)?;
        Ok(found)
    }

    /// Does the changes in order and gives the result of each. One that fails does not stop the others.
    pub fn batch(&mut self, changes: &[Change]) -> Vec<Result<()>> {
        let mut results = Vec::with_capacity(changes.len());
        while results.len() < changes.len() {
            let rest = &changes[results.len()..];
            results.extend(self.send_some(rest));
        }
        results
    }

    /// Does as many as fit one send, at least one.
    fn send_some(&mut self, changes: &[Change]) -> Vec<Result<()>> {
        let mut buffer = Vec::new();
        let first = self.seq;
        let mut taken = 0;
        for change in changes {
            if taken > 0 && buffer.len() > SEND_BYTES {
                break;
            }
            append(&mut buffer, self.family, ACKED, self.seq, &codec::change(change));
            self.seq = self.seq.wrapping_add(1);
            taken += 1;
        }
        acknowledge_last_only(&mut buffer);
        let mut refused: HashMap<u32, Refusal> = HashMap::new();
        let last = self.seq.wrapping_sub(1);
        let done = self.socket.send(&buffer).and_then(|()| self.answers(last, &mut refused));
        let result = |(index, change): (usize, &Change)| {
            let (op, object) = change.describe();
            let refusal = refused.remove(&first.wrapping_add(index as u32));
            match (refusal, &done) {
                (Some((errno, said)), _) => Err(kernel_error(op, object, errno, said)),
                (None, Ok(())) => Ok(()),
                // What has no answer may or may not have been done: the caller has to read and see.
                (None, Err(e)) => {
                    Err(kernel_error(op, object, e.raw_os_error().unwrap_or(libc::EIO), String::new()))
                }
            }
        };
        changes[..taken].iter().enumerate().map(result).collect()
    }

    /// Reads until the request of that number is answered: the kernel takes them in their order.
    fn answers(&mut self, last: u32, refused: &mut HashMap<u32, Refusal>) -> io::Result<()> {
        loop {
            for message in messages(self.socket.receive(true)?) {
                if i32::from(message.kind) == libc::NLMSG_ERROR {
                    refused.extend(refusal(&message).map(|refusal| (message.seq, refusal)));
                    if message.seq == last {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Asks one question and gives each answer to `visit`.
    fn ask(&mut self, question: &codec::Question, flags: u16, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        let failed = |e: io::Error| Error::sys("read", "virtual servers", e);
        let seq = self.seq;
        self.seq = seq.wrapping_add(1);
        let mut buffer = Vec::new();
        append(&mut buffer, self.family, flags, seq, question);
        self.socket.send(&buffer).map_err(failed)?;
        loop {
            for message in messages(self.socket.receive(true).map_err(failed)?) {
                if message.seq != seq {
                    continue;
                }
                match i32::from(message.kind) {
                    libc::NLMSG_ERROR | libc::NLMSG_DONE => {
                        return end_of_dump(&message).map_or(Ok(()), |(errno, said)| {
                            Err(kernel_error("read", "virtual servers".into(), errno, said))
                        });
                    }
                    _ => visit(message.payload),
                }
            }
        }
    }
}
