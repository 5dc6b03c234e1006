//! The questions a [`Netlink`] socket answers.

use std::net::IpAddr;

use netlink_packet_core::Emitable;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::RouteMessage;

use crate::ack::{end_of_dump, kernel_error, refusal};
use crate::monitor::{NETCONFA_IFINDEX, decode_netconf};
use crate::wire::{Body, messages};
use crate::{
    Address, Class, Error, FdbEntry, Filter, Link, Neighbour, Netlink, Nexthop, Qdisc, Result, Route, Rule,
    addr, link_codec, neigh, nexthop, route, rule, tc,
};

/// How often a dump is begun anew when the table changes meanwhile.
const DUMP_ATTEMPTS: u32 = 32;
impl Netlink {
    /// All interfaces.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        self.dump("links", libc::RTM_GETLINK, &link_question(), link_codec::decode)
    }

    /// The interface of this name.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        // The kernel cuts no name, it refuses the request; no interface has such a name.
        if name.is_empty() || name.len() >= libc::IFNAMSIZ {
            return Ok(None);
        }
        let mut question = link_question();
        question.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.find_link(&question, name)
    }

    /// The interface of this index.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>> {
        let mut question = link_question();
        question.header.index = index;
        self.find_link(&question, &index.to_string())
    }

    fn find_link(&mut self, question: &LinkMessage, named: &str) -> Result<Option<Link>> {
        match self.ask("read link", named, libc::RTM_GETLINK, question, link_codec::decode) {
            Err(error) if error.not_found() => Ok(None),
            found => found.map(Some),
        }
    }

    /// All addresses, IPv4 and IPv6.
    pub fn addresses(&mut self) -> Result<Vec<Address>> {
        self.dump("addresses", libc::RTM_GETADDR, &AddressMessage::default(), addr::decode)
    }

    /// All routes of all tables, IPv4 and IPv6.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let mut routes = self.routes_of(AddressFamily::Inet)?;
        routes.extend(self.routes_of(AddressFamily::Inet6)?);
        Ok(routes)
    }

    fn routes_of(&mut self, family: AddressFamily) -> Result<Vec<Route>> {
        let mut question = RouteMessage::default();
        question.header.address_family = family;
        let wanted = u8::from(family);
        // A kernel without IPv6 answers the question for it with what it has.
        let decode = |payload: &[u8]| route::decode(payload).filter(|_| payload.first() == Some(&wanted));
        self.dump("routes", libc::RTM_GETROUTE, &question, decode)
    }

    /// All next-hop objects but groups.
    pub fn nexthops(&mut self) -> Result<Vec<Nexthop>> {
        self.dump("next hops", nexthop::RTM_GETNEXTHOP, &nexthop::question(), nexthop::decode)
    }

    /// All routing rules, IPv4 and IPv6, in the order they apply within each.
    pub fn rules(&mut self) -> Result<Vec<Rule>> {
        let mut rules = Vec::new();
        for ipv6 in [false, true] {
            // A kernel without IPv6 answers the question for it with what it has, or refuses.
            let of_family = |payload: &[u8]| rule::decode(payload).filter(|rule| rule.ipv6 == ipv6);
            match self.dump("rules", libc::RTM_GETRULE, &rule::question(ipv6), of_family) {
                Err(error) if ipv6 && error.errno() == Some(libc::EAFNOSUPPORT) => {}
                read => rules.extend(read?),
            }
        }
        Ok(rules)
    }

    /// The queueing disciplines of a link, those the kernel puts itself too.
    pub fn qdiscs(&mut self, ifindex: u32) -> Result<Vec<Qdisc>> {
        let of_link = |payload: &[u8]| tc::decode_qdisc(payload).filter(|qdisc| qdisc.ifindex == ifindex);
        self.dump("queueing disciplines", libc::RTM_GETQDISC, &tc::question(0, 0), of_link)
    }

    /// The classes of a link's queueing disciplines.
    pub fn classes(&mut self, ifindex: u32) -> Result<Vec<Class>> {
        self.dump("traffic classes", libc::RTM_GETTCLASS, &tc::question(ifindex, 0), tc::decode_class)
    }

    /// The filters of the queueing discipline `parent` of a link.
    pub fn filters(&mut self, ifindex: u32, parent: u32) -> Result<Vec<Filter>> {
        let question = tc::question(ifindex, parent);
        self.dump("traffic filters", libc::RTM_GETTFILTER, &question, tc::decode_filter)
    }

    /// All neighbours, IPv4 and IPv6.
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>> {
        self.dump("neighbours", libc::RTM_GETNEIGH, &NeighbourMessage::default(), neigh::decode)
    }

    /// All forwarding entries.
    pub fn fdb(&mut self) -> Result<Vec<FdbEntry>> {
        let mut question = NeighbourMessage::default();
        question.header.family = AddressFamily::Bridge;
        self.dump("forwarding entries", libc::RTM_GETNEIGH, &question, neigh::decode_fdb)
    }

    /// The route the kernel would take to `dst`, from the local address `from` or, with `iif`,
    /// for a packet received there. Its destination is `dst` alone.
    pub fn route_get(&mut self, dst: IpAddr, from: Option<IpAddr>, iif: Option<u32>) -> Result<Route> {
        let question = route::encode_lookup(dst, from, iif);
        self.ask("find the route to", &dst.to_string(), libc::RTM_GETROUTE, &question, route::decode)
    }

    /// Whether the kernel forwards packets of IPv4, or of IPv6: `net.ipv4.ip_forward` and
    /// `net.ipv6.conf.all.forwarding`, without a path below `/proc/sys`.
    pub fn forwards(&mut self, ipv6: bool) -> Result<bool> {
        let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
        // struct netconfmsg, padded; all links together are number -1.
        let mut question = Body::new(&[family as u8, 0, 0, 0]);
        question.u32(NETCONFA_IFINDEX, u32::MAX);
        let of = if ipv6 { "of IPv6" } else { "of IPv4" };
        let netconf = self.ask("read forwarding", of, libc::RTM_GETNETCONF, &question, decode_netconf)?;
        Ok(netconf.forwarding == Some(true))
    }

    /// One request with one answer.
    pub(crate) fn ask<T>(
        &mut self,
        op: &'static str,
        object: &str,
        kind: u16,
        question: &impl Emitable,
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<T> {
        let seq = self.request(kind, 0, question).map_err(|e| Error::sys(op, object, e))?;
        loop {
            let datagram = self.socket.receive(true).map_err(|e| Error::sys(op, object, e))?;
            let Some(message) = messages(datagram).find(|m| m.seq == seq) else { continue };
            if i32::from(message.kind) == libc::NLMSG_ERROR {
                let (errno, said) = refusal(&message).unwrap_or((libc::EIO, String::new()));
                return Err(kernel_error(op, object.to_owned(), errno, said));
            }
            let detail = "an object without its header or key";
            return decode(message.payload).ok_or(Error::Malformed { op, detail });
        }
    }

    /// Reads a whole table as it was at one moment.
    pub(crate) fn dump<T>(
        &mut self,
        object: &'static str,
        kind: u16,
        question: &impl Emitable,
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(all) = self.dump_once(object, kind, question, &decode)? {
                return Ok(all);
            }
        }
        Err(Error::Inconsistent { object, attempts: DUMP_ATTEMPTS })
    }

    /// None if the table changed or messages were lost meanwhile.
    fn dump_once<T>(
        &mut self,
        object: &'static str,
        kind: u16,
        question: &impl Emitable,
        decode: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        let seq = self
            .request(kind, libc::NLM_F_DUMP as u16, question)
            .map_err(|e| Error::sys("read", object, e))?;
        let (mut all, mut consistent) = (Vec::new(), true);
        loop {
            let datagram = match self.socket.receive(true) {
                // The dump goes on behind the loss, and has to be read to its end.
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                    consistent = false;
                    continue;
                }
                received => received.map_err(|e| Error::sys("read", object, e))?,
            };
            for message in messages(datagram).filter(|m| m.seq == seq) {
                consistent &= message.flags & libc::NLM_F_DUMP_INTR as u16 == 0;
                match i32::from(message.kind) {
                    libc::NLMSG_DONE | libc::NLMSG_ERROR => {
                        return match end_of_dump(&message) {
                            Some((libc::EINTR | libc::EBUSY, _)) => Ok(None),
                            Some((errno, said)) => Err(kernel_error("read", object.to_owned(), errno, said)),
                            None => Ok(consistent.then_some(all)),
                        };
                    }
                    _ => all.extend(decode(message.payload)),
                }
            }
        }
    }
}

/// Traffic counters, a third of a link's message, are not asked for.
fn link_question() -> LinkMessage {
    let mut question = LinkMessage::default();
    question.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    question
}
