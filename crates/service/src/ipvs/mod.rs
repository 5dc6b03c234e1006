//! Services by the kernel's virtual servers (IPVS).
//!
//! Each frontend is a virtual server, and its address one of a link of the node's own, so that packets come to
//! it. What IPVS has not is in small tables of nftables: masquerade, refusals, who may connect. A node port's
//! virtual server, and the second one of a frontend that leads clients from outside elsewhere, is at an inner
//! address, to which the tables translate. So no address of the node's is taken, and whatever of virtual servers is
//! at an address of the link or at an inner one is ours.
//!
//! Nothing leads to a virtual server before it is there with its destinations: virtual servers first, then the
//! tables, then the addresses; what goes, the other way round.

mod inner;
pub mod kube_proxy;
mod link;
mod servers;
mod state;
mod tables;
mod way;

use std::collections::BTreeSet;
use std::net::IpAddr;

use weft_kernel::ipvs::{self, Change, ServerKey};
use weft_kernel::nft::{Nft, NftEvent, Transaction};
use weft_kernel::{Event, Netlink};
use weft_model::service::Protocol;

use crate::nftables::{TABLE, sync};
use crate::{Changed, Error, ServicePlan};
use link::Link;
use servers::{Servers, Steps};
use state::{Difference, State};

pub use link::LINK;
pub use weft_kernel::ipvs::Scheduler;

/// How virtual servers are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IpvsConfig {
    /// How they choose.
    pub scheduler: Scheduler,
    /// Whether connections of TCP to an endpoint that went end at once.
    pub reset_removed: bool,
}

/// The virtual servers, the link and the tables, and what is in them.
#[derive(Debug)]
pub struct Ipvs {
    config: IpvsConfig,
    kernel: ipvs::Ipvs,
    nft: Nft,
    link: Link,
    /// What there is; `None` where the kernel has to be asked.
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    state: State,
    servers: Servers,
    /// Addresses of the link that no Service has: those of servers whose connections are waited for.
    idle: BTreeSet<IpAddr>,
    /// Which families have a table.
    families: [bool; 2],
}

impl Ipvs {
    /// Knows nothing yet of what is in the calling thread's network namespace: the first [`apply`](Ipvs::apply)
    /// reads it, and changes what an agent before left to what is planned.
    pub fn open(config: IpvsConfig) -> Result<Ipvs, Error> {
        Ok(Ipvs { config, kernel: open()?, nft: Nft::open()?, link: Link::open()?, known: None })
    }

    /// Makes the kernel as planned; `changed` is all that changed since the last call. Says how many objects were
    /// made, changed or removed.
    pub fn apply(&mut self, plan: &ServicePlan, changed: &Changed) -> Result<usize, Error> {
        match self.advance(plan, changed) {
            Ok(Some(writes)) => Ok(writes),
            // Another program was faster than its event, or a family comes or goes.
            Ok(None) | Err(_) => self.replace(plan),
        }
    }

    /// Has the next [`apply`](Ipvs::apply) look at what there is if the event tells of another's change of a table
    /// of ours; says whether it does.
    pub fn notice(&mut self, event: &NftEvent) -> bool {
        let other = event.is_anothers(TABLE, Some(self.nft.port()));
        if other {
            self.known = None;
        }
        other
    }

    /// The same of links and addresses: of the link's own, and of an address of the node's that a Service has too.
    pub fn notice_link(&mut self, event: &Event) -> bool {
        let Some(known) = &self.known else { return false };
        let other = match event {
            Event::Link { new, link } => self.link.is_changed(*new, link),
            Event::Address { new, address } => {
                let ip = address.net.addr();
                self.link.is_changed_by(*new, address)
                    || (!self.link.is_own(address) && known.state.minds(ip, *new))
            }
            Event::Overrun => true,
            _ => false,
        };
        if other {
            self.known = None;
        }
        other
    }

    /// Has the next [`apply`](Ipvs::apply) look at what there is, and remove what has no connections any more.
    pub fn distrust(&mut self) {
        self.known = None;
    }

    /// Removes all of it.
    pub fn remove(&mut self) -> Result<(), Error> {
        self.withdraw(false)?;
        let mut transaction = Transaction::default();
        for ipv6 in [false, true] {
            if self.nft.outline(&sync::table(ipv6))?.is_some() {
                transaction.delete_table(&sync::table(ipv6));
            }
        }
        Ok(self.nft.apply(&transaction)?)
    }

    fn withdraw(&mut self, drains: bool) -> Result<bool, Error> {
        self.known = None;
        self.link.read()?;
        if !self.link.is_there() {
            return Ok(true);
        }
        let has = self.link.addresses();
        let servers =
            drain(&mut self.kernel, drains, |key| has.contains(&key.at.ip()) || inner::has(key.at.ip()))?;
        if servers.keys().next().is_none() {
            self.link.delete()?;
            return Ok(true);
        }
        let idle: Vec<IpAddr> =
            self.link.addresses().iter().copied().filter(|ip| !servers.any_at(*ip)).collect();
        self.link.remove(&idle)?;
        Ok(false)
    }

    /// Applies the difference alone; `None` where it is not known.
    fn advance(&mut self, plan: &ServicePlan, changed: &Changed) -> Result<Option<usize>, Error> {
        let Some(mut known) = self.known.take() else { return Ok(None) };
        if known.families != families(plan) {
            return Ok(None);
        }
        let difference = known.state.advance(plan, changed);
        let mut transaction = Transaction::default();
        let mut writes = 0;
        for (ipv6, _) in [false, true].into_iter().zip(known.families).filter(|(_, used)| *used) {
            let has = self.link.addresses();
            let new = difference.addresses.iter().filter(|(ip, new)| **new && !has.contains(*ip));
            tables::change(&mut transaction, ipv6, &difference, new.map(|(ip, _)| *ip));
            writes += difference.writes(ipv6);
        }
        let of = |wanted: bool| {
            let addresses = difference.addresses.iter().filter(move |(_, new)| **new == wanted);
            addresses.map(|(ip, _)| *ip).collect::<BTreeSet<_>>()
        };
        known.idle.extend(of(false));
        writes += self.carry_out(&mut known, &difference.servers, &transaction, &of(true))?;
        self.known = Some(known);
        Ok(Some(writes))
    }

    /// Reads what there is, and applies what differs.
    fn replace(&mut self, plan: &ServicePlan) -> Result<usize, Error> {
        self.known = None;
        link::ensure_parameters()?;
        let own = self.link.read()?;
        let families = families(plan);
        let mut writes = self.link.ensure(families)?;
        let (state, whole) = State::whole(self.config.scheduler, own, plan);
        let servers = self.read(&state)?;
        let touched = servers.keys().copied().chain(whole.servers.iter().copied()).collect();
        let mut transaction = Transaction::default();
        // Those that are there stay refused until they are not the node's any more.
        let addresses = state.addresses().chain(self.link.addresses().iter().copied()).collect();
        for (ipv6, used) in [false, true].into_iter().zip(families) {
            writes += self.replace_table(&mut transaction, ipv6, used, &whole, &addresses)?;
        }
        let wanted = state.addresses().collect();
        let idle = self.link.addresses().difference(&wanted).copied().collect();
        let mut known = Known { state, servers, idle, families };
        writes += self.carry_out(&mut known, &touched, &transaction, &wanted)?;
        self.known = Some(known);
        Ok(writes)
    }

    fn replace_table(
        &mut self,
        t: &mut Transaction,
        ipv6: bool,
        used: bool,
        whole: &Difference,
        addresses: &BTreeSet<IpAddr>,
    ) -> Result<usize, Error> {
        if used {
            return tables::replace(t, &mut self.nft, ipv6, whole, addresses);
        }
        let is_there = self.nft.outline(&sync::table(ipv6))?.is_some();
        if is_there {
            t.delete_table(&sync::table(ipv6));
        }
        Ok(usize::from(is_there))
    }

    /// The virtual servers that are wanted, or ours by their address.
    fn read(&mut self, state: &State) -> Result<Servers, Error> {
        let has = self.link.addresses();
        read(&mut self.kernel, |key| {
            let ip = key.at.ip();
            state.servers().contains_key(key) || has.contains(&ip) || inner::has(ip)
        })
    }

    /// Does what these virtual servers, the tables, these addresses and the idle ones need, in the order that never
    /// leads anybody to where he should not go.
    fn carry_out(
        &mut self,
        known: &mut Known,
        touched: &BTreeSet<ServerKey>,
        transaction: &Transaction,
        addresses: &BTreeSet<IpAddr>,
    ) -> Result<usize, Error> {
        let mut steps = Steps::default();
        let drains = !self.config.reset_removed && !self.config.scheduler.ignores_weight();
        for key in touched {
            // A datagram says nothing of an end.
            let drains = drains && key.protocol != Protocol::Udp.number();
            known.servers.compare(key, known.state.servers().get(key), drains, &mut steps);
        }
        run(&mut self.kernel, &mut known.servers, &steps.first)?;
        self.nft.apply(transaction)?;
        let mut writes = steps.first.len() + steps.last.len() + self.link.add(addresses)?;
        run(&mut self.kernel, &mut known.servers, &steps.last)?;
        known.idle.retain(|ip| !known.state.has_address(*ip));
        let is_idle = |ip: &IpAddr| !known.servers.any_at(*ip);
        let idle: Vec<IpAddr> = known.idle.iter().copied().filter(is_idle).collect();
        if !idle.is_empty() {
            writes += idle.len();
            self.link.remove(&idle)?;
            known.idle.retain(|ip| known.servers.any_at(*ip));
            let mut transaction = Transaction::default();
            let in_use = |ip: &IpAddr| known.families[usize::from(ip.is_ipv6())];
            let idle: Vec<IpAddr> = idle.into_iter().filter(in_use).collect();
            tables::forget(&mut transaction, &idle);
            self.nft.apply(&transaction)?;
        }
        Ok(writes)
    }
}

/// Those of the virtual servers that `is_meant` says.
fn read(kernel: &mut ipvs::Ipvs, is_meant: impl Fn(&ServerKey) -> bool) -> Result<Servers, Error> {
    let mut servers = kernel.servers()?;
    servers.retain(|key, _| is_meant(key));
    let destinations = kernel.destinations(servers.keys())?;
    Ok(Servers::read(servers, destinations))
}

/// Removes those of the virtual servers that `is_meant` says, which nothing leads to any more, and gives those that
/// are left: where it `drains`, those with connections.
fn drain(
    kernel: &mut ipvs::Ipvs,
    drains: bool,
    is_meant: impl Fn(&ServerKey) -> bool,
) -> Result<Servers, Error> {
    let mut servers = read(kernel, is_meant)?;
    let keys: Vec<ServerKey> = servers.keys().copied().collect();
    let mut steps = Steps::default();
    keys.iter().for_each(|key| servers.compare(key, None, drains, &mut steps));
    run(kernel, &mut servers, &steps.last)?;
    Ok(servers)
}

fn run(kernel: &mut ipvs::Ipvs, servers: &mut Servers, changes: &[Change]) -> Result<(), Error> {
    let mut failed = None;
    for (change, result) in changes.iter().zip(kernel.batch(changes)) {
        match result {
            Ok(()) => servers.note(change),
            Err(error) => _ = failed.get_or_insert((change, error)),
        }
    }
    match failed {
        None => Ok(()),
        Some((Change::Add(_, server), error)) if error.not_found() => {
            Err(Error::NoScheduler { scheduler: server.scheduler.clone() })
        }
        Some((_, error)) => Err(error.into()),
    }
}

/// Leaves Services to another mode, which has replaced the tables: new connections go its way, and what an agent
/// of this one left goes when its connections have ended. Says whether all of it is gone.
pub fn retire() -> Result<bool, Error> {
    if Netlink::open()?.link(LINK)?.is_none() {
        return Ok(true);
    }
    match Ipvs::open(IpvsConfig::default()) {
        Ok(mut ipvs) => ipvs.withdraw(true),
        // Without virtual servers nobody has a connection.
        Err(Error::NoIpvs) => {
            let mut link = Link::open()?;
            link.read()?;
            link.delete().map(|()| true)
        }
        Err(error) => Err(error),
    }
}

fn open() -> Result<ipvs::Ipvs, Error> {
    ipvs::Ipvs::open().map_err(|error| if error.not_found() { Error::NoIpvs } else { error.into() })
}

fn families(plan: &ServicePlan) -> [bool; 2] {
    [false, true].map(|ipv6| sync::is_used(plan, ipv6))
}
