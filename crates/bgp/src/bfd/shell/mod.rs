//! The sessions at work: a thread with sockets and a timer.

mod links;
mod senders;
mod told;
mod worker;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, eventfd};

use super::{Change, Intervals, Key, Status};
use told::Told;
use worker::Worker;

/// What the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}")]
pub struct Error {
    what: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl Error {
    fn new(what: &'static str, source: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error { what, source: source.into() }
    }
}

/// What the owner says to the thread.
#[derive(Debug)]
enum Order {
    Set(BTreeMap<Key, Intervals>),
    Status(SyncSender<Status>),
    End,
}

/// BFD at work. When it is dropped, peers are told that their sessions are held down on purpose.
///
/// Its descriptor is readable while [`Bfd::try_next`] has something to tell.
#[derive(Debug)]
pub struct Bfd {
    orders: Sender<Order>,
    wake: Arc<OwnedFd>,
    told: Arc<Told>,
    thread: Option<JoinHandle<()>>,
}

impl Bfd {
    /// Starts it, in the network namespace of the calling thread. Where that is permitted, its thread goes before all
    /// of ordinary priority ([`weft_kernel::schedule::go_first`]): without that, sessions of short intervals may fall
    /// while the machine is busy.
    pub fn start() -> Result<Bfd, Error> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let event =
            || eventfd(0, flags).map_err(|error| Error::new("make an eventfd", io::Error::from(error)));
        let (wake, told) = (Arc::new(event()?), Arc::new(Told::new(event()?)));
        let (orders, received) = channel();
        let worker = Worker::new(wake.clone(), received, told.clone())?;
        let thread = std::thread::Builder::new().name("weft-bfd".to_owned());
        let thread =
            thread.spawn(move || worker.run()).map_err(|error| Error::new("start a thread", error))?;
        Ok(Bfd { orders, wake, told, thread: Some(thread) })
    }

    /// Has these sessions and no others, as [`super::Sessions::set`].
    pub fn set(&self, wanted: BTreeMap<Key, Intervals>) {
        self.tell(Order::Set(wanted));
    }

    /// What has become of a session; nothing if nothing is new. Who is slow misses that a session came up for a while,
    /// and never that it fell.
    pub fn try_next(&self) -> Option<(Key, Change)> {
        self.told.take()
    }

    /// The sessions as they are. Nothing, where the thread has ended.
    pub fn status(&self) -> Status {
        let (reply, answer) = sync_channel(1);
        self.tell(Order::Status(reply));
        answer.recv().unwrap_or_default()
    }

    fn tell(&self, order: Order) {
        let _ = self.orders.send(order);
        // An eventfd only refuses when it is readable already.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }
}

impl AsFd for Bfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.told.as_fd()
    }
}

impl Drop for Bfd {
    fn drop(&mut self) {
        self.tell(Order::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
