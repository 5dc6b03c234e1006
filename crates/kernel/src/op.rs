//! Changes of kernel state, their requests and their names in errors.

use netlink_packet_core::Emitable;

use crate::nexthop::{RTM_DELNEXTHOP, RTM_NEWNEXTHOP};
use crate::wire::append;
use crate::{
    Address, Class, FdbEntry, Filter, LinkKind, LinkSet, Neighbour, NewLink, Nexthop, PortVlan, Qdisc, Route,
    Rule, VfSet, addr, bridge_vlan, link_codec, neigh, nexthop, route, rule, tc, vf,
};

/// One change of kernel state.
#[derive(Clone, Debug)]
pub enum Op {
    /// Make an interface; fails if the name is taken.
    LinkAdd(NewLink),
    /// Change an interface.
    LinkSet(LinkSet),
    /// Remove the interface with this index.
    LinkDel(u32),
    /// Change a virtual function through the interface of its physical one.
    VfSet(VfSet),
    /// Let VLANs through a bridge port; those that are there get the new flags.
    PortVlanAdd(PortVlan),
    /// Let VLANs no longer through a bridge port.
    PortVlanDel(PortVlan),
    /// Add an address; fails if it is there.
    AddrAdd(Address),
    /// Remove an address.
    AddrDel(Address),
    /// Add a route, or replace the one to the same destination with the same table and metric.
    RouteReplace(Route),
    /// Add a route; fails if one to the same destination, table and metric is there.
    RouteAdd(Route),
    /// Add a route, beside others to the same destination over other next hops.
    RouteAppend(Route),
    /// Remove a route.
    RouteDel(Route),
    /// Make a next-hop object, or replace the one of its number.
    NexthopReplace(Nexthop),
    /// Remove the next-hop object of this number, and with it every route that names it.
    NexthopDel(u32),
    /// Add or replace a neighbour.
    NeighReplace(Neighbour),
    /// Remove a neighbour.
    NeighDel(Neighbour),
    /// Add or replace a forwarding entry.
    FdbReplace(FdbEntry),
    /// Remove a forwarding entry.
    FdbDel(FdbEntry),
    /// Add a routing rule; fails if the same one is there.
    RuleAdd(Rule),
    /// Remove the first rule with what this one says.
    RuleDel(Rule),
    /// Add a queueing discipline; fails if there is one at its place that the kernel did not put.
    QdiscAdd(Qdisc),
    /// Add a queueing discipline in place of what is there.
    QdiscReplace(Qdisc),
    /// Remove a queueing discipline with all classes and filters of it.
    QdiscDel(Qdisc),
    /// Add a class of a queueing discipline.
    ClassAdd(Class),
    /// Add a filter; fails if its handle is taken.
    FilterAdd(Filter),
}

// These flags fit sixteen bits.
pub(crate) const ACKED: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
const CREATE: u16 = ACKED | libc::NLM_F_CREATE as u16;
const ADD: u16 = CREATE | libc::NLM_F_EXCL as u16;
const REPLACE: u16 = CREATE | libc::NLM_F_REPLACE as u16;

impl Op {
    /// Appends the requests of this operation to `buffer`, numbered from `seq` on; says how many
    /// there are.
    pub(crate) fn encode(&self, buffer: &mut Vec<u8>, seq: u32) -> u32 {
        let mut put = |kind, flags, body: &dyn Emit| body.append_to(buffer, kind, flags, seq);
        match self {
            Op::LinkAdd(link) => put(libc::RTM_NEWLINK, ADD, &link_codec::encode_new(link)),
            Op::LinkSet(set) => return encode_link_set(set, buffer, seq),
            Op::LinkDel(index) => put(libc::RTM_DELLINK, ACKED, &link_codec::encode_index(*index)),
            Op::VfSet(set) => put(libc::RTM_SETLINK, ACKED, &vf::encode(set)),
            Op::PortVlanAdd(vlan) => put(libc::RTM_SETLINK, ACKED, &bridge_vlan::encode(vlan)),
            Op::PortVlanDel(vlan) => put(libc::RTM_DELLINK, ACKED, &bridge_vlan::encode(vlan)),
            Op::AddrAdd(address) => put(libc::RTM_NEWADDR, ADD, &addr::encode(address)),
            Op::AddrDel(address) => put(libc::RTM_DELADDR, ACKED, &addr::encode(address)),
            Op::RouteReplace(route) => put(libc::RTM_NEWROUTE, REPLACE, &route::encode(route)),
            Op::RouteAdd(route) => put(libc::RTM_NEWROUTE, ADD, &route::encode(route)),
            Op::RouteAppend(route) => put(libc::RTM_NEWROUTE, CREATE, &route::encode(route)),
            Op::RouteDel(route) => put(libc::RTM_DELROUTE, ACKED, &route::encode(route)),
            Op::NexthopReplace(nexthop) => put(RTM_NEWNEXTHOP, REPLACE, &nexthop::encode(nexthop)),
            Op::NexthopDel(id) => put(RTM_DELNEXTHOP, ACKED, &nexthop::encode_removal(*id)),
            Op::NeighReplace(neighbour) => put(libc::RTM_NEWNEIGH, REPLACE, &neigh::encode(neighbour)),
            Op::NeighDel(neighbour) => put(libc::RTM_DELNEIGH, ACKED, &neigh::encode(neighbour)),
            Op::FdbReplace(entry) => put(libc::RTM_NEWNEIGH, REPLACE, &neigh::encode_fdb(entry)),
            Op::FdbDel(entry) => put(libc::RTM_DELNEIGH, ACKED, &neigh::encode_fdb(entry)),
            Op::RuleAdd(rule) => put(libc::RTM_NEWRULE, ADD, &rule::encode(rule)),
            Op::RuleDel(rule) => put(libc::RTM_DELRULE, ACKED, &rule::encode(rule)),
            Op::QdiscAdd(qdisc) => put(libc::RTM_NEWQDISC, ADD, &tc::encode_qdisc(qdisc)),
            Op::QdiscReplace(qdisc) => put(libc::RTM_NEWQDISC, REPLACE, &tc::encode_qdisc(qdisc)),
            Op::QdiscDel(qdisc) => put(libc::RTM_DELQDISC, ACKED, &tc::encode_qdisc(qdisc)),
            Op::ClassAdd(class) => put(libc::RTM_NEWTCLASS, ADD, &tc::encode_class(class)),
            Op::FilterAdd(filter) => put(libc::RTM_NEWTFILTER, ADD, &tc::encode_filter(filter)),
        }
        1
    }

    /// Whether the kernel may refuse it for a moment because a table common to all namespaces is
    /// full until its next collection, and it may be tried again.
    pub(crate) fn waits_for_room(&self) -> bool {
        matches!(self, Op::NeighReplace(_) | Op::FdbReplace(_))
    }

    /// The link that needs more requests once it is there. They are sent only then: if the name
    /// is taken they would change somebody else's link.
    pub(crate) fn unfinished(&self) -> Option<&NewLink> {
        match self {
            Op::LinkAdd(link) if link.alias.is_some() => Some(link),
            Op::LinkAdd(link) if matches!(link.kind, LinkKind::Veth { peer_up: true, .. }) => Some(link),
            _ => None,
        }
    }

    /// The operation as a verb, and the object it is about, for an error.
    pub(crate) fn describe(&self) -> (&'static str, String) {
        match self {
            Op::LinkAdd(link) => ("add link", link.name.clone()),
            Op::LinkSet(set) => ("change link", format!("{} ({set:?})", set.index)),
            Op::LinkDel(index) => ("remove link", index.to_string()),
            Op::VfSet(set) => ("change virtual function", format!("{} of link {}", set.number, set.index)),
            Op::PortVlanAdd(v) => ("add VLANs", format!("{} on bridge port {}", v.ids(), v.index)),
            Op::PortVlanDel(v) => ("remove VLANs", format!("{} on bridge port {}", v.ids(), v.index)),
            Op::AddrAdd(a) => ("add address", format!("{} on link {}", a.net, a.ifindex)),
            Op::AddrDel(a) => ("remove address", format!("{} on link {}", a.net, a.ifindex)),
            Op::RouteReplace(route) => ("replace route", route.to_string()),
            Op::RouteAdd(route) | Op::RouteAppend(route) => ("add route", route.to_string()),
            Op::RouteDel(route) => ("remove route", route.to_string()),
            Op::NexthopReplace(nexthop) => ("replace next hop", nexthop.to_string()),
            Op::NexthopDel(id) => ("remove next hop", id.to_string()),
            Op::NeighReplace(n) => ("replace neighbour", format!("{} on link {}", n.ip, n.ifindex)),
            Op::NeighDel(n) => ("remove neighbour", format!("{} on link {}", n.ip, n.ifindex)),
            Op::FdbReplace(e) => ("replace forwarding entry", format!("{} on link {}", e.mac, e.ifindex)),
            Op::FdbDel(e) => ("remove forwarding entry", format!("{} on link {}", e.mac, e.ifindex)),
            Op::RuleAdd(rule) => ("add rule", rule.to_string()),
            Op::RuleDel(rule) => ("remove rule", rule.to_string()),
            Op::QdiscAdd(qdisc) => ("add queueing discipline", qdisc.to_string()),
            Op::QdiscReplace(qdisc) => ("replace queueing discipline", qdisc.to_string()),
            Op::QdiscDel(qdisc) => ("remove queueing discipline", qdisc.to_string()),
            Op::ClassAdd(c) => ("add traffic class", format!("{:x} on link {}", c.handle, c.ifindex)),
            Op::FilterAdd(f) => ("add traffic filter", format!("{:x} on link {}", f.parent, f.ifindex)),
        }
    }
}

fn encode_link_set(set: &LinkSet, buffer: &mut Vec<u8>, seq: u32) -> u32 {
    let mut count = 0;
    for message in link_codec::encode_set(set) {
        append(buffer, libc::RTM_NEWLINK, ACKED, seq.wrapping_add(count), &message);
        count += 1;
    }
    count
}

/// Lets messages of several types be handed to one closure.
trait Emit {
    fn append_to(&self, buffer: &mut Vec<u8>, kind: u16, flags: u16, seq: u32);
}

impl<T: Emitable> Emit for T {
    fn append_to(&self, buffer: &mut Vec<u8>, kind: u16, flags: u16, seq: u32) {
        append(buffer, kind, flags, seq, self);
    }
}
