//! The thread.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use rustix::time::{timerfd_create, timerfd_settime};
use weft_kernel::{HopReceiver, schedule};

use super::super::{Arrival, PORT, Sessions, Status};
use super::links::{Links, News};
use super::senders::Senders;
use super::told::Told;
use super::{Error, Order};

/// Packets taken at once, and so many more for each session.
const PACKETS: usize = 64;
const PACKETS_OF_SESSION: usize = 8;
/// Who is sent more than that lets others work, before the next: an ordinary thread would be held up, and this one goes
/// before those.
const PAUSE: Duration = Duration::from_millis(1);
/// Longer than any packet that is read.
const BUFFER: usize = 64;
/// Events taken at once.
const EVENTS: usize = 8;

pub(super) struct Worker {
    wake: Arc<OwnedFd>,
    orders: Receiver<Order>,
    told: Arc<Told>,
    start: Instant,
    poll: OwnedFd,
    timer: OwnedFd,
    receivers: Vec<HopReceiver>,
    links: Links,
    sessions: Sessions,
    senders: Senders,
    realtime: bool,
    ends: bool,
}

impl Worker {
    pub(super) fn new(wake: Arc<OwnedFd>, orders: Receiver<Order>, told: Arc<Told>) -> Result<Worker, Error> {
        let seed = |number: u8| RandomState::new().hash_one(number);
        let failed = |error: Errno| Error::new("watch sockets", io::Error::from(error));
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).map_err(failed)?;
        let links = Links::open().map_err(|error| Error::new("watch interfaces", error))?;
        let receiver = |v6| HopReceiver::open(PORT, v6).map_err(|error| Error::new("take packets", error));
        let mut receivers = vec![receiver(false)?];
        // A machine without IPv6 has no sessions of it.
        receivers.extend(receiver(true));
        let data = EventData::new_u64(0);
        for receiver in &receivers {
            epoll::add(&poll, receiver, data, EventFlags::IN).map_err(failed)?;
        }
        epoll::add(&poll, &*wake, data, EventFlags::IN).map_err(failed)?;
        epoll::add(&poll, &timer, data, EventFlags::IN).map_err(failed)?;
        epoll::add(&poll, &links, data, EventFlags::IN).map_err(failed)?;
        Ok(Worker {
            wake,
            orders,
            told,
            start: Instant::now(),
            poll,
            timer,
            receivers,
            links,
            sessions: Sessions::new(seed(0)),
            senders: Senders::new(seed(1)),
            realtime: false,
            ends: false,
        })
    }

    /// Until it is told to end.
    pub(super) fn run(mut self) {
        self.realtime = schedule::go_first().is_ok();
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        while !self.ends {
            self.set_timer();
            events.clear();
            // Interrupted: nothing has come.
            let _ = epoll::wait(&self.poll, spare_capacity(&mut events), None);
            self.turn();
        }
    }

    fn turn(&mut self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.timer, &mut count);
        let _ = rustix::io::read(&*self.wake, &mut count);
        // What has come by now is in time, though it is read late.
        let now = self.start.elapsed();
        let news = self.links.news();
        let flooded = self.receive(now);
        for news in news {
            match news {
                News::Down(name) => self.sessions.handle_link_down(&name, now),
                News::Other(name) => self.senders.forget_interface(&name),
            }
        }
        self.sessions.handle_timeout(now);
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Set(wanted) => self.sessions.set(&wanted, now),
                Order::Status(reply) => {
                    let _ = reply.send(Status { realtime: self.realtime, ..self.sessions.status(now) });
                }
                Order::End => {
                    self.sessions.set(&Default::default(), now);
                    self.ends = true;
                }
            }
        }
        self.send();
        if flooded {
            std::thread::sleep(PAUSE);
        }
    }

    /// Takes packets; says whether there are more than may be taken at once.
    fn receive(&mut self, now: Duration) -> bool {
        let most = PACKETS + PACKETS_OF_SESSION * self.sessions.len();
        let mut buffer = [0; BUFFER];
        let mut flooded = false;
        for receiver in &self.receivers {
            flooded |= (0..most).all(|_| {
                let hop = match receiver.receive(&mut buffer) {
                    Ok(hop) => hop,
                    // An error of a packet is that packet's alone.
                    Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
                };
                let interface = self.links.name(hop.interface);
                let arrival = Arrival { from: hop.from.ip(), to: hop.to, interface, hops: hop.hops };
                let bytes = &buffer[..hop.len.min(BUFFER)];
                self.sessions.handle_packet(bytes, &arrival, now);
                true
            });
        }
        flooded
    }

    fn send(&mut self) {
        while let Some(out) = self.sessions.poll_transmit() {
            self.senders.send(&out, &self.sessions);
        }
        self.senders.keep(&self.sessions);
        while let Some((key, change)) = self.sessions.poll() {
            self.told.put(key, change);
        }
    }

    fn set_timer(&mut self) {
        let now = self.start.elapsed();
        // Zero would stop the timer.
        let wait = |at: Duration| at.saturating_sub(now).max(Duration::from_nanos(1));
        let value = self.sessions.wakes().map(wait).and_then(|wait| Timespec::try_from(wait).ok());
        let timer = Itimerspec { it_interval: Timespec::default(), it_value: value.unwrap_or_default() };
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &timer);
    }
}
