//! What the owner says to the thread.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};

use ipnet::IpNet;
use rustix::event::{EventfdFlags, eventfd};

use super::{Changes, End, Error, Filter, Route, Settings, Status};

/// Where an answer goes.
pub(super) type Reply<T> = SyncSender<T>;

#[derive(Debug)]
pub(super) enum Order {
    Set(Box<Settings>, Reply<Result<(), Error>>),
    Changes(Reply<Changes>),
    Status(Reply<Status>),
    Routes(Filter, Reply<Vec<Route>>),
    Explain(IpNet, Reply<Vec<Route>>),
    Reset(String, String, Reply<bool>),
    End(End),
}

/// Orders on their way, and what wakes the thread.
#[derive(Debug)]
pub(super) struct Orders {
    pub(super) wake: OwnedFd,
    send: Sender<Order>,
    /// None once the thread has ended.
    receive: Mutex<Option<Receiver<Order>>>,
}

impl Orders {
    pub(super) fn new() -> io::Result<Orders> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (send, receive) = channel();
        Ok(Orders { wake, send, receive: Some(receive).into() })
    }

    pub(super) fn tell(&self, order: Order) {
        let _ = self.send.send(order);
        // An eventfd only refuses when it is readable already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// The thread's answer; `None` where it has ended.
    pub(super) fn ask<T>(&self, order: impl FnOnce(Reply<T>) -> Order) -> Option<T> {
        let (reply, answer) = sync_channel(1);
        self.tell(order(reply));
        answer.recv().ok()
    }

    /// All that have come.
    pub(super) fn take(&self) -> Vec<Order> {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
        let receive = self.receive.lock().unwrap_or_else(PoisonError::into_inner);
        receive.iter().flat_map(Receiver::try_iter).collect()
    }

    /// Nobody takes orders any more: who waits for an answer gets none.
    pub(super) fn end(&self) {
        *self.receive.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
