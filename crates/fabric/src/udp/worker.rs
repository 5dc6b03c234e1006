//! One thread of a tunnel: a queue of the device and a socket of the underlay, both directions.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, epoll, eventfd};
use weft_kernel::{Arrived, Error, RawSender, TunQueue, UdpSocket, path_mtu};
use weft_model::{mark, network::Tunnel};

use super::counters::{Counters, Published, Reason};
use super::egress::Egress;
use super::ingress::{Ingress, SLOTS, STRIDE};
use super::table::Table;
use super::tunnel::Shared;
use crate::UdpSpec;

/// ICMP errors of one thread in a second (RFC 1812, 4.3.2.8).
const ERRORS_PER_SECOND: u32 = 200;
/// Messages of a batch when the one before had more bytes than LARGE_BATCH.
const FEW_SLOTS: usize = 4;
const LARGE_BATCH: u32 = 128 << 10;
/// How long a learnt path MTU is believed before the kernel is asked again.
const PATH_MTU_AGE: Duration = Duration::from_secs(60);

pub(super) struct Worker {
    local: IpAddr,
    shared: Arc<Shared>,
    published: Arc<Published>,
    queue: TunQueue,
    socket: UdpSocket,
    raw: RawSender,
    /// Waits for the device, the underlay and the waker.
    sources: OwnedFd,
    table: Arc<Table>,
    version: u64,
    egress: Egress,
    ingress: Ingress,
    arrived: Vec<Arrived>,
    /// How many messages to ask for: few when they are large, so that a batch stays in the
    /// processor's cache.
    slots: usize,
    /// The second that is counted in, and the errors still allowed in it.
    second: Instant,
    errors_left: u32,
    asked: Instant,
}

/// Which of its two sources a thread should look at.
#[derive(Clone, Copy, Debug)]
struct Ready {
    device: bool,
    underlay: bool,
}

impl Worker {
    /// The worker, what wakes it, and where its counters can be read.
    pub(super) fn new(
        spec: &UdpSpec,
        shared: Arc<Shared>,
        queue: TunQueue,
        socket: UdpSocket,
    ) -> Result<(Worker, Arc<OwnedFd>, Arc<Published>), Error> {
        let (wake, sources) = sources(&queue, &socket).map_err(|e| Error::sys("watch", mark::UDP, e))?;
        let (wake, published) = (Arc::new(wake), Arc::new(Published::new()));
        let now = Instant::now();
        let worker = Worker {
            local: spec.local,
            table: shared.table(),
            version: shared.version.load(Ordering::Acquire),
            shared,
            published: published.clone(),
            egress: Egress::new(&spec.addresses, spec.mtu, Tunnel::Udp.overhead(spec.local)),
            ingress: Ingress::new(queue.udp_trains()),
            arrived: Vec::with_capacity(SLOTS),
            slots: SLOTS,
            queue,
            socket,
            raw: RawSender::open()?,
            sources,
            second: now,
            errors_left: ERRORS_PER_SECOND,
            asked: now,
        };
        Ok((worker, wake, published))
    }

    /// Until the tunnel is stopped or the device is gone.
    pub(super) fn run(mut self) {
        let mut ready = Ready { device: true, underlay: true };
        let mut events = Vec::with_capacity(4);
        while !self.shared.stop.load(Ordering::Acquire) {
            self.follow_table();
            let mut worked = false;
            if ready.device {
                match self.forward_out() {
                    Ok(more) => (ready.device, worked) = (more, true),
                    // EBADFD: the device was removed under us.
                    Err(_) => break,
                }
            }
            if ready.underlay {
                ready.underlay = self.take_in();
                worked = true;
            }
            if worked {
                self.publish();
            }
            if !ready.device && !ready.underlay {
                ready = self.wait(&mut events);
            }
        }
        self.publish();
    }

    fn publish(&self) {
        let mut counters: Counters = self.egress.counters;
        counters.add(&self.ingress.counters);
        self.published.store(&counters);
    }

    fn follow_table(&mut self) {
        let version = self.shared.version.load(Ordering::Acquire);
        if version != self.version {
            (self.version, self.table) = (version, self.shared.table());
            self.ingress.forget_peers();
            self.egress.forget_peers();
            self.egress.set_addresses(&self.table.addresses);
        }
    }

    /// Sends one batch of what the host has for peers; whether there may be more.
    fn forward_out(&mut self) -> io::Result<bool> {
        let mut more = true;
        while let Some(room) = self.egress.room() {
            match self.queue.read(room) {
                Ok(len) => self.egress.handle_frame(&self.table, len),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    more = false;
                    break;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if !self.egress.is_empty() {
            self.egress.seal(&self.table);
            self.send();
        }
        if !self.egress.replies.is_empty() {
            self.send_replies();
        }
        self.egress.clear();
        Ok(more)
    }

    fn send(&mut self) {
        let mut done = 0;
        loop {
            let (arena, pieces, trains) = self.egress.sealed();
            let Some(rest) = trains.get(done..).filter(|rest| !rest.is_empty()) else { return };
            match self.socket.send(arena, pieces, rest) {
                Ok(sent) => {
                    done += sent;
                    self.egress.counters.sent_trains += sent as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // EINVAL is what kernels before 6.14 say of a train's datagrams.
                Err(e) if matches!(e.raw_os_error(), Some(EMSGSIZE | EINVAL)) => {
                    let to = rest[0].to;
                    self.learn(to);
                    self.egress.handle_too_big(&self.table, done);
                    done += 1;
                }
                Err(_) => {
                    self.egress.counters.drop(Reason::Send);
                    done += 1;
                }
            }
        }
    }

    /// Asks the kernel what the path to a peer takes.
    fn learn(&self, to: SocketAddr) {
        let peer = self.table.sender(to).and_then(|index| self.table.peer(index));
        if let (Some(peer), Ok(mtu)) = (peer, path_mtu(self.local, to)) {
            peer.learn(Some(mtu));
        }
    }

    /// What was learnt of paths ends when the kernel forgets it.
    fn refresh_paths(&mut self, now: Instant) {
        if now.duration_since(self.asked) < PATH_MTU_AGE {
            return;
        }
        self.asked = now;
        for peer in self.table.peers().iter().filter(|peer| peer.path_mtu().is_some()) {
            peer.learn(path_mtu(self.local, peer.to).ok());
        }
    }

    fn send_replies(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            (self.second, self.errors_left) = (now, ERRORS_PER_SECOND);
        }
        for (to, packet) in self.egress.replies.iter() {
            if self.errors_left == 0 {
                break;
            }
            self.errors_left -= 1;
            // As good as lost on its way; its source will send again.
            if self.raw.send(to, packet).is_ok() {
                self.egress.counters.icmp_errors += 1;
            }
        }
        self.egress.replies.clear();
        self.refresh_paths(now);
    }

    /// Gives the host one batch of what peers sent; whether there may be more.
    fn take_in(&mut self) -> bool {
        let taken = self.socket.receive(self.ingress.buffer(), STRIDE, self.slots, &mut self.arrived);
        if taken.is_err() {
            return false;
        }
        let more = self.arrived.len() == self.slots;
        let bytes: u32 = self.arrived.iter().map(|message| message.piece.len).sum();
        self.slots = if bytes > LARGE_BATCH { FEW_SLOTS } else { SLOTS };
        for message in &self.arrived {
            self.ingress.handle_message(&self.table, message);
        }
        self.ingress.finish();
        let mut refused = 0;
        for (arena, pieces) in self.ingress.frames() {
            if self.queue.write(arena, pieces).is_err() {
                refused += 1;
            }
        }
        for _ in 0..refused {
            self.ingress.counters.drop(Reason::Device);
        }
        self.ingress.clear();
        more
    }

    fn wait(&mut self, events: &mut Vec<epoll::Event>) -> Ready {
        events.clear();
        // Interrupted: look at both.
        if epoll::wait(&self.sources, spare_capacity(events), None).is_err() {
            return Ready { device: true, underlay: true };
        }
        let has = |source| events.iter().any(|event| event.data.u64() == source);
        Ready { device: has(DEVICE), underlay: has(UNDERLAY) }
    }
}

/// Something to wake a worker with, and what waits for it and for the two sources.
fn sources(queue: &TunQueue, socket: &UdpSocket) -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let sources = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let add = |fd, name| epoll::add(&sources, fd, epoll::EventData::new_u64(name), epoll::EventFlags::IN);
    add(queue.as_fd(), DEVICE)?;
    add(socket.as_fd(), UNDERLAY)?;
    add(wake.as_fd(), WAKER)?;
    Ok((wake, sources))
}

/// Names of the sources.
const DEVICE: u64 = 0;
const UNDERLAY: u64 = 1;
const WAKER: u64 = 2;
const EINVAL: i32 = 22;
const EMSGSIZE: i32 = 90;
