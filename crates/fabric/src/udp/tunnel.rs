//! A running tunnel: its threads, and what others may say to it.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use ipnet::IpNet;
use weft_kernel::{Error, TunQueue, UdpSocket, open_tun};
use weft_model::mark;

use super::counters::{Counters, Published};
use super::table::{Table, UdpPeer};
use super::worker::Worker;
use crate::UdpSpec;

/// What the sockets are asked to hold, in bytes: some tens of the largest trains.
const BUFFER: u32 = 8 << 20;

/// What the threads and the tunnel's owner share.
#[derive(Debug)]
pub(super) struct Shared {
    table: Mutex<Arc<Table>>,
    /// Grows with each new table: threads look at this number and not at the lock.
    pub version: AtomicU64,
    pub stop: std::sync::atomic::AtomicBool,
}

impl Shared {
    pub(super) fn table(&self) -> Arc<Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A tunnel at work. It ends when this is dropped; the device stays.
#[derive(Debug)]
pub struct Tunnel {
    spec: UdpSpec,
    /// The device's index.
    device: u32,
    shared: Arc<Shared>,
    published: Vec<Arc<Published>>,
    threads: Vec<JoinHandle<()>>,
    wakers: Vec<Arc<OwnedFd>>,
}

impl Tunnel {
    /// Opens the device `weft-udp0`, with `queues` queues and for each a socket and a thread, in
    /// the calling thread's namespace. The device is made where it is missing, and stays. Until [`set_peers`](Self::set_peers) nothing is carried.
    pub fn start(spec: &UdpSpec, queues: usize) -> Result<Tunnel, Error> {
        let queues = open_tun(mark::UDP, queues.max(1))?;
        let shared = Arc::new(Shared {
            table: Mutex::new(Arc::new(Table::new(&spec.pod_cidrs, &[], None))),
            version: AtomicU64::new(0),
            stop: false.into(),
        });
        let mut tunnel = Tunnel {
            spec: spec.clone(),
            device: queues.first().map_or(Ok(0), TunQueue::ifindex)?,
            shared,
            published: vec![],
            threads: vec![],
            wakers: vec![],
        };
        // All sockets before the first thread: the kernel spreads flows over those that are there.
        let local = SocketAddr::new(spec.local, spec.port);
        let sockets: Vec<UdpSocket> =
            queues.iter().map(|_| UdpSocket::bind(local, BUFFER)).collect::<Result<_, _>>()?;
        if let [first, _, ..] = &sockets[..] {
            first.spread_by_inner_flow(sockets.len() as u32)?;
        }
        for (number, (queue, socket)) in queues.into_iter().zip(sockets).enumerate() {
            let (worker, waker, published) = Worker::new(spec, tunnel.shared.clone(), queue, socket)?;
            tunnel.wakers.push(waker);
            tunnel.published.push(published);
            let name = format!("{}-{number}", mark::UDP);
            let failed = |e| Error::sys("start thread", name.clone(), e);
            let thread = std::thread::Builder::new().name(name.clone()).spawn(move || worker.run());
            tunnel.threads.push(thread.map_err(failed)?);
        }
        Ok(tunnel)
    }

    /// What it was started with.
    pub fn spec(&self) -> &UdpSpec {
        &self.spec
    }

    /// Takes `spec` as what is wanted from now on, if that is so without a new start: what this node
    /// has of pools may change, with [`set_peers`](Self::set_peers) the threads know it.
    pub fn follow(&mut self, spec: &UdpSpec) -> bool {
        let UdpSpec { port, local, mtu, .. } = &self.spec;
        let serves = (*port, *local, *mtu) == (spec.port, spec.local, spec.mtu);
        if serves {
            self.spec = spec.clone();
        }
        serves
    }

    /// Whether all threads are at work; they end when their device is removed.
    pub fn alive(&self) -> bool {
        !self.threads.iter().any(JoinHandle::is_finished)
    }

    /// The index of the device that it opened; one of this name made later is another.
    pub fn device(&self) -> u32 {
        self.device
    }

    /// Replaces all peers. Packets in hand go on; what was learnt of paths stays.
    pub fn set_peers(&self, peers: &[UdpPeer]) {
        let mut table = self.shared.table.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = Table::new(&self.spec.pod_cidrs, peers, Some(&table));
        new.addresses = self.spec.addresses.iter().map(IpNet::addr).collect();
        *table = Arc::new(new);
        self.shared.version.fetch_add(1, Ordering::Release);
    }

    /// What all threads counted so far.
    pub fn counters(&self) -> Counters {
        let mut all = Counters::default();
        for published in &self.published {
            all.add(&published.load());
        }
        all
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for waker in &self.wakers {
            // An eventfd only refuses when it is readable already.
            let _ = rustix::io::write(waker, &1u64.to_ne_bytes());
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
