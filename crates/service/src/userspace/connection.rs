//! TCP connections of one thread.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

use super::balance::{Attempt, Failure};
use super::limits::count;
use super::shared::Frontend;
use super::token::{MOST_SLOTS, Token};
use super::way::{Side, Tools, Turn, Way};
use super::worker::Orders;

/// After how long without traffic a peer is asked whether it is still there.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(15);

/// A client's connection and the one to its endpoint.
#[derive(Debug)]
struct Connection {
    client: Side,
    /// While connecting, the socket of the attempt.
    endpoint: Option<Side>,
    /// From the client to the endpoint, and back.
    out: Way,
    back: Way,
    frontend: Arc<Frontend>,
    address: IpAddr,
    progress: Progress,
}

#[derive(Debug)]
enum Progress {
    Connecting(Attempt),
    Connected(SocketAddr),
}

impl Connection {
    fn is_connecting(&self) -> bool {
        matches!(self.progress, Progress::Connecting(_))
    }
}

/// The connections, by slot.
#[derive(Debug)]
pub(super) struct Connections {
    orders: Arc<Orders>,
    slots: Vec<Option<Box<Connection>>>,
    free: Vec<u32>,
    serial: u32,
    /// When an attempt has taken too long, by the token of its socket.
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    /// Slots with more to do at once.
    again: Vec<u32>,
}

/// How a connection ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Quiet,
    Reset,
}

impl Connections {
    pub(super) fn new(orders: Arc<Orders>) -> Connections {
        Connections { orders, slots: vec![], free: vec![], serial: 0, due: BinaryHeap::new(), again: vec![] }
    }

    /// Takes a client that the gauge has counted already and that goes where `attempt` says.
    pub(super) fn add(
        &mut self,
        socket: OwnedFd,
        address: IpAddr,
        frontend: Arc<Frontend>,
        attempt: Attempt,
        tools: &mut Tools,
    ) {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < MOST_SLOTS => {
                self.slots.push(None);
                (self.slots.len() - 1) as u32
            }
            None => {
                refuse(&socket);
                return tools.shared.held.connections.give(1);
            }
        };
        let token = self.token(slot, false);
        let client = side(socket, token);
        let watched = watch(&self.orders.poll, &client);
        let progress = Progress::Connecting(attempt);
        let (out, back) = (Way::default(), Way::default());
        self.slots[slot as usize] =
            Some(Box::new(Connection { client, endpoint: None, out, back, frontend, address, progress }));
        self.orders.load.fetch_add(1, Ordering::Relaxed);
        match watched {
            Ok(()) => self.dial(slot, tools),
            Err(_) => self.end(slot, End::Reset, tools),
        }
    }

    /// What epoll says of one side.
    pub(super) fn event(&mut self, token: u64, flags: EventFlags, now: Instant, tools: &mut Tools) {
        let Token::Side { slot, endpoint } = Token::read(token) else { return };
        let Some(connection) = self.slots.get_mut(slot as usize).and_then(Option::as_deref_mut) else {
            return;
        };
        let side = if endpoint { connection.endpoint.as_mut() } else { Some(&mut connection.client) };
        let Some(side) = side.filter(|side| side.token == token) else { return };
        let gone = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        side.readable |= gone || flags.intersects(EventFlags::IN | EventFlags::RDHUP);
        side.writable |= gone || flags.contains(EventFlags::OUT);
        side.thorough |= gone || flags.intersects(EventFlags::PRI | EventFlags::RDHUP);
        side.failed |= flags.contains(EventFlags::ERR);
        if connection.is_connecting() {
            match (endpoint, gone) {
                (true, true) => self.failed(slot, Failure::Refused, tools),
                (true, false) if flags.contains(EventFlags::OUT) => self.connected(slot, now, tools),
                // The client does not wait for an answer.
                (false, true) => self.end(slot, End::Reset, tools),
                _ => {}
            }
            return;
        }
        self.work(slot, tools);
    }

    /// When [`expire`](Self::expire) may have something to do.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((due, _))| *due)
    }

    /// Gives up attempts that have taken too long.
    pub(super) fn expire(&mut self, now: Instant, tools: &mut Tools) {
        while let Some(Reverse((_, token))) = self.due.peek().copied().filter(|Reverse((due, _))| *due <= now)
        {
            self.due.pop();
            let Token::Side { slot, .. } = Token::read(token) else { continue };
            let connection = self.slots.get(slot as usize).and_then(Option::as_deref);
            let waits = connection.filter(|c| c.is_connecting()).and_then(|c| c.endpoint.as_ref());
            if waits.is_some_and(|side| side.token == token) {
                self.failed(slot, Failure::Silent, tools);
            }
        }
    }

    /// Whether some have more to do at once.
    pub(super) fn busy(&self) -> bool {
        !self.again.is_empty()
    }

    /// Goes on with those.
    pub(super) fn go_on(&mut self, tools: &mut Tools) {
        for slot in std::mem::take(&mut self.again) {
            if self.slots.get(slot as usize).and_then(Option::as_deref).is_some_and(|c| !c.is_connecting()) {
                self.work(slot, tools);
            }
        }
    }

    /// Resets those whose endpoint is none any more.
    pub(super) fn sweep(&mut self, tools: &mut Tools) {
        for slot in 0..self.slots.len() as u32 {
            let left = self.slots[slot as usize].as_deref().is_some_and(|c| match c.progress {
                Progress::Connected(endpoint) => !c.frontend.keeps(c.address, endpoint),
                Progress::Connecting(_) => false,
            });
            if left {
                count(&tools.shared.counts.reset);
                self.end(slot, End::Reset, tools);
            }
        }
    }

    /// Ends all of them.
    pub(super) fn end_all(&mut self, tools: &mut Tools) {
        for slot in 0..self.slots.len() as u32 {
            self.end(slot, End::Quiet, tools);
        }
    }

    fn token(&mut self, slot: u32, endpoint: bool) -> u64 {
        self.serial = self.serial.wrapping_add(1);
        Token::side(slot, endpoint, self.serial)
    }

    /// Begins to connect to where the attempt is, or the next that does not refuse at once.
    fn dial(&mut self, slot: u32, tools: &mut Tools) {
        loop {
            let token = self.token(slot, true);
            let Some(connection) = self.slots[slot as usize].as_deref_mut() else { return };
            let Progress::Connecting(attempt) = &connection.progress else { return };
            let (to, timeout) = (attempt.endpoint(), attempt.timeout());
            // The one before, if there was one, is closed by this.
            connection.endpoint = None;
            if let Ok(socket) = open(to) {
                let new = side(socket, token);
                if watch(&self.orders.poll, &new).is_ok() {
                    connection.endpoint = Some(new);
                    self.due.push(Reverse((Instant::now() + timeout, token)));
                    return;
                }
            }
            if !self.next(slot, Failure::Refused, tools) {
                return;
            }
        }
    }

    /// Has the attempt go on to its next endpoint; without one the client is refused.
    fn next(&mut self, slot: u32, failure: Failure, tools: &mut Tools) -> bool {
        let connection = self.slots[slot as usize].as_deref_mut();
        let Some(Progress::Connecting(attempt)) = connection.map(|c| &mut c.progress) else { return false };
        let counts = &tools.shared.counts;
        count(if failure == Failure::Silent { &counts.silent } else { &counts.refused });
        let more = attempt.failed(failure);
        if !more {
            count(&counts.failed);
            self.end(slot, End::Reset, tools);
        }
        more
    }

    fn failed(&mut self, slot: u32, failure: Failure, tools: &mut Tools) {
        if self.next(slot, failure, tools) {
            self.dial(slot, tools);
        }
    }

    fn connected(&mut self, slot: u32, now: Instant, tools: &mut Tools) {
        let Some(connection) = self.slots[slot as usize].as_deref_mut() else { return };
        if let Progress::Connecting(attempt) = &connection.progress {
            let endpoint = attempt.endpoint();
            connection.frontend.settle(connection.address, endpoint, now);
            connection.progress = Progress::Connected(endpoint);
            // It may have gone meanwhile, and the sweep was before.
            let resets = tools.shared.resets.load(Ordering::Acquire);
            if resets && !connection.frontend.keeps(connection.address, endpoint) {
                return self.end(slot, End::Reset, tools);
            }
        }
        self.work(slot, tools);
    }

    /// Moves what can be moved, in both directions.
    fn work(&mut self, slot: u32, tools: &mut Tools) {
        let Some(connection) = self.slots[slot as usize].as_deref_mut() else { return };
        let Connection { client, endpoint: Some(endpoint), out, back, .. } = connection else { return };
        let mut turns = [Turn::Waits; 2];
        turns[0] = out.turn(client, endpoint, tools);
        turns[1] = back.turn(endpoint, client, tools);
        if turns[1] == Turn::Broken {
            turns[0] = out.turn(client, endpoint, tools);
        }
        let broken = client.broken || endpoint.broken;
        let failed = (client.failed || endpoint.failed) && !turns.contains(&Turn::More);
        let finished = out.finished && back.finished;
        if turns.contains(&Turn::Reset) || broken && finished || failed && !finished {
            count(&tools.shared.counts.reset);
            self.end(slot, End::Reset, tools);
        } else if finished {
            self.end(slot, End::Quiet, tools);
        } else if turns.contains(&Turn::More) {
            self.again.push(slot);
        }
    }

    fn end(&mut self, slot: u32, end: End, tools: &mut Tools) {
        let Some(mut connection) = self.slots[slot as usize].take() else { return };
        if end == End::Reset {
            refuse(&connection.client.socket);
            if let Some(endpoint) = &connection.endpoint {
                refuse(&endpoint.socket);
            }
        }
        connection.out.clear(tools);
        connection.back.clear(tools);
        tools.shared.held.connections.give(1);
        self.orders.load.fetch_sub(1, Ordering::Relaxed);
        self.free.push(slot);
    }
}

fn side(socket: OwnedFd, token: u64) -> Side {
    Side { socket, token, readable: false, writable: false, broken: false, failed: false, thorough: false }
}

/// Has epoll tell each change of a socket, once.
fn watch(poll: &OwnedFd, side: &Side) -> Result<(), Errno> {
    let all = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::PRI | EventFlags::ET;
    epoll::add(poll, &side.socket, EventData::new_u64(side.token), all)
}

/// Makes closing a socket say that something is wrong (RST).
pub(super) fn refuse(socket: impl AsFd) {
    // A socket without connection has nobody to tell.
    let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

/// A socket that is connecting to `to`.
fn open(to: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    prepare(&socket)?;
    match connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// Sends without delay, and notices when the peer is gone. What a listener has its connections have.
pub(super) fn prepare(socket: impl AsFd) -> Result<(), Errno> {
    sockopt::set_tcp_nodelay(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, KEEPALIVE)?;
    sockopt::set_socket_keepalive(&socket, true)
}
