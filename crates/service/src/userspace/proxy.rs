//! The running proxy: its threads, and what its owner says to it.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with, sockopt};

use super::Error;
use super::connection::prepare;
use super::limits::{Counters, Limits};
use super::shared::{Frontend, Listener, Shared, Target};
use super::token::Token;
use super::worker::{Orders, Worker};

/// Clients that may wait to be taken; the machine's `net.core.somaxconn` may be less.
const BACKLOG: i32 = 4096;

/// A transport that is forwarded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Transport {
    /// Connections.
    Tcp,
    /// Flows of datagrams.
    Udp,
}

/// What a frontend that is listened for is known by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ListenerId(u64);

/// A proxy at work. When it is dropped, it closes all connections.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    orders: Arc<[Arc<Orders>]>,
    threads: Vec<JoinHandle<()>>,
    last: u64,
}

impl Proxy {
    /// Starts the threads, in the calling thread's namespace, and raises the process's limit of open
    /// files to what `limits` need. A flow of UDP ends when nothing came through for `udp_idle`.
    pub fn start(limits: Limits, udp_idle: Duration) -> Result<Proxy, Error> {
        let mut limits = limits;
        limits.fit();
        let threads = limits.threads.max(1);
        let shared = Arc::new(Shared {
            limits,
            udp_idle,
            resets: false.into(),
            held: Default::default(),
            counts: Default::default(),
            listeners: RwLock::default(),
            stop: false.into(),
        });
        let orders = (0..threads).map(|_| orders().map(Arc::new)).collect::<std::io::Result<_>>();
        let orders = orders.map_err(|error| Error::new("watch sockets", error))?;
        let mut proxy = Proxy { shared, orders, threads: vec![], last: 0 };
        for number in 0..threads {
            let worker = Worker::new(number, proxy.orders.clone(), proxy.shared.clone());
            let thread = std::thread::Builder::new().name(format!("weft-proxy-{number}"));
            let thread = thread.spawn(move || worker.run());
            proxy.threads.push(thread.map_err(|error| Error::new("start a thread", error))?);
        }
        Ok(proxy)
    }

    /// Whether clients of TCP are reset when their endpoint is none any more.
    pub fn reset_removed(&mut self, resets: bool) {
        self.shared.resets.store(resets, Ordering::Release);
    }

    /// What it may hold: what it was started with, or less where open files are fewer.
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// Listens at `address`, at a port of the kernel's choice where its port is 0, and says where.
    /// The address needs not be the machine's yet.
    pub fn listen(
        &mut self,
        transport: Transport,
        address: SocketAddr,
        target: &Target,
    ) -> Result<(ListenerId, SocketAddr), Error> {
        let failed = |error: std::io::Error| Error::new(format!("listen at {address}"), error);
        if self.listeners() >= self.shared.limits.listeners {
            return Err(failed(std::io::Error::other("as many are listened for as may be")));
        }
        let (socket, bound) = open(transport, address).map_err(|e| failed(e.into()))?;
        self.last += 1;
        let id = self.last;
        let frontend = Arc::new(Frontend::new(target, self.shared.limits.clients));
        let listener = Arc::new(Listener { id, socket, tcp: transport == Transport::Tcp, frontend });
        self.listeners_mut(|all| all.insert(id, listener.clone()));
        for orders in self.watchers(&listener) {
            let flags = if listener.tcp { EventFlags::IN | EventFlags::EXCLUSIVE } else { EventFlags::IN };
            let token = EventData::new_u64(Token::listener(id));
            if let Err(error) = epoll::add(&orders.poll, &listener.socket, token, flags) {
                self.close(ListenerId(id));
                return Err(failed(error.into()));
            }
        }
        Ok((ListenerId(id), bound))
    }

    /// Changes where new clients go. Connections stay where they are, unless [they are to be
    /// reset](Self::reset_removed); flows of UDP end whose endpoint is none any more.
    pub fn set_target(&mut self, id: ListenerId, target: &Target) {
        if let Some(listener) = self.shared.listener(id.0) {
            listener.frontend.set(target, self.shared.limits.clients);
            if !listener.tcp || self.shared.resets.load(Ordering::Acquire) {
                self.sweep(&listener);
            }
        }
    }

    /// Listens no longer. Connections that came by it stay, with the same exception.
    pub fn close(&mut self, id: ListenerId) {
        let Some(listener) = self.listeners_mut(|all| all.remove(&id.0)) else { return };
        for orders in self.watchers(&listener) {
            // One that was not added yet is not there.
            let _ = epoll::delete(&orders.poll, &listener.socket);
        }
        let resets = self.shared.resets.load(Ordering::Acquire);
        if resets {
            listener.frontend.set(&Target::default(), self.shared.limits.clients);
        }
        if !listener.tcp || resets {
            self.sweep(&listener);
        }
    }

    /// Whether all threads are at work.
    pub fn alive(&self) -> bool {
        !self.threads.iter().any(JoinHandle::is_finished)
    }

    /// What it did so far.
    pub fn counters(&self) -> Counters {
        self.shared.counts.read(&self.shared.held)
    }

    fn listeners(&self) -> usize {
        self.shared.listeners.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn listeners_mut<R>(
        &self,
        change: impl FnOnce(&mut std::collections::HashMap<u64, Arc<Listener>>) -> R,
    ) -> R {
        change(&mut self.shared.listeners.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Connections are taken by whoever has time; the datagrams of one frontend by one thread.
    fn watchers(&self, listener: &Listener) -> Vec<Arc<Orders>> {
        if listener.tcp {
            return self.orders.to_vec();
        }
        let one = listener.id as usize % self.orders.len();
        vec![self.orders[one].clone()]
    }

    fn sweep(&self, listener: &Listener) {
        for orders in self.watchers(listener) {
            orders.sweep.store(true, Ordering::Release);
            orders.wake();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for orders in self.orders.iter() {
            orders.wake();
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn orders() -> std::io::Result<Orders> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    epoll::add(&poll, &wake, EventData::new_u64(Token::waker()), EventFlags::IN)?;
    Ok(Orders {
        poll: Arc::new(poll),
        wake,
        sweep: AtomicBool::new(false),
        load: Default::default(),
        clients: Default::default(),
    })
}

fn open(transport: Transport, address: SocketAddr) -> rustix::io::Result<(OwnedFd, SocketAddr)> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = if transport == Transport::Tcp { SocketType::STREAM } else { SocketType::DGRAM };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if address.is_ipv4() {
        sockopt::set_ip_freebind(&socket, true)?;
    } else {
        sockopt::set_ipv6_v6only(&socket, true)?;
        sockopt::set_ipv6_freebind(&socket, true)?;
    }
    if transport == Transport::Tcp {
        sockopt::set_socket_reuseaddr(&socket, true)?;
        prepare(&socket)?;
    }
    bind(&socket, &address)?;
    if transport == Transport::Tcp {
        listen(&socket, BACKLOG)?;
    }
    let bound = SocketAddr::try_from(getsockname(&socket)?).unwrap_or(address);
    Ok((socket, bound))
}
