//! The routing socket: links, addresses, routes, neighbours and forwarding entries.

use std::collections::HashMap;
use std::io;
use std::thread;
use std::time::Duration;

use netlink_packet_core::Emitable;

use crate::ack::{Refusal, kernel_error, refusal};
use crate::op::ACKED;
use crate::socket::Socket;
use crate::wire::{acknowledge_last_only, append, messages};
use crate::{Error, LinkKind, Netns, NewLink, Op, Result, link_codec};

/// One send carries at most this much, so that its acknowledgements fit the receive buffer that
/// an unprivileged user gets (an acknowledgement takes about 1 KiB of it).
const SEND_BYTES: usize = 32 * 1024;
const SEND_REQUESTS: u32 = 256;
const RECEIVE_BYTES: libc::c_int = 2 * 1024 * 1024;
/// How often, and how long at first, a full neighbour table is waited for; doubled each time.
const ROOM_ATTEMPTS: u32 = 5;
const ROOM_PAUSE: Duration = Duration::from_millis(10);

/// A blocking routing socket. It stays in the namespace it was opened in.
#[derive(Debug)]
pub struct Netlink {
    pub(crate) socket: Socket,
    /// Number of the next request.
    seq: u32,
}

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
            let last = results.len() - 1;
            if let (Ok(()), Some(link)) = (&results[last], ops[last].unfinished()) {
                results[last] = self.finish(link);
            }
        }
        self.retry_where_full(ops, &mut results);
        results
    }

    /// What the kernel does not do to a link while it makes it.
    fn finish(&mut self, link: &NewLink) -> Result<()> {
        if let Some(alias) = &link.alias {
            self.change_named(&link.name, false, Some(alias))?;
        }
        match &link.kind {
            LinkKind::Veth { peer_up: true, peer_name, peer_netns: Some(ns), .. } => {
                Netlink::open_in(ns)?.change_named(peer_name, true, None)
            }
            LinkKind::Veth { peer_up: true, peer_name, .. } => self.change_named(peer_name, true, None),
            _ => Ok(()),
        }
    }

    fn change_named(&mut self, name: &str, up: bool, alias: Option<&str>) -> Result<()> {
        let question = link_codec::encode_named(name, up, alias);
        match self.exchange(libc::RTM_NEWLINK, ACKED, &question) {
            Ok(None) => Ok(()),
            Ok(Some((errno, said))) => Err(kernel_error("change link", name.to_owned(), errno, said)),
            Err(e) => Err(Error::sys("change link", name, e)),
        }
    }

    /// One request that is acknowledged or refused.
    fn exchange(&mut self, kind: u16, flags: u16, question: &impl Emitable) -> io::Result<Option<Refusal>> {
        let seq = self.request(kind, flags, question)?;
        let (mut owners, mut refusals) = (HashMap::from([(seq, 0)]), [None]);
        self.acknowledge(&mut owners, &mut refusals, seq)?;
        let [answer] = refusals;
        Ok(answer)
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
            if op.unfinished().is_some() {
                break;
            }
        }
        let mut refusals = vec![None; taken];
        let last = self.seq.wrapping_sub(1);
        acknowledge_last_only(&mut buffer);
        let sent = self.socket.send(&buffer);
        if let Err(error) = sent.and_then(|()| self.acknowledge(&mut owners, &mut refusals, last)) {
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

    /// Reads until the request numbered `last` is answered, and with it every one in `owners`
    /// (number → operation): the kernel takes requests in their order, and says of each that it
    /// refuses.
    fn acknowledge(
        &mut self,
        owners: &mut HashMap<u32, usize>,
        refusals: &mut [Option<Refusal>],
        last: u32,
    ) -> io::Result<()> {
        while owners.contains_key(&last) {
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
        owners.clear();
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

    pub(crate) fn request(&mut self, kind: u16, flags: u16, question: &impl Emitable) -> io::Result<u32> {
        let seq = self.seq;
        self.seq = seq.wrapping_add(1);
        let mut buffer = Vec::new();
        append(&mut buffer, kind, flags | libc::NLM_F_REQUEST as u16, seq, question);
        self.socket.send(&buffer)?;
        Ok(seq)
    }
}

fn refused(op: &Op, (errno, said): Refusal) -> Error {
    let (verb, object) = op.describe();
    kernel_error(verb, object, errno, said)
}
