//! The userspace proxy as a plan wants it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use weft_kernel::conntrack::forget_flows;
use weft_kernel::nft::{Family, Nft, NftEvent, Transaction};
use weft_kernel::{Netlink, Op, Route, TABLE_LOCAL};
use weft_model::mark;
use weft_model::service::Protocol;

use super::tables::{Lead, Tables, own};
use super::{Counters, Limits, ListenerId, Proxy, Target, Transport, UDP_IDLE};
use crate::nftables::TABLE;
use crate::{Backend, Changed, Choice, Error, Frontend, FrontendKey, Place, Policy, ServicePlan};

/// RTN_LOCAL, RT_SCOPE_HOST, and the index of the loopback interface.
const LOCAL: u8 = 2;
const HOST: u8 = 254;
const LOOPBACK: u32 = 1;

/// Services forwarded by this process. When it is dropped, connections end; what leads to it stays until
/// [`remove`](Userspace::remove).
#[derive(Debug)]
pub struct Userspace {
    proxy: Proxy,
    netlink: Netlink,
    /// Leads clients to the proxy's own ports; without it the proxy listens on the frontends' addresses.
    nft: Option<Nft>,
    served: BTreeMap<FrontendKey, Served>,
    /// Frontends that could not be listened for.
    failed: BTreeSet<FrontendKey>,
    tables: Tables,
    /// Whether the kernel's tables and routes are as those here say.
    known: bool,
    /// Whether connections of TCP end with their endpoint.
    resets: bool,
}

#[derive(Debug)]
struct Served {
    /// Where it is wanted to listen, with a port 0 of the kernel's choice, and where it does.
    at: Vec<SocketAddr>,
    listeners: Vec<(ListenerId, SocketAddr)>,
    target: Target,
}

impl Userspace {
    /// Starts the proxy in the calling thread's network namespace, with nftables where the kernel has it.
    pub fn open() -> Result<Userspace, Error> {
        let mut nft = Nft::open().ok();
        if nft.as_mut().is_some_and(|nft| nft.tables().is_err()) {
            nft = None;
        }
        Userspace::start(nft)
    }

    /// Starts it without nftables: it listens on the frontends' own addresses, which become the node's.
    pub fn open_without_netfilter() -> Result<Userspace, Error> {
        Userspace::start(None)
    }

    fn start(nft: Option<Nft>) -> Result<Userspace, Error> {
        Ok(Userspace {
            proxy: Proxy::start(Limits::default(), UDP_IDLE)?,
            resets: false,
            netlink: Netlink::open()?,
            nft,
            served: BTreeMap::new(),
            failed: BTreeSet::new(),
            tables: Tables::default(),
            known: false,
        })
    }

    /// Whether clients of TCP are reset when their endpoint is none any more.
    pub fn reset_removed(&mut self, resets: bool) {
        self.resets = resets;
        self.proxy.reset_removed(resets);
    }

    /// Serves what is planned; `changed` is all that changed since the last call that succeeded. Says how many
    /// elements, chains, sets and routes were written.
    pub fn apply(&mut self, plan: &ServicePlan, changed: &Changed) -> Result<usize, Error> {
        if !self.proxy.alive() {
            tracing::error!("a thread of the userspace proxy ended: it is started anew");
            self.proxy = Proxy::start(Limits::default(), UDP_IDLE)?;
            self.proxy.reset_removed(self.resets);
            self.served.clear();
            self.known = false;
        }
        let everything = !self.known || changed.rest;
        let mut keys = std::mem::take(&mut self.failed);
        if everything {
            keys.extend(plan.frontends.keys().chain(self.served.keys()).chain(self.tables.leads.keys()));
        } else {
            keys.extend(&changed.frontends);
        }
        let mut tables = self.tables.clone();
        tables.cluster_ips = plan.cluster_ips.keys().copied().collect();
        tables.node_addresses = plan.node_addresses.clone();
        let mut writes = self.route(plan)?;
        let own = self.own_addresses()?;
        for key in keys {
            match plan.frontends.get(&key).map(|frontend| self.serve(plan, &own, key, frontend)) {
                Some(lead) => _ = tables.leads.insert(key, lead),
                None => {
                    tables.leads.remove(&key);
                    self.close(&key);
                }
            }
        }
        if let Some(nft) = &mut self.nft {
            let advanced = self.known.then(|| {
                let mut transaction = Transaction::default();
                let count = tables.change(&mut transaction, &self.tables);
                if count == 0 { Ok(0) } else { nft.apply(&transaction).map(|()| count) }
            });
            self.known = false;
            writes += match advanced {
                Some(Ok(count)) => count,
                // Another program was faster than its event.
                Some(Err(_)) | None => tables.replace(nft)?,
            };
            if tables.datagrams() != self.tables.datagrams() || everything {
                forget(&tables.datagrams())?;
            }
        }
        self.tables = tables;
        self.known = true;
        Ok(writes)
    }

    /// Has the next [`apply`](Userspace::apply) look at what there is if the event tells of another's change of
    /// a table of ours; says whether it does.
    pub fn notice(&mut self, event: &NftEvent) -> bool {
        let Some(nft) = &self.nft else { return false };
        let other = event.is_anothers(TABLE, Some(nft.port()));
        self.known &= !other;
        other
    }

    /// Has the next [`apply`](Userspace::apply) look at what there is.
    pub fn distrust(&mut self) {
        self.known = false;
    }

    /// Stops serving, and removes what leads here. Connections stay until this is dropped.
    pub fn remove(&mut self) -> Result<(), Error> {
        self.distrust();
        self.apply(&ServicePlan::default(), &Changed::default()).map(|_| ())
    }

    /// What the proxy did so far.
    pub fn counters(&self) -> Counters {
        self.proxy.counters()
    }

    /// Listens for a frontend, and says where its clients are to be led.
    fn serve(
        &mut self,
        plan: &ServicePlan,
        own: &[IpAddr],
        key: FrontendKey,
        frontend: &Arc<Frontend>,
    ) -> Lead {
        let transport = match key.protocol {
            Protocol::Tcp => Transport::Tcp,
            Protocol::Udp => Transport::Udp,
            // A process cannot hand on an association.
            Protocol::Sctp => return Lead::Refuse,
        };
        let Some(target) = target(plan, own, frontend) else {
            self.close(&key);
            return if frontend.all == Choice::Drop { Lead::Drop } else { Lead::Refuse };
        };
        let at = self.places(plan, own, &key);
        if let Some(served) = self.served.get_mut(&key).filter(|served| served.at == at) {
            if served.target != target {
                served.listeners.iter().for_each(|(id, _)| self.proxy.set_target(*id, &target));
                served.target = target;
            }
        } else {
            self.close(&key);
            let mut listeners = Vec::new();
            for address in &at {
                match self.proxy.listen(transport, *address, &target) {
                    Ok(listener) => listeners.push(listener),
                    Err(error) => {
                        let error = std::error::Error::source(&error)
                            .map_or(error.to_string(), |source| format!("{error}: {source}"));
                        tracing::warn!(service = %frontend.service, %error, "a Service is not served");
                        self.failed.insert(key);
                    }
                }
            }
            let at = if listeners.len() == at.len() { at } else { vec![] };
            self.served.insert(key, Served { at, listeners, target });
        }
        let listeners = self.served.get(&key).map(|served| &served.listeners[..]).unwrap_or_default();
        listeners.first().map_or(Lead::Refuse, |(_, at)| Lead::To(*at))
    }

    fn close(&mut self, key: &FrontendKey) {
        for (id, _) in self.served.remove(key).into_iter().flat_map(|served| served.listeners) {
            self.proxy.close(id);
        }
    }

    /// Where to listen for a frontend.
    fn places(&self, plan: &ServicePlan, own_addresses: &[IpAddr], key: &FrontendKey) -> Vec<SocketAddr> {
        if self.nft.is_some() {
            return vec![SocketAddr::new(own(key.place.is_ipv6()), 0)];
        }
        let serves = |ip: &&IpAddr| plan.node_addresses.iter().any(|net| net.contains(*ip));
        match key.place {
            Place::Address(ip) => vec![SocketAddr::new(ip, key.port)],
            Place::NodePort { ipv6 } => {
                let of_family = own_addresses.iter().filter(|ip| ip.is_ipv6() == ipv6);
                of_family.filter(serves).map(|ip| SocketAddr::new(*ip, key.port)).collect()
            }
        }
    }

    /// The node's addresses, those apart that the proxy made so.
    fn own_addresses(&mut self) -> Result<Vec<IpAddr>, Error> {
        Ok(self.netlink.addresses()?.iter().map(|address| address.net.addr()).collect())
    }

    /// Makes the addresses that are listened on the node's, by routes of kind local, and no others that
    /// were. One that is the node's anyway stays as it is.
    fn route(&mut self, plan: &ServicePlan) -> Result<usize, Error> {
        let mut wanted: BTreeSet<IpAddr> = BTreeSet::new();
        let places = plan.frontends.keys().map(|key| key.place);
        if self.nft.is_some() {
            wanted.extend(places.map(|place| own(place.is_ipv6())));
        } else {
            let address = |place| if let Place::Address(ip) = place { Some(ip) } else { None };
            wanted.extend(places.filter_map(address).chain(plan.cluster_ips.keys().copied()));
        }
        let routes = self.netlink.routes()?;
        let local = routes.iter().filter(|route| route.table == TABLE_LOCAL && is_host(&route.dst));
        let (ours, others): (Vec<&Route>, Vec<&Route>) =
            local.partition(|route| route.protocol == mark::SERVICE_ROUTE_PROTOCOL);
        let gone = ours.iter().filter(|route| !wanted.contains(&route.dst.addr()));
        let mut ops: Vec<Op> = gone.map(|route| Op::RouteDel((*route).clone())).collect();
        for route in ours.iter().chain(&others) {
            wanted.remove(&route.dst.addr());
        }
        ops.extend(wanted.into_iter().map(|ip| Op::RouteAdd(local_route(ip))));
        for result in self.netlink.batch(&ops) {
            result?;
        }
        Ok(ops.len())
    }
}

/// Forgets flows of UDP that lead to a port of the proxy's that is none any more: a client that does not
/// pause would be led there for ever.
fn forget(ports: &BTreeSet<SocketAddr>) -> Result<(), Error> {
    for (family, ipv6) in [(Family::Ip, false), (Family::Ip6, true)] {
        let stale = |_, from: SocketAddr| from.ip() == own(ipv6) && !ports.contains(&from);
        forget_flows(family, Protocol::Udp.number(), None, &stale)?;
    }
    Ok(())
}

/// Removes the routes that a process before made to its own listeners, in the calling thread's network namespace.
pub fn remove_routes() -> Result<(), Error> {
    let mut netlink = Netlink::open()?;
    let routes = netlink.routes()?.into_iter().filter(|route| {
        route.table == TABLE_LOCAL
            && route.protocol == mark::SERVICE_ROUTE_PROTOCOL
            && route.oif == Some(LOOPBACK)
    });
    let ops: Vec<Op> = routes.map(Op::RouteDel).collect();
    for result in netlink.batch(&ops) {
        result?;
    }
    Ok(())
}

fn is_host(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

fn local_route(ip: IpAddr) -> Route {
    Route {
        oif: Some(LOOPBACK),
        table: TABLE_LOCAL,
        protocol: mark::SERVICE_ROUTE_PROTOCOL,
        scope: if ip.is_ipv4() { HOST } else { 0 },
        kind: LOCAL,
        ..Route::new(IpNet::from(ip))
    }
}

/// Where the clients of a frontend go; `None` where there is nowhere.
fn target(plan: &ServicePlan, own: &[IpAddr], frontend: &Frontend) -> Option<Target> {
    let addresses = |list: &[Backend]| list.iter().map(|backend| backend.address).collect::<Vec<_>>();
    let all = addresses(frontend.all.backends());
    let outside = (frontend.policy == Policy::Local).then(|| addresses(frontend.local.backends()));
    if all.is_empty() && outside.as_ref().is_none_or(Vec::is_empty) {
        return None;
    }
    let inside = || plan.pods.iter().copied().chain(own.iter().map(|ip| IpNet::from(*ip))).collect();
    Some(Target {
        all,
        inside: if outside.is_some() { inside() } else { Arc::new([]) },
        outside,
        affinity: frontend.affinity.map(|seconds| Duration::from_secs(seconds.into())),
        sources: frontend.sources.clone(),
    })
}
