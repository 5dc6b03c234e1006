//! Changes of kernel state as they happen.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::socket::Socket;
use crate::wire::{Message, attributes, i32_at, messages};
use crate::{
    Address, Error, FdbEntry, Link, Neighbour, Netns, Nexthop, Result, Route, addr, link_codec, neigh,
    nexthop, route,
};

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
    /// A next-hop object; with one that is removed go the routes that name it, without a word.
    Nexthop {
        /// Made or replaced.
        new: bool,
        /// The next hop.
        nexthop: Nexthop,
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
///
/// The kernel does not tell everything. An IPv4 route through a link that goes down, or through
/// one that loses the address its next hop needs, goes without a [`Event::Route`]: whoever owns
/// routes has to read them again after such a [`Event::Link`] or [`Event::Address`]. A bridge
/// port's settings changed by `bridge link set` come as no event at all.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    /// Events of the last datagram that were not handed out yet.
    ready: VecDeque<Event>,
}

/// Burst that fits before events are lost.
const RECEIVE_BYTES: libc::c_int = 8 * 1024 * 1024;

const GROUPS: u32 = group(libc::RTNLGRP_LINK)
    | group(libc::RTNLGRP_NEIGH)
    | group(libc::RTNLGRP_IPV4_IFADDR)
    | group(libc::RTNLGRP_IPV4_ROUTE)
    | group(libc::RTNLGRP_IPV6_IFADDR)
    | group(libc::RTNLGRP_IPV6_ROUTE)
    | group(libc::RTNLGRP_IPV4_NETCONF)
    | group(libc::RTNLGRP_IPV6_NETCONF)
    | group(nexthop::GROUP);

const fn group(number: libc::c_uint) -> u32 {
    1 << (number - 1)
}

/// Links and their addresses.
const LINKS: u32 =
    group(libc::RTNLGRP_LINK) | group(libc::RTNLGRP_IPV4_IFADDR) | group(libc::RTNLGRP_IPV6_IFADDR);

impl Monitor {
    /// Listens in the calling thread's namespace.
    pub fn open() -> Result<Monitor> {
        Monitor::to(GROUPS)
    }

    /// The same for links and addresses alone: a busy node's neighbours and routes wake nobody.
    pub fn of_links() -> Result<Monitor> {
        Monitor::to(LINKS)
    }

    fn to(groups: u32) -> Result<Monitor> {
        let socket =
            Socket::open(groups, RECEIVE_BYTES).map_err(|e| Error::sys("open", "netlink monitor", e))?;
        Ok(Monitor { socket, ready: VecDeque::new() })
    }

    /// Listens in `ns`.
    pub fn open_in(ns: &Netns) -> Result<Monitor> {
        let _guard = ns.guard()?;
        Monitor::open()
    }

    /// Waits for the next event.
    #[expect(clippy::should_implement_trait, reason = "an iterator that never ends and fails is no help")]
    pub fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(event) = self.event(true)? {
                return Ok(event);
            }
        }
    }

    /// The next event, or none if nothing is there yet. Never blocks: for `tokio`'s `AsyncFd`,
    /// call it until it gives none, then wait for the descriptor to be readable.
    pub fn try_next(&mut self) -> Result<Option<Event>> {
        self.event(false)
    }

    fn event(&mut self, wait: bool) -> Result<Option<Event>> {
        while self.ready.is_empty() {
            match self.socket.receive(wait) {
                Ok(datagram) => self.ready.extend(decode_events(datagram)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => return self.overrun().map(Some),
                Err(e) => return Err(Error::sys("receive", "netlink events", e)),
            }
        }
        Ok(self.ready.pop_front())
    }

    /// What is still queued is older than the loss, and the kernel drops events silently until
    /// the queue is empty, so the queue is emptied first: a view read after [`Event::Overrun`]
    /// together with the events after it is complete.
    fn overrun(&mut self) -> Result<Event> {
        loop {
            match self.socket.receive(false) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Event::Overrun),
                Err(e) if e.raw_os_error() != Some(libc::ENOBUFS) => {
                    return Err(Error::sys("receive", "netlink events", e));
                }
                _ => {}
            }
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The events that a datagram of the routing socket tells of. What is cut short ends the walk,
/// what is not followed or makes no sense is left out.
pub fn decode_events(datagram: &[u8]) -> impl Iterator<Item = Event> {
    messages(datagram).filter_map(|message| decode(&message))
}

/// The event a message tells of; none for what is not followed.
pub(crate) fn decode(message: &Message<'_>) -> Option<Event> {
    let payload = message.payload;
    let new = matches!(
        message.kind,
        libc::RTM_NEWLINK
            | libc::RTM_NEWADDR
            | libc::RTM_NEWROUTE
            | libc::RTM_NEWNEIGH
            | nexthop::RTM_NEWNEXTHOP
    );
    match message.kind {
        libc::RTM_NEWLINK | libc::RTM_DELLINK => {
            Some(Event::Link { new, link: link_codec::decode(payload)? })
        }
        libc::RTM_NEWADDR | libc::RTM_DELADDR => {
            Some(Event::Address { new, address: addr::decode(payload)? })
        }
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => Some(Event::Route { new, route: route::decode(payload)? }),
        nexthop::RTM_NEWNEXTHOP | nexthop::RTM_DELNEXTHOP => {
            Some(Event::Nexthop { new, nexthop: nexthop::decode(payload)? })
        }
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => match neigh::decode_fdb(payload) {
            Some(entry) => Some(Event::Fdb { new, entry }),
            None => Some(Event::Neighbour { new, neighbour: neigh::decode(payload)? }),
        },
        libc::RTM_NEWNETCONF => decode_netconf(payload).map(Event::Netconf),
        _ => None,
    }
}

// `NETCONFA_*` of linux/netconf.h, which libc does not have.
pub(crate) const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
const NETCONFA_RP_FILTER: u16 = 3;
const NETCONFA_PROXY_NEIGH: u16 = 5;

pub(crate) fn decode_netconf(payload: &[u8]) -> Option<Netconf> {
    // struct netconfmsg: the family, padded to four bytes.
    let (header, body) = payload.split_at_checked(4)?;
    let mut netconf = Netconf { ipv6: i32::from(header[0]) == libc::AF_INET6, ..Netconf::default() };
    for (kind, value) in attributes(body) {
        match kind {
            NETCONFA_IFINDEX => netconf.ifindex = i32_at(value, 0)?,
            NETCONFA_FORWARDING => netconf.forwarding = i32_at(value, 0).map(|on| on != 0),
            NETCONFA_RP_FILTER => netconf.rp_filter = i32_at(value, 0),
            NETCONFA_PROXY_NEIGH => netconf.proxy_neighbour = i32_at(value, 0).map(|on| on != 0),
            _ => {}
        }
    }
    Some(netconf)
}
