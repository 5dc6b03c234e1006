//! What the kernel's tables of one place say about a packet.

use std::collections::HashMap;
use std::net::IpAddr;

use weft_kernel::{FdbEntry, Link, Neighbour, Netlink, Route, sysctl};
use weft_model::Mac;

use crate::probe::Place;
use crate::report::Decision;
use crate::{Error, Result};

const LOCAL: u8 = 2;
const UNICAST: u8 = 1;
// NUD_* of include/uapi/linux/neighbour.h.
const STATES: [(u16, &str); 8] = [
    (0x80, "permanent"),
    (0x40, "noarp"),
    (0x02, "reachable"),
    (0x04, "stale"),
    (0x08, "delay"),
    (0x10, "probe"),
    (0x01, "incomplete"),
    (0x20, "failed"),
];

/// The tables of all watched places, read when the probe was through.
pub(crate) struct Tables {
    by_place: HashMap<usize, PlaceTables>,
}

/// The tables of one place.
pub(crate) struct PlaceTables {
    pub(crate) links: HashMap<u32, Link>,
    routes: Vec<Route>,
    neighbours: Vec<Neighbour>,
    fdb: Vec<FdbEntry>,
    addresses: Vec<IpAddr>,
    /// The watched places, by the number this namespace has for each.
    numbers: HashMap<i32, usize>,
    netlink: Netlink,
    forwarding: [bool; 2],
    rp_filter: HashMap<String, String>,
}

/// What the routing table answered.
pub(crate) enum Way {
    /// To this namespace itself.
    Local,
    /// Out by this device to this next hop.
    Out { device: u32, next_hop: IpAddr },
    /// An entry that discards.
    Discard,
    /// None; with the error number where the kernel gave one.
    None(Option<i32>),
}

impl Tables {
    pub(crate) fn read_all(places: &[Place], watched: &[usize]) -> Result<Tables> {
        let mut by_place = HashMap::new();
        for &place in watched {
            let at = |source| Error::Watch { place: places[place].name.clone(), source };
            by_place.insert(place, PlaceTables::read(places, place, watched).map_err(at)?);
        }
        Ok(Tables { by_place })
    }

    pub(crate) fn get(&mut self, place: usize) -> Option<&mut PlaceTables> {
        self.by_place.get_mut(&place)
    }

    /// The other end of a veth pair: place and device.
    pub(crate) fn peer(&self, place: usize, ifindex: u32) -> Option<(usize, &Link)> {
        let link = self.by_place.get(&place)?.links.get(&ifindex)?;
        let peer = link.peer.filter(|_| link.kind.as_deref() == Some("veth"))?;
        let other = match link.peer_netnsid {
            Some(number) => *self.by_place.get(&place)?.numbers.get(&number)?,
            None => place,
        };
        Some((other, self.by_place.get(&other)?.links.get(&peer)?))
    }
}

impl PlaceTables {
    fn read(places: &[Place], index: usize, watched: &[usize]) -> weft_kernel::Result<PlaceTables> {
        let place = &places[index];
        let mut netlink = Netlink::open_in(&place.netns)?;
        let mut numbers = HashMap::new();
        for &other in watched {
            if let Some(number) = netlink.number_of(&places[other].netns)? {
                numbers.insert(number, other);
            }
        }
        let links: HashMap<u32, Link> = netlink.links()?.into_iter().map(|l| (l.index, l)).collect();
        let names: Vec<String> = links.values().map(|l| l.name.clone()).chain(["all".into()]).collect();
        let (forwarding, rp_filter) = place.netns.run(|| {
            let on = |name: &str| sysctl::get(name).is_ok_and(|v| v != "0");
            let read =
                |n: &String| Some((n.clone(), sysctl::get(&format!("net/ipv4/conf/{n}/rp_filter")).ok()?));
            (
                [on("net.ipv4.ip_forward"), on("net.ipv6.conf.all.forwarding")],
                names.iter().filter_map(read).collect(),
            )
        })?;
        Ok(PlaceTables {
            links,
            routes: netlink.routes()?,
            neighbours: netlink.neighbours()?,
            fdb: netlink.fdb()?,
            addresses: netlink.addresses()?.iter().map(|a| a.net.addr()).collect(),
            numbers,
            netlink,
            forwarding,
            rp_filter,
        })
    }

    pub(crate) fn name(&self, ifindex: u32) -> String {
        self.links.get(&ifindex).map_or_else(|| format!("device {ifindex}"), |l| l.name.clone())
    }

    pub(crate) fn is_local(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.addresses.contains(&address)
    }

    pub(crate) fn forwards(&self, like: IpAddr) -> bool {
        self.forwarding[usize::from(like.is_ipv6())]
    }

    /// Whether the kernel checks sources on this device (`rp_filter`).
    pub(crate) fn checks_source(&self, ifindex: u32) -> bool {
        let on = |name: &str| self.rp_filter.get(name).is_some_and(|v| v != "0");
        on("all") || on(&self.name(ifindex))
    }

    /// Asks the routing table. `iif` is the device the packet came in by; none for own packets.
    pub(crate) fn way(&mut self, dst: IpAddr, src: Option<IpAddr>, iif: Option<u32>) -> (Way, Decision) {
        if self.is_local(dst) {
            return (Way::Local, Decision::Local { address: dst });
        }
        match self.netlink.route_get(dst, src.filter(|_| iif.is_some()), iif) {
            Ok(route) if route.kind == LOCAL => (Way::Local, Decision::Local { address: dst }),
            Ok(route) => self.found(dst, &route),
            Err(e) => {
                let error = match e.errno() {
                    Some(errno) => std::io::Error::from_raw_os_error(errno).to_string(),
                    None => e.to_string(),
                };
                (Way::None(e.errno()), Decision::NoRoute { to: dst, error })
            }
        }
    }

    fn found(&self, dst: IpAddr, route: &Route) -> (Way, Decision) {
        // The kernel answers with the address; the entry behind it is the longest that agrees.
        let agrees = |r: &&Route| r.dst.contains(&dst) && r.via == route.via && r.oif == route.oif;
        let entry = self.routes.iter().filter(agrees).max_by_key(|r| r.dst.prefix_len());
        let to = entry.map_or_else(|| dst.to_string(), |r| r.dst.to_string());
        let id = entry.map_or(route.table, |r| r.table);
        match route.oif.filter(|_| route.kind == UNICAST) {
            Some(device) => {
                let decision = Decision::Route { to, via: route.via, device: self.name(device), id };
                (Way::Out { device, next_hop: route.via.unwrap_or(dst) }, decision)
            }
            None => {
                let error = format!("the entry {to} discards");
                (Way::Discard, Decision::NoRoute { to: dst, error })
            }
        }
    }

    /// The neighbour entry of a next hop, and its hardware address where usable.
    pub(crate) fn neighbour(&self, device: u32, address: IpAddr) -> (Option<Mac>, Decision) {
        let entry = self.neighbours.iter().find(|n| n.ifindex == device && n.ip == address);
        let state = entry.map_or(0, |n| n.state);
        let name = STATES.iter().find(|(bit, _)| state & bit != 0).map_or("none", |(_, name)| name);
        let mac = entry.and_then(|n| n.mac).filter(|_| state & 0x21 == 0);
        let decision = Decision::Neighbour {
            address,
            device: self.name(device),
            mac: mac.map(|m| m.to_string()),
            state: name.into(),
        };
        (mac, decision)
    }

    /// The usable hardware address of a next hop, and whether there is no entry at all.
    pub(crate) fn resolved(&self, device: u32, address: IpAddr) -> (Option<Mac>, bool) {
        let absent = !self.neighbours.iter().any(|n| n.ifindex == device && n.ip == address);
        (self.neighbour(device, address).0, absent)
    }

    /// Whether frames on this device need a hardware address at all.
    pub(crate) fn has_neighbours(&self, device: u32) -> bool {
        self.links.get(&device).is_some_and(|l| l.mac.is_some_and(|m| m != Mac::default()))
    }

    /// The VXLAN peer behind a hardware address; `None` when the device is no VXLAN device.
    pub(crate) fn tunnel(&self, device: u32, mac: Mac) -> Option<(Option<IpAddr>, Decision)> {
        self.links.get(&device)?.vxlan.as_ref()?;
        let of = |mac: Mac| self.fdb.iter().find(|e| e.ifindex == device && e.mac == mac && e.dst.is_some());
        // An all-zero entry is the default of a VXLAN device.
        let remote = of(mac).or_else(|| of(Mac::default())).and_then(|e| e.dst);
        Some((remote, Decision::Tunnel { device: self.name(device), mac: mac.to_string(), remote }))
    }

    /// Where the bridge with index `bridge` sends a frame for `mac`.
    pub(crate) fn bridge(&self, bridge: u32, mac: Mac) -> (Option<u32>, Decision) {
        let own = self.links.get(&bridge).and_then(|l| l.mac) == Some(mac);
        let entry =
            self.fdb.iter().find(|e| e.mac == mac && (e.master == Some(bridge) || e.ifindex == bridge));
        let port = if own { Some(bridge) } else { entry.map(|e| e.ifindex) };
        // The address of a port itself is the bridge's too.
        let port = port.map(|p| if self.links.get(&p).and_then(|l| l.mac) == Some(mac) { bridge } else { p });
        let decision = Decision::Bridge {
            bridge: self.name(bridge),
            mac: mac.to_string(),
            port: port.map(|p| self.name(p)),
        };
        (port, decision)
    }
}
