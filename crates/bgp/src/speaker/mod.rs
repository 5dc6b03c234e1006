//! The speaker: sessions over sockets, one thread for all of them.
//!
//! [`Speaker::start`] takes what is wanted as one value ([`Settings`]), [`Speaker::set`] another one, and only what
//! differs is touched. [`Speaker::changes`] tells where packets are to go.

mod changes;
mod closing;
pub mod control;
mod hold;
mod link;
mod listeners;
mod orders;
mod peer;
mod report;
mod set;
mod settings;
mod status;
mod token;
mod traffic;
mod watch;
mod worker;

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use ipnet::IpNet;

pub use changes::{Batch, Changes};
pub use settings::{Neighbour, PORT, Password, Remote, Settings, Ttl, Watched};
pub use status::{Counts, Families, Filter, NeighbourStatus, Route, Status, Terms};

use orders::{Order, Orders};
use worker::Worker;

/// What the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}")]
pub struct Error {
    what: String,
    source: io::Error,
}

impl Error {
    fn new(what: impl Into<String>, source: impl Into<io::Error>) -> Error {
        Error { what: what.into(), source: source.into() }
    }

    fn over() -> Error {
        Error::new("reach the speaker", io::Error::other("its thread has ended"))
    }
}

/// How a speaker ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Neighbours are told so, with a text for people (RFC 9003), and forget our routes.
    Cease(String),
    /// Neighbours are told nothing and keep our routes, where both sides do graceful restart.
    Restart,
}

/// Asks a speaker. One that has ended says nothing of anything.
#[derive(Clone, Debug)]
pub struct Asker {
    orders: Arc<Orders>,
}

impl Asker {
    /// The speaker and its neighbours as they are.
    pub fn status(&self) -> Status {
        self.orders.ask(Order::Status).unwrap_or_default()
    }

    /// Paths to prefixes, by prefix.
    pub fn routes(&self, filter: Filter) -> Vec<Route> {
        self.orders.ask(|reply| Order::Routes(filter, reply)).unwrap_or_default()
    }

    /// The paths to one prefix, and why one of them is the best.
    pub fn explain(&self, prefix: IpNet) -> Vec<Route> {
        self.orders.ask(|reply| Order::Explain(prefix, reply)).unwrap_or_default()
    }

    /// Ends a neighbour's session; it comes up again, also where too many prefixes had ended it. `text` is for the
    /// people at its end (RFC 9003). False where there is no such neighbour.
    pub fn reset(&self, neighbour: &str, text: &str) -> bool {
        self.orders
            .ask(|reply| Order::Reset(neighbour.to_owned(), text.to_owned(), reply))
            .unwrap_or_default()
    }
}

/// A speaker at work. When it is dropped it ends as by [`End::Cease`].
#[derive(Debug)]
pub struct Speaker {
    asker: Asker,
    thread: Option<JoinHandle<()>>,
}

impl Speaker {
    /// Starts it, in the network namespace of the calling thread.
    pub fn start(settings: Settings) -> Result<Speaker, Error> {
        let orders = Orders::new().map(Arc::new).map_err(|error| Error::new("watch sockets", error))?;
        let worker = Worker::new(orders.clone(), settings)?;
        let thread = std::thread::Builder::new().name("weft-bgp".to_owned());
        let thread = thread.spawn(move || worker.run()).map_err(|e| Error::new("start a thread", e))?;
        Ok(Speaker { asker: Asker { orders }, thread: Some(thread) })
    }

    /// What is wanted from now on. A neighbour whose settings are the same keeps its session; one whose policies alone
    /// are others too, and is asked for its routes again.
    pub fn set(&self, settings: Settings) -> Result<(), Error> {
        self.asker
            .orders
            .ask(|reply| Order::Set(settings.into(), reply))
            .unwrap_or_else(|| Err(Error::over()))
    }

    /// Where packets to which prefix are to go: all of it first, and then what changes. There is one consumer; a second
    /// one takes the first one's place.
    pub fn changes(&self) -> Changes {
        self.asker.orders.ask(Order::Changes).unwrap_or_default()
    }

    /// For whoever asks it questions, also after it has ended.
    pub fn asker(&self) -> Asker {
        self.asker.clone()
    }

    /// Ends it.
    pub fn stop(mut self, end: End) {
        self.end(end);
    }

    fn end(&mut self, end: End) {
        if let Some(thread) = self.thread.take() {
            self.asker.orders.tell(Order::End(end));
            let _ = thread.join();
        }
    }
}

impl std::ops::Deref for Speaker {
    type Target = Asker;

    fn deref(&self) -> &Asker {
        &self.asker
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.end(End::Cease(String::new()));
    }
}
