//! The routing socket: links, addresses, routes, neighbours and forwarding entries.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use netlink_packet_core::Emitable;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::RouteMessage;

use crate::socket::Socket;
use crate::wire::{Message, append, attributes, i32_at, messages, text, u32_at};
use crate::{
    Address, Error, FdbEntry, Link, Neighbour, Netns, Op, Result, Route, addr, link_codec, neigh, route,
};

/// One send carries at most this much, so that its acknowledgements fit the receive buffer that
/// an unprivileged user gets (an acknowledgement takes about 1 KiB of it).
const SEND_BYTES: usize = 32 * 1024;
const SEND_REQUESTS: u32 = 256;
const RECEIVE_BYTES: libc::c_int = 2 * 1024 * 1024;
/// How often a dump is begun anew when the table changes meanwhile.
const DUMP_ATTEMPTS: u32 = 32;
/// How often, and how long at first, a full neighbour table is waited for; doubled each time.
const ROOM_ATTEMPTS: u32 = 5;
const ROOM_PAUSE: Duration = Duration::from_millis(10);

/// A blocking routing socket. It stays in the namespace it was opened in.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    /// Number of the next request.
    seq: u32,
}

/// The kernel's refusal of one request: errno and what it said.
type Refusal = (i32, String);

impl Netlink {
    /// A socket in the calling thread's namespace.
    pub fn open() -> Result<Netlink> {
        let socket = Socket::open(0, RECEIVE_BYTES).map_err(|e| Error::sys("open", "netlink socket", e))?;
        Ok(Netlink { socket, seq: 1 })
    }

    /// A socket in `ns`.
    pub fn open_in(ns: &Netns) -> Result<Netlink> {
        let _guard = ns.guard()?;
        Netlink::open()
    }

    /// Does one operation.
    pub fn apply(&mut self, op: &Op) -> Result<()> {
        self.batch(std::slice::from_ref(op)).pop().unwrap_or(Ok(()))
    }

    /// Does the operations in order and gives the result of each. One that fails does not stop
    /// the others.
    pub fn batch(&mut self, ops: &[Op]) -> Vec<Result<()>> {
        let mut results = Vec::with_capacity(ops.len());
        while results.len() < ops.len() {
            let rest = &ops[results.len()..];
            results.extend(self.send_some(rest));
        }
        self.retry_where_full(ops, &mut results);
        results
    }

    /// Does as many of `ops` as fit one send, at least one.
    fn send_some(&mut self, ops: &[Op]) -> Vec<Result<()>> {
        let (mut buffer, mut owners) = (Vec::new(), HashMap::new());
        let mut taken = 0;
        let mut requests = 0;
        for op in ops {
            let before = buffer.len();
            let count = op.encode(&mut buffer, self.seq);
            if taken > 0 && (buffer.len() > SEND_BYTES || requests + count > SEND_REQUESTS) {
                buffer.truncate(before);
                break;
            }
            owners.extend((0..count).map(|i| (self.seq.wrapping_add(i), taken)));
            self.seq = self.seq.wrapping_add(count);
            (taken, requests) = (taken + 1, requests + count);
        }
        let mut refusals = vec![None; taken];
        if let Err(error) =
            self.socket.send(&buffer).and_then(|()| self.acknowledge(&mut owners, &mut refusals))
        {
            // What has no answer may or may not have been done: the caller has to read and see.
            for op in owners.into_values() {
                refusals[op] = Some((error.raw_os_error().unwrap_or(libc::EIO), String::new()));
            }
        }
        ops.iter()
            .zip(refusals)
            .map(|(op, refusal)| refusal.map_or(Ok(()), |r| Err(refused(op, r))))
            .collect()
    }

    /// Reads until every request in `owners` (number → operation) is answered.
    fn acknowledge(
        &mut self,
        owners: &mut HashMap<u32, usize>,
        refusals: &mut [Option<Refusal>],
    ) -> io::Result<()> {
        while !owners.is_empty() {
            for message in messages(self.socket.receive(true)?) {
                if i32::from(message.kind) != libc::NLMSG_ERROR {
                    continue;
                }
                if let Some(op) = owners.remove(&message.seq) {
                    // The first refusal of an operation's requests is the one to report.
                    refusals[op] = refusals[op].take().or_else(|| refusal(&message));
                }
            }
        }
        Ok(())
    }

    /// The neighbour table is one for all namespaces. When it is full the kernel frees what has
    /// aged, so the entry may fit a moment later.
    fn retry_where_full(&mut self, ops: &[Op], results: &mut [Result<()>]) {
        let mut pause = ROOM_PAUSE;
        for _ in 1..ROOM_ATTEMPTS {
            let full = |i: &usize| {
                ops[*i].waits_for_room() && matches!(&results[*i], Err(e) if e.errno() == Some(libc::ENOBUFS))
            };
            let waiting: Vec<usize> = (0..ops.len()).filter(full).collect();
            if waiting.is_empty() {
                return;
            }
            thread::sleep(pause);
            pause *= 2;
            for i in waiting {
                results[i] = self.send_some(&ops[i..=i]).pop().unwrap_or(Ok(()));
            }
        }
    }

    /// All interfaces.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        self.dump("links", libc::RTM_GETLINK, &link_question(), link_codec::decode)
    }

    /// The interface of this name.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        // The kernel cuts no name, it refuses the request; no interface has such a name.
        if name.is_empty() || name.len() >= libc::IFNAMSIZ {
            return Ok(None);
        }
        let mut question = link_question();
        question.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.find_link(&question, name)
    }

    /// The interface of this index.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>> {
        let mut question = link_question();
        question.header.index = index;
        self.find_link(&question, &index.to_string())
    }

    fn find_link(&mut self, question: &LinkMessage, named: &str) -> Result<Option<Link>> {
        match self.ask("read link", named, libc::RTM_GETLINK, question, link_codec::decode) {
            Err(error) if error.not_found() => Ok(None),
            found => found.map(Some),
        }
    }

    /// All addresses, IPv4 and IPv6.
    pub fn addresses(&mut self) -> Result<Vec<Address>> {
        self.dump("addresses", libc::RTM_GETADDR, &AddressMessage::default(), addr::decode)
    }

    /// All routes of all tables, IPv4 and IPv6.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let mut routes = self.routes_of(AddressFamily::Inet)?;
        routes.extend(self.routes_of(AddressFamily::Inet6)?);
        Ok(routes)
    }

    fn routes_of(&mut self, family: AddressFamily) -> Result<Vec<Route>> {
        let mut question = RouteMessage::default();
        question.header.address_family = family;
        let wanted = u8::from(family);
        // A kernel without IPv6 answers the question for it with what it has.
        let decode = |payload: &[u8]| route::decode(payload).filter(|_| payload.first() == Some(&wanted));
        self.dump("routes", libc::RTM_GETROUTE, &question, decode)
    }

    /// All neighbours, IPv4 and IPv6.
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>> {
        self.dump("neighbours", libc::RTM_GETNEIGH, &NeighbourMessage::default(), neigh::decode)
    }

    /// All forwarding entries.
    pub fn fdb(&mut self) -> Result<Vec<FdbEntry>> {
        let mut question = NeighbourMessage::default();
        question.header.family = AddressFamily::Bridge;
        self.dump("forwarding entries", libc::RTM_GETNEIGH, &question, neigh::decode_fdb)
    }

    /// The route the kernel would take to `dst`, from the local address `from` or, with `iif`,
    /// for a packet received there. Its destination is `dst` alone.
    pub fn route_get(&mut self, dst: IpAddr, from: Option<IpAddr>, iif: Option<u32>) -> Result<Route> {
        let question = route::encode_lookup(dst, from, iif);
        self.ask("find the route to", &dst.to_string(), libc::RTM_GETROUTE, &question, route::decode)
    }

    /// One request with one answer.
    fn ask<T>(
        &mut self,
        op: &'static str,
        object: &str,
        kind: u16,
        question: &impl Emitable,
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<T> {
        let seq = self.request(kind, 0, question).map_err(|e| Error::sys(op, object, e))?;
        loop {
            let datagram = self.socket.receive(true).map_err(|e| Error::sys(op, object, e))?;
            for message in messages(datagram).filter(|m| m.seq == seq) {
                if i32::from(message.kind) == libc::NLMSG_ERROR {
                    let (errno, said) = refusal(&message).unwrap_or((libc::EIO, String::new()));
                    return Err(kernel_error(op, object.to_owned(), errno, said));
                }
                return decode(message.payload)
                    .ok_or(Error::Malformed { op, detail: "an object without its header or key" });
            }
        }
    }

    /// Reads a whole table as it was at one moment.
    fn dump<T>(
        &mut self,
        object: &'static str,
        kind: u16,
        question: &impl Emitable,
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(all) = self.dump_once(object, kind, question, &decode)? {
                return Ok(all);
            }
        }
        Err(Error::Inconsistent { object, attempts: DUMP_ATTEMPTS })
    }

    /// None if the table changed or messages were lost meanwhile.
    fn dump_once<T>(
        &mut self,
        object: &'static str,
        kind: u16,
        question: &impl Emitable,
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        let seq = self
            .request(kind, libc::NLM_F_DUMP as u16, question)
            .map_err(|e| Error::sys("read", object, e))?;
        let (mut all, mut consistent) = (Vec::new(), true);
        loop {
            let datagram = match self.socket.receive(true) {
                // The dump goes on behind the loss, and has to be read to its end.
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                    consistent = false;
                    continue;
                }
                received => received.map_err(|e| Error::sys("read", object, e))?,
            };
            for message in messages(datagram).filter(|m| m.seq == seq) {
                consistent &= message.flags & libc::NLM_F_DUMP_INTR as u16 == 0;
                match i32::from(message.kind) {
                    libc::NLMSG_DONE | libc::NLMSG_ERROR => {
                        return match end_of_dump(&message) {
                            Some((libc::EINTR | libc::EBUSY, _)) => Ok(None),
                            Some((errno, said)) => Err(kernel_error("read", object.to_owned(), errno, said)),
                            None => Ok(consistent.then_some(all)),
                        };
                    }
                    _ => all.extend(decode(message.payload)),
                }
            }
        }
    }

    fn request(&mut self, kind: u16, flags: u16, question: &impl Emitable) -> io::Result<u32> {
        let seq = self.seq;
        self.seq = seq.wrapping_add(1);
        let mut buffer = Vec::new();
        append(&mut buffer, kind, flags | libc::NLM_F_REQUEST as u16, seq, question);
        self.socket.send(&buffer)?;
        Ok(seq)
    }
}

/// Traffic counters, a third of a link's message, are not asked for.
fn link_question() -> LinkMessage {
    let mut question = LinkMessage::default();
    question.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    question
}

fn refused(op: &Op, (errno, said): Refusal) -> Error {
    let (verb, object) = op.describe();
    kernel_error(verb, object, errno, said)
}

fn kernel_error(op: &'static str, object: String, errno: i32, message: String) -> Error {
    Error::Sys { op, object, message, source: io::Error::from_raw_os_error(errno) }
}

/// What an NLMSG_ERROR refuses; none if it acknowledges.
fn refusal(message: &Message<'_>) -> Option<Refusal> {
    let errno = i32_at(message.payload, 0).unwrap_or(-libc::EIO).checked_neg()?;
    if errno == 0 {
        return None;
    }
    // Behind the error number comes the request's header, and its body too unless capped.
    let request = match message.flags & libc::NLM_F_CAPPED as u16 {
        0 => u32_at(message.payload, 4).map_or(usize::MAX, |len| len as usize),
        _ => 16,
    };
    Some((errno, extended(message, request.saturating_add(4))))
}

/// The error at the end of a dump, where there is one.
fn end_of_dump(message: &Message<'_>) -> Option<Refusal> {
    if i32::from(message.kind) == libc::NLMSG_ERROR {
        return refusal(message);
    }
    let code = i32_at(message.payload, 0).filter(|code| *code < 0)?;
    Some((code.checked_neg()?, extended(message, 4)))
}

/// The text of an extended acknowledgement, whose attributes start at `at`.
fn extended(message: &Message<'_>, at: usize) -> String {
    const ATTR_MSG: u16 = 1;
    if message.flags & libc::NLM_F_ACK_TLVS as u16 == 0 {
        return String::new();
    }
    let all = message.payload.get(at..).unwrap_or_default();
    attributes(all).find(|(kind, _)| *kind == ATTR_MSG).map(|(_, value)| text(value)).unwrap_or_default()
}
