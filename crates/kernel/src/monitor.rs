//! Changes of kernel state as they happen.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::{Address, FdbEntry, Link, Neighbour, Netns, Result, Route};

/// What changed. `new` is false where the object was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An interface was made, changed or removed.
    Link {
        /// Made or changed.
        new: bool,
        /// As it is now, or was.
        link: Link,
    },
    /// An address.
    Address {
        /// Added or changed.
        new: bool,
        /// The address.
        address: Address,
    },
    /// A route.
    Route {
        /// Added or replaced.
        new: bool,
        /// The route.
        route: Route,
    },
    /// A neighbour.
    Neighbour {
        /// Added or changed.
        new: bool,
        /// The neighbour.
        neighbour: Neighbour,
    },
    /// A forwarding entry.
    Fdb {
        /// Added or changed.
        new: bool,
        /// The entry.
        entry: FdbEntry,
    },
    /// A network sysctl changed.
    Netconf(Netconf),
    /// Events were lost: whoever keeps a view of the kernel must read it anew.
    Overrun,
}

/// Per-interface configuration (the sysctls the kernel announces); absent is unchanged or not
/// said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Netconf {
    /// Of `net.ipv6.conf` rather than `net.ipv4.conf`.
    pub ipv6: bool,
    /// The interface; -1 is `all`, -2 is `default`.
    pub ifindex: i32,
    /// `forwarding`.
    pub forwarding: Option<bool>,
    /// `rp_filter`: 0 off, 1 strict, 2 loose.
    pub rp_filter: Option<i32>,
    /// `proxy_arp` or `proxy_ndp`.
    pub proxy_neighbour: Option<bool>,
}

/// A socket that receives changes of links, addresses, routes, neighbours, forwarding entries
/// and network sysctls of one namespace, from when it was opened.
#[derive(Debug)]
pub struct Monitor {
    socket: OwnedFd,
}

impl Monitor {
    /// Listens in the calling thread's namespace.
    pub fn open() -> Result<Monitor> {
        todo!()
    }

    /// Listens in `ns`.
    pub fn open_in(ns: &Netns) -> Result<Monitor> {
        let _guard = ns.guard()?;
        Monitor::open()
    }

    /// Waits for the next event.
    #[expect(clippy::should_implement_trait, reason = "an iterator that never ends and fails is no help")]
    pub fn next(&mut self) -> Result<Event> {
        todo!()
    }

    /// The next event, or none if nothing is there yet. Never blocks: for `tokio`'s `AsyncFd`
    /// (the descriptor is non-blocking).
    pub fn try_next(&mut self) -> Result<Option<Event>> {
        todo!()
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
