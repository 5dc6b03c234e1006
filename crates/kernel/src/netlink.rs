//! The routing socket: links, addresses, routes, neighbours and forwarding entries.

use std::net::IpAddr;

use crate::{Address, FdbEntry, Link, LinkSet, Neighbour, Netns, NewLink, Result, Route};

/// One change of kernel state.
#[derive(Clone, Debug)]
pub enum Op {
    /// Make an interface; fails if the name is taken.
    LinkAdd(NewLink),
    /// Change an interface.
    LinkSet(LinkSet),
    /// Remove the interface with this index.
    LinkDel(u32),
    /// Add an address; fails if it is there.
    AddrAdd(Address),
    /// Remove an address.
    AddrDel(Address),
    /// Add a route, or replace the one to the same destination with the same table and metric.
    RouteReplace(Route),
    /// Add a route; fails if one to the same destination, table and metric is there.
    RouteAdd(Route),
    /// Remove a route.
    RouteDel(Route),
    /// Add or replace a neighbour.
    NeighReplace(Neighbour),
    /// Remove a neighbour.
    NeighDel(Neighbour),
    /// Add or replace a forwarding entry.
    FdbReplace(FdbEntry),
    /// Remove a forwarding entry.
    FdbDel(FdbEntry),
}

/// A blocking routing socket. It stays in the namespace it was opened in.
#[derive(Debug)]
pub struct Netlink {}

impl Netlink {
    /// A socket in the calling thread's namespace.
    pub fn open() -> Result<Netlink> {
        todo!()
    }

    /// A socket in `ns`.
    pub fn open_in(ns: &Netns) -> Result<Netlink> {
        let _guard = ns.guard()?;
        Netlink::open()
    }

    /// Does one operation.
    pub fn apply(&mut self, _op: &Op) -> Result<()> {
        todo!()
    }

    /// Does the operations in order and gives the result of each. One that fails does not stop
    /// the others.
    pub fn batch(&mut self, _ops: &[Op]) -> Vec<Result<()>> {
        todo!()
    }

    /// All interfaces.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        todo!()
    }

    /// The interface of this name.
    pub fn link(&mut self, _name: &str) -> Result<Option<Link>> {
        todo!()
    }

    /// The interface of this index.
    pub fn link_by_index(&mut self, _index: u32) -> Result<Option<Link>> {
        todo!()
    }

    /// All addresses, IPv4 and IPv6.
    pub fn addresses(&mut self) -> Result<Vec<Address>> {
        todo!()
    }

    /// All routes of all tables, IPv4 and IPv6.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        todo!()
    }

    /// All neighbours, IPv4 and IPv6.
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>> {
        todo!()
    }

    /// All forwarding entries.
    pub fn fdb(&mut self) -> Result<Vec<FdbEntry>> {
        todo!()
    }

    /// The route the kernel would take to `dst`, from the local address `from` or, with `iif`,
    /// for a packet received there.
    pub fn route_get(&mut self, _dst: IpAddr, _from: Option<IpAddr>, _iif: Option<u32>) -> Result<Route> {
        todo!()
    }
}
