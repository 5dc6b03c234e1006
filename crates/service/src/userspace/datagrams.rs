//! UDP of one thread: a connected socket for each client, so that the kernel says which answer is
//! whose and that an endpoint is not there.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, recvfrom, send, sendto,
    socket_with,
};

use super::flows::{FlowId, Flows};
use super::limits::count;
use super::shared::{Listener, Refusal, Shared};
use super::token::Token;

/// Datagrams taken from one socket before others have their turn.
const BATCH: usize = 64;

/// The flows of one thread, by listener and client.
#[derive(Debug)]
pub(super) struct Datagrams {
    poll: Arc<OwnedFd>,
    flows: Flows<(u64, SocketAddr), Flow>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Flow {
    listener: Arc<Listener>,
    client: SocketAddr,
    endpoint: SocketAddr,
    socket: OwnedFd,
    shared: Arc<Shared>,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.shared.held.flows.give(1);
    }
}

impl Datagrams {
    pub(super) fn new(poll: Arc<OwnedFd>, shared: Arc<Shared>) -> Datagrams {
        Datagrams { poll, flows: Flows::new(shared.udp_idle), shared }
    }

    /// Forwards what clients sent.
    pub(super) fn forward(&mut self, listener: &Arc<Listener>, buffer: &mut [u8]) {
        for _ in 0..BATCH {
            let Ok((len, _, Some(from))) = recvfrom(&listener.socket, &mut *buffer, RecvFlags::DONTWAIT)
            else {
                return;
            };
            let Ok(client) = SocketAddr::try_from(from) else { continue };
            let key = (listener.id, client);
            // Each at its own time: which flow is idle for longest is asked within one batch too.
            let now = Instant::now();
            let id = match self.flows.find(&key) {
                Some(id) => id,
                None => match self.open(listener, client, now) {
                    Some(id) => id,
                    None => continue,
                },
            };
            let Some((_, flow)) = self.flows.touch(id, now) else { continue };
            if let Err(Errno::CONNREFUSED | Errno::HOSTUNREACH | Errno::NETUNREACH) =
                send(&flow.socket, &buffer[..len], SendFlags::DONTWAIT)
            {
                self.refused(id);
            }
        }
    }

    /// Forwards what an endpoint answered.
    pub(super) fn answer(&mut self, id: FlowId, now: Instant, buffer: &mut [u8]) {
        for _ in 0..BATCH {
            let Some((_, flow)) = self.flows.touch(id, now) else { return };
            match recv(&flow.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                // A client that does not take it has lost it, as with any datagram.
                Ok((len, _)) => {
                    let _ = sendto(&flow.listener.socket, &buffer[..len], SendFlags::DONTWAIT, &flow.client);
                }
                Err(Errno::AGAIN | Errno::INTR) => return,
                Err(_) => return self.refused(id),
            }
        }
    }

    /// Ends flows whose listener is gone or whose endpoint is none any more.
    pub(super) fn sweep(&mut self) {
        let shared = self.shared.clone();
        self.flows.retain(|(listener, client), flow| {
            shared.listener(*listener).is_some_and(|l| l.frontend.keeps(client.ip(), flow.endpoint))
        });
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.flows.next_due()
    }

    pub(super) fn expire(&mut self, now: Instant) {
        self.flows.expire(now);
    }

    fn open(&mut self, listener: &Arc<Listener>, client: SocketAddr, now: Instant) -> Option<FlowId> {
        let counts = &self.shared.counts;
        let attempt = match listener.frontend.begin(client.ip(), now) {
            Ok(attempt) => attempt,
            Err(refusal) => {
                count(if refusal == Refusal::Source { &counts.source } else { &counts.no_endpoint });
                return None;
            }
        };
        let room = || self.shared.held.flows.take(1, self.shared.limits.flows);
        if !room() {
            count(&counts.flows_full);
            // Whoever asked once and has his answer holds his flow for a while: that one goes for a new one.
            drop(self.flows.end_oldest()?);
            if !room() {
                return None;
            }
        }
        let endpoint = attempt.endpoint();
        let id = self.flows.next_id();
        let Ok(socket) = open(endpoint).and_then(|socket| {
            epoll::add(
                &self.poll,
                &socket,
                EventData::new_u64(Token::flow(id.slot, id.serial)),
                EventFlags::IN,
            )?;
            Ok(socket)
        }) else {
            self.shared.held.flows.give(1);
            count(&counts.flows_refused);
            return None;
        };
        count(&counts.flows_made);
        listener.frontend.settle(client.ip(), endpoint, now);
        let flow = Flow { listener: listener.clone(), client, endpoint, socket, shared: self.shared.clone() };
        Some(self.flows.add((listener.id, client), flow, now))
    }

    /// The endpoint is not there: the client's next datagram goes to another.
    fn refused(&mut self, id: FlowId) {
        if let Some(((_, client), flow)) = self.flows.remove(id) {
            let address: IpAddr = client.ip();
            flow.listener.frontend.forget(address, flow.endpoint);
            count(&self.shared.counts.flows_refused);
        }
    }
}

fn open(to: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    connect(&socket, &to)?;
    Ok(socket)
}
