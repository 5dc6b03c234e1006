//! The daemon's loop: callers, attachments, and what the former wait for from the latter.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use serde::Deserialize;
use serde_json::{Map, Value};
use weft_kernel::signal::Termination;

use crate::ipam::dhcp::daemon::attachment::{Attachment, Key, Origin, Outcome};
use crate::ipam::dhcp::daemon::clock;
use crate::ipam::dhcp::daemon::connection::{Call, Connection};
use crate::ipam::dhcp::daemon::flags::Flags;
use crate::ipam::dhcp::daemon::place::{Place, PlaceError};
use crate::ipam::dhcp::daemon::saved::{Folder, Saved};
use crate::ipam::dhcp::gob::Value as Gob;
use crate::ipam::dhcp::options::{self, Keys};
use crate::ipam::dhcp::rpc::{ALLOCATE, Arguments, COLLECT, EMPTY, RELEASE, RESULT, result_value, structure};
use crate::protocol::config::ValidAttachment;

/// Callers at a time; more have to wait.
const MOST_CALLERS: usize = 512;
/// How long a DEL waits until the IPv6 server says that it knows.
const FAREWELL: Duration = Duration::from_secs(1);

/// What the daemon reads of a configuration.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    name: String,
    ipam: Map<String, Value>,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid: Option<Vec<ValidAttachment>>,
}

/// A call that is not answered yet.
#[derive(Debug)]
struct Waiting {
    connection: u64,
    call: Call,
    key: Key,
    until: Duration,
}

#[derive(Debug)]
pub(crate) struct Server {
    flags: Flags,
    folder: Folder,
    listener: UnixListener,
    connections: BTreeMap<u64, Connection>,
    accepted: u64,
    attachments: BTreeMap<Key, Attachment>,
    waiting: Vec<Waiting>,
}

impl Server {
    /// A daemon that goes on with the leases in `folder`.
    pub(crate) fn new(flags: Flags, folder: Folder, listener: UnixListener) -> io::Result<Server> {
        let mut attachments = BTreeMap::new();
        let now = clock::now();
        for saved in folder.load()? {
            let key = saved.key();
            let id = options::identity(&key.container_id, &key.network, &key.ifname);
            let profile = match Keys::of(&saved.ipam).and_then(|keys| keys.profile(&id, &saved.args)) {
                Ok(profile) => profile,
                Err(error) => {
                    eprintln!("{key}: {error}: this lease is not gone on with");
                    continue;
                }
            };
            let leases = saved.leases(profile.duid.1, now);
            let origin = Origin { args: saved.args, ipam: saved.ipam };
            let mut attachment = Attachment::new(key.clone(), origin, saved.place, profile, &flags, seed());
            attachment.resume(leases, now);
            attachments.insert(key, attachment);
        }
        let (connections, waiting) = (BTreeMap::new(), Vec::new());
        Ok(Server { flags, folder, listener, connections, accepted: 0, attachments, waiting })
    }

    /// Serves until the process is to end.
    pub(crate) fn run(&mut self, termination: &Termination) -> io::Result<()> {
        loop {
            // What is answered may end an attachment, which is then let go of before waiting.
            while self.drive() {}
            self.connections.retain(|_, connection| connection.send().is_ok());
            if self.poll(termination)? {
                return Ok(());
            }
        }
    }

    /// Waits until something can be done, and takes in what has come. Says whether it is the end.
    fn poll(&mut self, termination: &Termination) -> io::Result<bool> {
        let now = clock::now();
        let timers = self.attachments.values().filter_map(Attachment::timeout);
        let next = timers.chain(self.waiting.iter().map(|waiting| waiting.until)).min();
        // Rounded up, lest it be a little too early again and again.
        let timeout = next.map(|at| at.saturating_sub(now) + Duration::from_millis(1));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());

        let mut fds = vec![PollFd::new(termination, PollFlags::IN)];
        let accepts = self.connections.len() < MOST_CALLERS;
        fds.push(PollFd::new(&self.listener, if accepts { PollFlags::IN } else { PollFlags::empty() }));
        for connection in self.connections.values() {
            let output = if connection.has_output() { PollFlags::OUT } else { PollFlags::empty() };
            fds.push(PollFd::from_borrowed_fd(connection.as_fd(), PollFlags::IN | output));
        }
        for socket in self.attachments.values().flat_map(Attachment::sockets) {
            fds.push(PollFd::from_borrowed_fd(socket, PollFlags::IN));
        }
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok(false),
            other => other?,
        };
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut ready = ready.into_iter();
        if ready.next().unwrap_or(false) {
            return Ok(true);
        }
        let incoming = ready.next().unwrap_or(false);
        let spoke: Vec<u64> = self
            .connections
            .keys()
            .copied()
            .zip(ready.by_ref())
            .filter(|(_, r)| *r)
            .map(|(id, _)| id)
            .collect();
        let now = clock::now();
        for attachment in self.attachments.values_mut() {
            let count = attachment.sockets().count();
            // Each of its sockets is looked at, lest one be left out.
            if ready.by_ref().take(count).fold(false, |any, one| any | one) {
                attachment.receive(now);
            }
        }
        spoke.into_iter().for_each(|id| self.listen_to(id));
        if incoming && let Ok((stream, _)) = self.listener.accept() {
            self.accepted += 1;
            if let Ok(connection) = Connection::new(stream) {
                self.connections.insert(self.accepted, connection);
            }
        }
        Ok(false)
    }

    fn listen_to(&mut self, id: u64) {
        loop {
            let Some(connection) = self.connections.get_mut(&id) else { return };
            let call = connection.receive().and_then(|()| connection.next_call());
            match call {
                Ok(Some(call)) => self.take(id, call),
                Ok(None) => return,
                Err(_) => {
                    // Who asked is gone; the attachment follows when nobody else waits for it.
                    self.connections.remove(&id);
                    self.waiting.retain(|waiting| waiting.connection != id);
                    return;
                }
            }
        }
    }

    fn take(&mut self, connection: u64, call: Call) {
        let now = clock::now();
        let done = match call.method.as_str() {
            ALLOCATE => self.allocate(&call.arguments, now).map(|key| Some((key, self.flags.resend_timeout))),
            RELEASE => self.release(&call.arguments, now).map(|key| key.map(|key| (key, 2 * FAREWELL))),
            COLLECT => self.collect(&call.arguments, now).map(|()| None),
            other => Err(format!("rpc: can't find method {other}")),
        };
        match done {
            Ok(Some((key, patience))) => {
                self.waiting.push(Waiting { connection, call, key, until: now + patience });
            }
            Ok(None) => self.answer(connection, &call, Ok((EMPTY, structure([])))),
            Err(error) => self.answer(connection, &call, Err(error)),
        }
    }

    fn answer(&mut self, connection: u64, call: &Call, answer: Result<(i64, Gob), String>) {
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.answer(&call.method, call.number, answer);
        }
    }

    /// Begins to look for the leases, unless they are there or looked for.
    fn allocate(&mut self, arguments: &Arguments, now: Duration) -> Result<Key, String> {
        let config = config(arguments)?;
        let key = key(arguments, &config);
        let id = options::identity(&key.container_id, &key.network, &key.ifname);
        let profile = Keys::of(&config.ipam)
            .and_then(|keys| keys.profile(&id, &arguments.args))
            .map_err(|error| error.to_string())?;
        let path = self.flags.on_node(&arguments.netns);
        let place = Place::find(&path, &arguments.ifname, profile.v6.is_some())?;
        let same = |other: &&Attachment| other.leaving.is_none() && other.place == place;
        if self.attachments.get(&key).filter(same).is_none() {
            let origin = Origin { args: arguments.args.clone(), ipam: config.ipam };
            let mut fresh = Attachment::new(key.clone(), origin, place, profile, &self.flags, seed());
            fresh.start(now);
            self.attachments.insert(key.clone(), fresh);
        }
        Ok(key)
    }

    /// Begins to give the leases back; none when there are none.
    fn release(&mut self, arguments: &Arguments, now: Duration) -> Result<Option<Key>, String> {
        let key = key(arguments, &config(arguments)?);
        let Some(attachment) = self.attachments.get_mut(&key) else { return Ok(None) };
        attachment.leave(now, now + FAREWELL);
        Ok(Some(key))
    }

    /// Begins to give back what belongs to no valid attachment of the network.
    fn collect(&mut self, arguments: &Arguments, now: Duration) -> Result<(), String> {
        let config = config(arguments)?;
        let valid = config.valid.ok_or("cni.dev/valid-attachments is missing: nothing was given back")?;
        let stays =
            |key: &Key| valid.iter().any(|v| v.container_id == key.container_id && v.ifname == key.ifname);
        for (key, attachment) in &mut self.attachments {
            if key.network == config.name && !stays(key) {
                attachment.leave(now, now + FAREWELL);
            }
        }
        Ok(())
    }

    /// Lets time pass for all attachments, and answers who waited for what has happened. Says
    /// whether somebody was answered.
    fn drive(&mut self) -> bool {
        let now = clock::now();
        let keys: Vec<Key> = self.attachments.keys().cloned().collect();
        for key in keys {
            let Some(attachment) = self.attachments.get_mut(&key) else { continue };
            let driven = attachment.drive(now);
            let wanted = attachment.acknowledged
                || self.waiting.iter().any(|waiting| waiting.call.method == ALLOCATE && waiting.key == key);
            if matches!(driven, Err(PlaceError::Gone)) || attachment.has_left(now) {
                self.forget(&key);
            } else if attachment.leaving.is_some() {
            } else if !wanted {
                // The ADD's process is gone, or it was answered with an error.
                attachment.leave(now, now + FAREWELL);
                attachment.drive(now).ok();
            } else if attachment.acknowledged && attachment.dirty {
                match self.folder.save(&Saved::of(attachment, now)) {
                    Ok(()) => attachment.dirty = false,
                    Err(error) => eprintln!("{key}: the lease cannot be written: {error}"),
                }
            }
        }
        let waited = self.waiting.len();
        for waiting in std::mem::take(&mut self.waiting) {
            if let Some(waiting) = self.settle(waiting, now) {
                self.waiting.push(waiting);
            }
        }
        self.waiting.len() < waited
    }

    fn forget(&mut self, key: &Key) {
        eprintln!("{key}: over");
        self.attachments.remove(key);
        if let Err(error) = self.folder.remove(key) {
            eprintln!("{key}: its file cannot be removed: {error}");
        }
    }

    /// Answers the call if it can be; else it waits on.
    fn settle(&mut self, waiting: Waiting, now: Duration) -> Option<Waiting> {
        let attachment = self.attachments.get_mut(&waiting.key);
        let answer = if waiting.call.method == RELEASE {
            match attachment {
                Some(attachment) if attachment.leaving.is_some() && now < waiting.until => {
                    return Some(waiting);
                }
                _ => Ok((EMPTY, structure([]))),
            }
        } else {
            match attachment.filter(|attachment| attachment.leaving.is_none()) {
                None => Err(format!("{}: the interface is gone, or a DEL came during the ADD", waiting.key)),
                Some(attachment) => match attachment.outcome() {
                    Outcome::Leased(result) => {
                        // What is acknowledged is on disk.
                        match self.folder.save(&Saved::of(attachment, now)) {
                            Ok(()) => {
                                attachment.acknowledge(now);
                                attachment.dirty = false;
                                Ok((RESULT, result_value(&result)))
                            }
                            Err(error) => {
                                Err(format!("{}: the lease cannot be written: {error}", waiting.key))
                            }
                        }
                    }
                    Outcome::Waiting if now < waiting.until => return Some(waiting),
                    Outcome::Waiting => {
                        let seconds = self.flags.resend_timeout.as_secs_f64();
                        Err(format!(
                            "no lease for {} within {seconds} s: {}",
                            waiting.key,
                            attachment.fault()
                        ))
                    }
                },
            }
        };
        self.answer(waiting.connection, &waiting.call, answer);
        None
    }
}

fn config(arguments: &Arguments) -> Result<Config, String> {
    serde_json::from_slice(&arguments.config)
        .map_err(|error| format!("cannot decode the configuration: {error}"))
}

fn key(arguments: &Arguments, config: &Config) -> Key {
    Key {
        container_id: arguments.container_id.clone(),
        network: config.name.clone(),
        ifname: arguments.ifname.clone(),
    }
}

/// Different for each client: the standard library's hasher begins with random keys.
fn seed() -> u64 {
    RandomState::new().hash_one(clock::now())
}
