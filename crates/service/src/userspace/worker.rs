//! One thread: waits for sockets and moves what came.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};

use super::balance::Attempt;
use super::connection::{Connections, refuse};
use super::datagrams::Datagrams;
use super::flows::FlowId;
use super::limits::count;
use super::pipe::Pipes;
use super::shared::{Frontend, Listener, Refusal, Shared};
use super::token::Token;
use super::way::Tools;

/// What is copied at once, in bytes; no datagram is larger.
const BUFFER: usize = 64 << 10;
/// Events taken at once.
const EVENTS: usize = 256;
/// Connections taken from one listener before others have their turn.
const ACCEPTS: usize = 4;
/// How many connections more than another a thread may have.
const UNEVEN: usize = 2;

/// What the owner says to a thread.
#[derive(Debug)]
pub(super) struct Orders {
    pub poll: Arc<OwnedFd>,
    pub wake: OwnedFd,
    /// Flows are to be compared with the frontends.
    pub sweep: AtomicBool,
    /// Connections that the thread has, and clients that another thread took for it.
    pub load: AtomicUsize,
    pub clients: Mutex<Vec<Client>>,
}

/// A client that was taken and knows where it goes.
#[derive(Debug)]
pub(super) struct Client {
    socket: OwnedFd,
    address: IpAddr,
    frontend: Arc<Frontend>,
    attempt: Attempt,
}

impl Orders {
    /// Has the thread look at them.
    pub(super) fn wake(&self) {
        // An eventfd only refuses when it is readable already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

pub(super) struct Worker {
    orders: Arc<Orders>,
    /// Those of all threads.
    all: Arc<[Arc<Orders>]>,
    shared: Arc<Shared>,
    connections: Connections,
    datagrams: Datagrams,
    tools: Tools,
    /// Held to be closed when no descriptor is left, so that a client can be taken and refused.
    spare: Option<OwnedFd>,
}

impl Worker {
    /// The thread number `number` of `all`.
    pub(super) fn new(number: usize, all: Arc<[Arc<Orders>]>, shared: Arc<Shared>) -> Worker {
        let orders = all[number].clone();
        let tools = Tools { buffer: vec![0; BUFFER].into(), pipes: Pipes::default(), shared: shared.clone() };
        Worker {
            connections: Connections::new(orders.clone()),
            datagrams: Datagrams::new(orders.poll.clone(), shared.clone()),
            orders,
            all,
            shared,
            tools,
            spare: spare(),
        }
    }

    /// Until the proxy is stopped.
    pub(super) fn run(mut self) {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        let mut now = Instant::now();
        while !self.shared.stop.load(Ordering::Acquire) {
            events.clear();
            let timeout = self.timeout(now);
            // Interrupted: nothing has come.
            let _ = epoll::wait(&self.orders.poll, spare_capacity(&mut events), timeout.as_ref());
            now = Instant::now();
            for event in &events {
                self.handle(event, now);
            }
            self.connections.go_on(&mut self.tools);
            self.connections.expire(now, &mut self.tools);
            self.datagrams.expire(now);
        }
        self.connections.end_all(&mut self.tools);
    }

    fn timeout(&self, now: Instant) -> Option<Timespec> {
        if self.connections.busy() {
            return Some(Timespec::default());
        }
        let due = [self.connections.next_due(), self.datagrams.next_due()].into_iter().flatten().min()?;
        // Rounded up: the kernel's milliseconds would otherwise be waited for in circles.
        let wait = due.saturating_duration_since(now) + Duration::from_millis(1);
        Timespec::try_from(wait).ok()
    }

    fn handle(&mut self, event: &Event, now: Instant) {
        let (token, flags) = (event.data.u64(), event.flags);
        match Token::read(token) {
            Token::Waker => {
                let mut count = [0; 8];
                let _ = rustix::io::read(&self.orders.wake, &mut count);
                if self.orders.sweep.swap(false, Ordering::AcqRel) {
                    self.datagrams.sweep();
                    if self.shared.resets.load(Ordering::Acquire) {
                        self.connections.sweep(&mut self.tools);
                    }
                }
                let clients = std::mem::take(&mut *lock(&self.orders.clients));
                self.orders.load.fetch_sub(clients.len(), Ordering::Relaxed);
                for client in clients {
                    self.take(client);
                }
            }
            Token::Listener(id) => {
                let Some(listener) = self.shared.listener(id) else { return };
                if listener.tcp {
                    self.accept(&listener, now);
                } else {
                    self.datagrams.forward(&listener, &mut self.tools.buffer);
                }
            }
            Token::Side { .. } => self.connections.event(token, flags, now, &mut self.tools),
            Token::Flow { slot, serial } => {
                self.datagrams.answer(FlowId { slot, serial }, now, &mut self.tools.buffer);
            }
        }
    }

    fn accept(&mut self, listener: &Listener, now: Instant) {
        for _ in 0..ACCEPTS {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let (socket, address) = match acceptfrom_with(&listener.socket, flags) {
                Ok((socket, Some(address))) => (socket, address),
                Err(Errno::MFILE | Errno::NFILE) => return self.refuse_one(listener),
                // A client that is gone already is none.
                Ok(_) | Err(Errno::CONNABORTED | Errno::INTR) => continue,
                Err(_) => return,
            };
            let Ok(address) = std::net::SocketAddr::try_from(address) else { continue };
            let counts = &self.shared.counts;
            count(&counts.accepted);
            let attempt = match listener.frontend.begin(address.ip(), now) {
                Ok(attempt) => attempt,
                Err(refusal) => {
                    count(if refusal == Refusal::Source { &counts.source } else { &counts.no_endpoint });
                    refuse(socket);
                    continue;
                }
            };
            if !self.shared.held.connections.take(1, self.shared.limits.connections) {
                count(&counts.full);
                refuse(socket);
                continue;
            }
            let frontend = listener.frontend.clone();
            self.place(Client { socket, address: address.ip(), frontend, attempt });
        }
    }

    /// Whoever wakes first would have all connections of a moment: they go to where there are fewest,
    /// unless that is hardly a difference.
    fn place(&mut self, client: Client) {
        let load = |orders: &Orders| orders.load.load(Ordering::Relaxed);
        let least = self.all.iter().min_by_key(|orders| load(orders)).unwrap_or(&self.orders);
        let fewest = load(least);
        if load(&self.orders) <= fewest + fewest / 8 + UNEVEN {
            return self.take(client);
        }
        // Counted at once, so that a burst is spread.
        least.load.fetch_add(1, Ordering::Relaxed);
        lock(&least.clients).push(client);
        least.wake();
    }

    fn take(&mut self, client: Client) {
        let Client { socket, address, frontend, attempt } = client;
        self.connections.add(socket, address, frontend, attempt, &mut self.tools);
    }

    /// Takes a client with the last descriptor, only to tell it that there is no room: left in its
    /// queue it would have the thread turn in circles.
    fn refuse_one(&mut self, listener: &Listener) {
        count(&self.shared.counts.full);
        self.spare = None;
        if let Ok((socket, _)) =
            acceptfrom_with(&listener.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
        {
            refuse(socket);
        }
        self.spare = spare();
    }
}

fn lock(clients: &Mutex<Vec<Client>>) -> MutexGuard<'_, Vec<Client>> {
    clients.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spare() -> Option<OwnedFd> {
    rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
}
