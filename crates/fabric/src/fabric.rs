use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;
use weft_kernel::{Address, Event, FdbEntry, Link, Neighbour, Netlink, Nexthop, Op, Route};
use weft_model::mark;
use weft_model::network::Tunnel;

use crate::links::{self, Device, Devices};
use crate::own::{blackhole, device_route};
use crate::rivals::Rivals;
use crate::tables::{Key, Tables, route_key};
use crate::udp::{Counters, Engine};
use crate::{Error, FabricPlan, LocalPlan};

/// NUD_PERMANENT.
const PERMANENT: u16 = 0x80;

/// What one [`Fabric::apply`] did.
#[derive(Debug, Default)]
pub struct Applied {
    /// Objects written; 0 when everything was as planned.
    pub writes: usize,
    /// What the kernel refused; it is tried again at the next apply.
    pub errors: Vec<Error>,
}

/// Holds what of the plan is in the kernel and brings the rest there.
///
/// Call order: [`desire`](Fabric::desire) after each change of the plan,
/// [`handle_event`](Fabric::handle_event) for everything a monitor opened before the first
/// apply says, and then [`apply`](Fabric::apply). Take in all waiting events before applying:
/// an event may tell of an own change of before.
#[derive(Debug)]
pub struct Fabric {
    cluster_cidrs: Vec<IpNet>,
    pub(crate) local: Option<LocalPlan>,
    devices: Devices,
    pub(crate) tables: Tables,
    /// The tunnel in user space.
    udp: Engine,
    /// Peers whose plan changed since their entries were last desired.
    changed: BTreeSet<Arc<str>>,
    /// Whether what is known of the kernel may be wrong: read it before the next apply.
    suspect: bool,
    /// BGP has told all that there is to learn.
    pub(crate) settled: bool,
    rivals: Rivals,
    ports: BTreeSet<u32>,
    /// Pods' links that left the bridge.
    strays: Vec<u32>,
}

impl Fabric {
    /// Knows nothing of the kernel yet: the first apply reads it and adopts what is ours.
    /// Addresses of our devices outside `cluster_cidrs` are another's and stay.
    pub fn new(cluster_cidrs: Vec<IpNet>) -> Self {
        Fabric {
            cluster_cidrs,
            local: None,
            devices: Devices::default(),
            tables: Tables::default(),
            udp: Engine::default(),
            changed: BTreeSet::new(),
            suspect: true,
            settled: false,
            rivals: Rivals::default(),
            ports: BTreeSet::new(),
            strays: Vec::new(),
        }
    }

    /// Takes in a plan of which the named peers changed. While the plan waits, what was desired
    /// before stays.
    pub fn desire(&mut self, plan: &FabricPlan, changed: &BTreeSet<Arc<str>>) {
        let Ok(local) = &plan.local else { return };
        self.changed.extend(changed.iter().cloned());
        if self.local.as_ref() != Some(local) {
            self.local = Some(local.clone());
            self.await_learnt();
            // The devices may change with it, and whatever was not seen while waiting.
            self.suspect = true;
            self.changed.extend(plan.peers.keys().cloned());
            self.changed.extend(self.tables.peers());
        }
    }

    /// Forgets what is known of the kernel: the next apply reads it anew.
    pub fn distrust(&mut self) {
        self.suspect = true;
    }

    /// Whether an apply would have something to do.
    pub fn pending(&self) -> bool {
        let stale = self.suspect
            || !self.changed.is_empty()
            || !self.strays.is_empty()
            || self.tables.learnt.is_due();
        self.local.is_some() && (stale || !self.tables.in_sync())
    }

    /// The bridge's index once it is programmed.
    pub fn bridge(&self) -> Option<u32> {
        self.devices.get(mark::BRIDGE).copied()
    }

    fn is_vxlan(&self, index: u32) -> bool {
        [mark::VXLAN, mark::VXLAN6].into_iter().any(|name| self.devices.get(name) == Some(&index))
    }

    /// The VXLAN device's index once it is programmed.
    pub fn vxlan(&self) -> Option<u32> {
        self.devices.get(mark::VXLAN).copied()
    }

    /// Whether the devices of a tunnel are there, so that packets can come by it.
    pub fn receives(&self, tunnel: Tunnel) -> bool {
        let wanted = |device: &Device<'_>| match device {
            Device::Bridge(_) => false,
            Device::Vxlan(_) => tunnel == Tunnel::Vxlan,
            Device::Udp(_) => tunnel == Tunnel::Udp,
            Device::Ipip(_) => tunnel == Tunnel::Ipip,
        };
        let Some(local) = &self.local else { return false };
        let mut devices = links::of(local).filter(wanted).peekable();
        devices.peek().is_some() && devices.all(|device| self.devices.contains_key(device.name()))
    }

    /// Whether everything the named peer's paths need is in the kernel, as far as known.
    pub fn programmed(&self, peer: &str) -> bool {
        self.tables.programmed(peer)
    }

    /// The first route of another program that goes before one of the named peer's.
    pub fn rival(&self, peer: &str) -> Option<Error> {
        self.tables.routes_of(peer).find_map(|key| self.rivals.of(key))
    }

    /// What the tunnel in user space carried, where there is one.
    pub fn udp_counters(&self) -> Option<Counters> {
        self.udp.counters()
    }

    /// Brings the kernel to `plan` by the difference, in one batch (and a few requests more
    /// where a device is made). `plan` must be the one last given to [`desire`](Fabric::desire).
    pub fn apply(&mut self, netlink: &mut Netlink, plan: &FabricPlan) -> Applied {
        let mut applied = Applied::default();
        if let Err(error) = self.try_apply(netlink, plan, &mut applied) {
            self.suspect = true;
            applied.errors.push(error);
        }
        applied
    }

    fn try_apply(
        &mut self,
        netlink: &mut Netlink,
        plan: &FabricPlan,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        let Some(local) = self.local.clone() else { return Ok(()) };
        let mut orphans = Vec::new();
        let suspect = self.suspect;
        if suspect {
            // First: it makes its device, which netlink cannot.
            let carried = self.udp.running();
            applied.errors.extend(self.udp.ensure(netlink, local.tunnels.udp.as_ref()).err());
            if carried != self.udp.running() {
                self.changed.extend(plan.peers.keys().cloned());
            }
            let ensured = links::ensure(netlink, &local)?;
            applied.writes += ensured.writes;
            applied.errors.extend(ensured.errors);
            let failed = !applied.errors.is_empty();
            orphans = ensured.orphans;
            self.move_to(ensured.devices, plan, &local);
            self.read(netlink)?;
            self.suspect = failed;
        }
        let changed = std::mem::take(&mut self.changed);
        if suspect || !changed.is_empty() {
            self.udp.set_peers(plan);
        }
        let mut usable = self.devices.clone();
        if !self.udp.running() {
            usable.remove(mark::UDP);
        }
        self.tables.desire(&plan.peers, &changed, &usable);
        self.tables.follow_learnt(netlink);
        if let Some(bridge) = self.bridge() {
            applied.writes += links::enslave(netlink, bridge, &std::mem::take(&mut self.strays));
        }
        self.send(netlink, applied);
        for index in orphans {
            netlink.apply(&Op::LinkDel(index))?;
            applied.writes += 1;
        }
        Ok(())
    }

    /// Takes new device indexes into everything desired.
    fn move_to(&mut self, devices: Devices, plan: &FabricPlan, local: &LocalPlan) {
        if devices != self.devices {
            self.devices = devices;
            self.changed.extend(plan.peers.keys().cloned());
            self.changed.extend(self.tables.peers());
        }
        let index = |device: &Device<'_>| self.devices.get(device.name()).copied();
        let placed = links::of(local).filter_map(|device| Some((index(&device)?, device)));
        let addresses = placed.flat_map(|(index, device)| {
            let address = move |net: &IpNet| ((index, *net), as_observed(Address::new(index, *net)));
            device.addresses().iter().map(address).collect::<Vec<_>>()
        });
        self.tables.addresses.replace_desired(addresses);
        let udp = self.devices.get(mark::UDP).copied().zip(local.tunnels.udp.as_ref());
        let routes = udp.into_iter().flat_map(|(index, spec)| spec.routes.iter().map(move |c| (index, *c)));
        let routes = routes.map(|(index, cidr)| device_route(index, cidr));
        // What no pod has goes nowhere: not by the default route, and not round and round.
        let blocks = local.pod_cidrs.iter().filter(|_| local.routed).map(|cidr| blackhole(*cidr));
        self.tables.desire_own(routes.chain(blocks));
    }

    /// Reads what is in the kernel of ours.
    fn read(&mut self, netlink: &mut Netlink) -> Result<(), Error> {
        let addresses = netlink.addresses()?.into_iter().filter(|a| self.our_address(a));
        let addresses = addresses.map(|a| ((a.ifindex, a.net), as_observed(a))).collect::<Vec<_>>();
        self.tables.addresses.replace_actual(addresses);
        let (neighbours, fdb) = match self.devices.contains_key(mark::VXLAN) {
            true => (netlink.neighbours()?, netlink.fdb()?),
            false => Default::default(),
        };
        let neighbours = neighbours.into_iter().filter(|n| self.our_neighbour(n));
        let neighbours = neighbours.map(|n| ((n.ifindex, n.ip), n)).collect::<Vec<_>>();
        self.tables.neighbours.replace_actual(neighbours);
        let fdb = fdb.into_iter().filter(|entry| self.our_fdb(entry));
        self.tables.fdb.replace_actual(fdb.map(|f| ((f.ifindex, f.mac), f)).collect::<Vec<_>>());
        self.tables.nexthops.read(netlink.nexthops()?);
        let routes = netlink.routes()?;
        self.rivals.read(routes.iter(), &self.cluster_cidrs);
        self.tables.learnt.read(&routes);
        let routes = routes.into_iter().filter(|r| self.our_route(r));
        self.tables.routes.replace_actual(routes.map(|r| (route_key(&r), r)).collect::<Vec<_>>());
        tracing::debug!(routes = self.tables.routes.actual().len(), "read the kernel's state");
        Ok(())
    }

    fn send(&mut self, netlink: &mut Netlink, applied: &mut Applied) {
        let pending = self.tables.pending();
        if pending.is_empty() {
            return;
        }
        let ops: Vec<Op> = pending.iter().map(|(_, op)| op.clone()).collect();
        for ((key, op), result) in pending.into_iter().zip(netlink.batch(&ops)) {
            match result {
                Ok(()) => {
                    applied.writes += 1;
                    self.tables.applied(key);
                }
                Err(error) if settled(&op, &error) => self.tables.applied(key),
                Err(error) => {
                    self.suspect = true;
                    applied.errors.push(refused(&key, error));
                }
            }
        }
    }

    /// Takes in what a monitor said. Whether something of ours is now to be repaired is then in
    /// [`pending`](Fabric::pending).
    pub fn handle_event(&mut self, event: &Event) {
        match event {
            Event::Link { new, link } => self.handle_link(*new, link),
            Event::Address { new, address } => self.handle_address(*new, address),
            Event::Neighbour { new, neighbour } if self.our_neighbour(neighbour) || !new => {
                let key = (neighbour.ifindex, neighbour.ip);
                if *new {
                    self.tables.neighbours.observe(key, neighbour.clone());
                } else {
                    self.tables.neighbours.unobserve(&key);
                }
            }
            Event::Fdb { new, entry } if self.our_fdb(entry) => {
                let key = (entry.ifindex, entry.mac);
                if *new {
                    self.tables.fdb.observe(key, entry.clone());
                } else {
                    self.tables.fdb.unobserve(&key);
                }
            }
            Event::Nexthop { new, nexthop } => self.handle_nexthop(*new, nexthop),
            Event::Route { new, route } => self.handle_route(*new, route),
            Event::Overrun => self.suspect = true,
            _ => {}
        }
    }

    fn handle_address(&mut self, new: bool, address: &Address) {
        // With a link's last address the kernel drops its IPv4 routes without a word.
        self.suspect |= !new && self.on_our_path(address.ifindex);
        if !self.our_address(address) {
            return;
        }
        let key = (address.ifindex, address.net);
        if new {
            self.tables.addresses.observe(key, as_observed(address.clone()));
        } else {
            self.tables.addresses.unobserve(&key);
        }
    }

    fn our_device(&self, index: u32) -> bool {
        self.devices.values().any(|device| *device == index)
    }

    /// Whether packets for peers may go out by the link.
    fn on_our_path(&self, index: u32) -> bool {
        let underlay = self.local.as_ref().map(|local| local.underlay);
        underlay == Some(index) || self.our_device(index)
    }

    fn handle_nexthop(&mut self, new: bool, nexthop: &Nexthop) {
        let nexthops = &mut self.tables.nexthops.delta;
        if !nexthops.actual().contains_key(&nexthop.id) && !nexthops.desired().contains_key(&nexthop.id) {
            return;
        }
        if new {
            nexthops.observe(nexthop.id, nexthop.clone());
        } else {
            nexthops.unobserve(&nexthop.id);
            // The kernel dropped the routes that named it without a word.
            self.suspect |= nexthops.desired().contains_key(&nexthop.id);
        }
    }

    fn handle_route(&mut self, new: bool, route: &Route) {
        self.rivals.observe(new, route, &self.cluster_cidrs);
        let key = route_key(route);
        if new && self.our_route(route) {
            self.tables.routes.observe(key, route.clone());
        } else if !new && self.tables.routes.actual().get(&key) == Some(route) {
            self.tables.routes.unobserve(&key);
        }
    }

    fn handle_link(&mut self, new: bool, link: &Link) {
        let Some(local) = &self.local else { return };
        self.suspect |= links::disturbed(link, new, &self.devices, local);
        // The kernel drops IPv4 routes without a word when their link goes down.
        self.suspect |= !link.up && link.index == local.underlay;
        self.follow_port(new, link);
    }

    /// A pod's link that was on our bridge and is on none now goes back.
    fn follow_port(&mut self, new: bool, link: &Link) {
        let on_bridge = link.master.is_some() && link.master == self.bridge();
        self.strays.retain(|index| *index != link.index);
        if new && on_bridge {
            self.ports.insert(link.index);
        } else if self.ports.remove(&link.index) && new && link.master.is_none() {
            self.strays.push(link.index);
        }
    }

    fn our_address(&self, address: &Address) -> bool {
        let device = self.our_device(address.ifindex);
        let desired = self.tables.addresses.desired().contains_key(&(address.ifindex, address.net));
        device && (desired || self.cluster_cidrs.iter().any(|cidr| cidr.contains(&address.net.addr())))
    }

    fn our_neighbour(&self, neighbour: &Neighbour) -> bool {
        let key = (neighbour.ifindex, neighbour.ip);
        let desired = self.tables.neighbours.desired().contains_key(&key);
        self.is_vxlan(neighbour.ifindex) && (desired || neighbour.state & PERMANENT != 0)
    }

    /// Entries without a destination are the device's own multicast list.
    fn our_fdb(&self, entry: &FdbEntry) -> bool {
        self.is_vxlan(entry.ifindex) && entry.dst.is_some()
    }

    /// Marked as ours, or in the place of one that was.
    fn our_route(&self, route: &Route) -> bool {
        let key = route_key(route);
        let routes = &self.tables.routes;
        let taken = || routes.actual().contains_key(&key) && routes.desired().contains_key(&key);
        route.protocol == mark::ROUTE_PROTOCOL || taken()
    }
}

/// Without what only the kernel sets, so that it compares equal to what was asked for.
fn as_observed(address: Address) -> Address {
    Address {
        no_dad: address.net.addr().is_ipv6(),
        tentative: false,
        duplicate: false,
        temporary: false,
        ..address
    }
}

/// Whether a refusal means that the object is already as wanted.
fn settled(op: &Op, error: &weft_kernel::Error) -> bool {
    match op {
        Op::AddrAdd(_) => error.exists(),
        Op::RouteDel(_) | Op::FdbDel(_) | Op::NeighDel(_) | Op::AddrDel(_) | Op::NexthopDel(_) => {
            error.not_found()
        }
        _ => false,
    }
}

fn refused(key: &Key, error: weft_kernel::Error) -> Error {
    match key {
        Key::Route((_, route, _)) if error.exists() => Error::ForeignRoute { route: *route },
        _ => error.into(),
    }
}
