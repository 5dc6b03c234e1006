use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::elements::{element_at, first_element};
use super::monitor;
use super::ruleset::Family;
use super::socket::Socket;
use super::transaction::{Step, Transaction};
use super::wire::{self, Message, Messages};
use crate::{Error, Netns, Result};

const ATTEMPTS: u32 = 10;
/// Bytes of a part of a dump behind which many more are to be expected.
const LONG: usize = 12 * 1024;
/// Bytes of a transaction from which on it is worth while that no monitor listens.
const LARGE: usize = 128 * 1024;

/// A connection to nftables, kept open: closing one waits for the kernel to destroy what was
/// deleted through it, and that takes longer than the change.
#[derive(Debug)]
pub struct Nft {
    socket: Socket,
    seq: u32,
    /// Those with a dump that was not read to its end.
    abandoned: Vec<Socket>,
    /// Whether all that was changed through it was adding; none where nothing was.
    only_added: Option<bool>,
}

impl Nft {
    /// Opens one in the calling thread's network namespace.
    pub fn open() -> Result<Nft> {
        let socket = Socket::open().map_err(|e| Error::sys("open", "an nftables socket", e))?;
        Ok(Nft { socket, seq: 0, abandoned: Vec::new(), only_added: None })
    }

    /// Opens one in another network namespace.
    pub fn open_in(netns: &Netns) -> Result<Nft> {
        netns.run(Nft::open)?
    }

    /// Closes it without waiting for the kernel to destroy what was deleted, where that can be
    /// had. Where only additions were made there is nothing of it to wait for, and a later close would come
    /// upon what the next one deletes, and hold it up.
    pub fn close_later(self) {
        if self.only_added == Some(true) {
            return;
        }
        self.abandoned.into_iter().chain([self.socket]).for_each(|socket| crate::late::close(socket.into()));
    }

    /// The netlink port by which [`super::NftEvent`] tells own changes from others'.
    pub fn port(&self) -> u32 {
        self.socket.port()
    }

    /// Makes all changes of the transaction, or none. What the kernel says for the moment only
    /// (EBUSY, EINTR, EAGAIN, ENOBUFS) is tried again, a bounded number of times.
    pub fn apply(&mut self, transaction: &Transaction) -> Result<()> {
        if transaction.is_empty() {
            return Ok(());
        }
        let large = transaction.steps.iter().map(|step| step.body.len()).sum::<usize>() > LARGE;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let applied = match large {
                true => monitor::unheard(self, |nft| nft.apply_once(transaction)),
                false => self.apply_once(transaction),
            };
            match applied {
                Err(e) if attempt < ATTEMPTS && is_passing(&e) => {
                    std::thread::sleep(Duration::from_millis(1 << attempt.min(6)));
                }
                result => return result,
            }
        }
    }

    fn apply_once(&mut self, transaction: &Transaction) -> Result<()> {
        let first = self.sequence(transaction.steps.len() as u32 + 2);
        let last = first.wrapping_add(transaction.steps.len() as u32);
        let batch = transaction.encode(first);
        let whole = || format!("{} and {} more", first_object(transaction), transaction.steps.len() - 1);
        self.only_added = Some(transaction.only_adds() && self.only_added != Some(false));
        self.drain();
        self.socket.reserve(batch.len());
        self.socket.send(&batch).map_err(|errno| {
            let large = errno.raw_os_error() == Some(libc::EMSGSIZE);
            let message = if large { "a transaction is one message: raise net.core.wmem_max" } else { "" };
            Error::Sys { op: "change nft", object: whole(), message: message.into(), errno }
        })?;
        // The kernel has done all of it when send returns; its answers wait to be read.
        let mut done = false;
        let mut failure = None;
        let mut failures = 0;
        loop {
            let datagram = match self.socket.receive(false) {
                Ok(datagram) => datagram,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => {
                    failure.get_or_insert_with(|| Error::sys("change nft", whole(), e));
                    failures += 1;
                    // The kernel tells of lost answers once; what is told for ever is a socket beyond use.
                    if failures == ATTEMPTS {
                        break;
                    }
                    continue;
                }
            };
            for message in Messages(&datagram).filter(|m| m.kind == wire::NLMSG_ERROR) {
                if message.errno() != 0 {
                    failure.get_or_insert_with(|| describe(transaction, first, &message));
                }
                done |= message.seq == last;
            }
        }
        match failure {
            Some(failure) => Err(failure),
            None if done => Ok(()),
            None => Err(Error::Malformed { op: "change nft", detail: "no acknowledgement" }),
        }
    }

    /// Sends one request and collects the answers of its kind. A dump that was disturbed is
    /// EINTR; an object that is not there is an error like any other.
    pub(crate) fn request(
        &mut self,
        kind: u16,
        flags: u16,
        family: Family,
        body: &[u8],
        what: &str,
    ) -> Result<Vec<(u8, Vec<u8>)>> {
        let mut found = Vec::new();
        let keep = |family: u8, data: &[u8]| {
            found.push((family, data.to_vec()));
            true
        };
        self.request_each(kind, flags, family, body, what, keep).map(|()| found)
    }

    /// The same with each answer's family and attributes given to `visit`, until that says no. A
    /// long dump is then left for another socket, opened in the calling thread's namespace.
    pub(crate) fn request_each(
        &mut self,
        kind: u16,
        flags: u16,
        family: Family,
        body: &[u8],
        what: &str,
        mut visit: impl FnMut(u8, &[u8]) -> bool,
    ) -> Result<()> {
        let failed = |e: io::Error| Error::sys("read nft", what, e);
        let seq = self.sequence(1);
        let mut out = Vec::new();
        wire::message(&mut out, kind, flags, seq, family.number(), 0, body);
        self.drain();
        self.socket.send(&out).map_err(failed)?;
        let dump = flags & wire::F_DUMP == wire::F_DUMP;
        let (mut any, mut disturbed, mut wanted) = (false, false, true);
        loop {
            let datagram = self.socket.receive(true).map_err(failed)?;
            for message in Messages(&datagram).filter(|m| m.seq == seq) {
                disturbed |= message.flags & wire::F_DUMP_INTR != 0;
                match message.kind {
                    wire::NLMSG_DONE | wire::NLMSG_ERROR => match message.errno() {
                        0 if disturbed => return Err(failed(io::Error::from_raw_os_error(libc::EINTR))),
                        0 => return Ok(()),
                        errno => return Err(failed(io::Error::from_raw_os_error(errno))),
                    },
                    _ => {
                        any = true;
                        wanted = wanted && visit(message.family(), message.attributes().0);
                    }
                }
            }
            if !dump && any {
                return Ok(());
            }
            if !wanted && datagram.len() > LONG {
                let fresh = Socket::open().map_err(failed)?;
                self.abandoned.push(std::mem::replace(&mut self.socket, fresh));
                return Ok(());
            }
        }
    }

    /// The network namespace that it is in, by the kernel's number for it.
    pub(super) fn namespace(&self) -> Option<u64> {
        self.socket.namespace()
    }

    fn sequence(&mut self, count: u32) -> u32 {
        let first = self.seq.wrapping_add(1);
        self.seq = self.seq.wrapping_add(count);
        first
    }

    /// Throws away late answers to a request that was given up.
    fn drain(&self) {
        while self.socket.receive(false).is_ok() {}
    }
}

impl AsFd for Nft {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

pub(super) fn is_passing(error: &Error) -> bool {
    matches!(error.errno(), Some(libc::EBUSY | libc::EINTR | libc::EAGAIN | libc::ENOBUFS))
}

fn first_object(transaction: &Transaction) -> String {
    transaction.steps.first().map(|s| s.object.clone()).unwrap_or_default()
}

fn describe(transaction: &Transaction, first: u32, message: &Message<'_>) -> Error {
    let index = message.seq.wrapping_sub(first).wrapping_sub(1) as usize;
    let (op, object) = match transaction.steps.get(index) {
        Some(step) => (step.op, step.object.clone() + &element(step, message)),
        None => ("change nft", first_object(transaction)),
    };
    let text = message.error_text().unwrap_or_default();
    Error::Sys { op, object, message: text, errno: io::Error::from_raw_os_error(message.errno()) }
}

/// Which of a step's elements is at fault, or else its first.
fn element(step: &Step, message: &Message<'_>) -> String {
    let offset = message.error_offset().and_then(|at| at.checked_sub(wire::BEFORE_ATTRIBUTES));
    let at_fault = offset.and_then(|at| element_at(&step.body, at, &step.key));
    match at_fault {
        _ if step.key.is_empty() => String::new(),
        Some(element) => format!(" element {element}"),
        None => {
            first_element(&step.body, &step.key).map_or(String::new(), |e| format!(" element {e} or another"))
        }
    }
}
