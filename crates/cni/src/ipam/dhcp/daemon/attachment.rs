//! An attachment: the leases of one interface of one pod.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use ipnet::{IpNet, Ipv6Net};
use serde_json::{Map, Value};
use weft_ipam::dhcp::{Settings, v4, v6};

use crate::ipam::dhcp::daemon::flags::Flags;
use crate::ipam::dhcp::daemon::place::{Place, PlaceError};
use crate::ipam::dhcp::daemon::v4::V4;
use crate::ipam::dhcp::daemon::v6::V6;
use crate::ipam::dhcp::options::{self, Profile};
use crate::protocol::config::Dns;
use crate::protocol::result::{CniResult, Ip, Route};

/// RFC 2131 §4.1.
const FIRST_WAIT: Duration = Duration::from_secs(4);
/// The scope of a route whose destination is on the link.
const SCOPE_LINK: u8 = 253;

/// Who an attachment is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) container_id: String,
    pub(crate) network: String,
    pub(crate) ifname: String,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.container_id, self.network, self.ifname)
    }
}

/// What an attachment was made of, for a daemon that is started again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    /// CNI_ARGS.
    pub(crate) args: String,
    /// `ipam` of the configuration.
    pub(crate) ipam: Map<String, Value>,
}

/// What becomes of an ADD.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Leased(Box<CniResult>),
    Waiting,
}

/// The clients of one interface, in its place.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) key: Key,
    pub(crate) place: Place,
    pub(crate) origin: Origin,
    profile: Profile,
    pub(crate) v4: Option<V4>,
    pub(crate) v6: Option<V6>,
    /// What the interface has because of an ADD that was answered, or of a lease after it.
    pub(crate) on_link: Vec<IpNet>,
    /// An ADD was answered, so the leases are kept on disk and the interface follows them.
    pub(crate) acknowledged: bool,
    /// The leases are not on disk as they are.
    pub(crate) dirty: bool,
    /// The leases are being given back, at the latest until then.
    pub(crate) leaving: Option<Duration>,
}

impl Attachment {
    /// Clients that do nothing yet.
    pub(crate) fn new(
        key: Key,
        origin: Origin,
        place: Place,
        profile: Profile,
        flags: &Flags,
        seed: u64,
    ) -> Attachment {
        let v4 = profile.v4.clone().map(|(requested, provided)| {
            let config = v4::Config {
                mac: place.mac(),
                provided,
                requested,
                broadcast: flags.broadcast,
                first_wait: FIRST_WAIT.min(flags.timeout),
                longest_wait: flags.resend_max,
            };
            V4::new(v4::Client::new(config, seed))
        });
        let v6 = profile.v6.map(|_| {
            let (duid, iaid) = profile.duid.clone();
            let requested = vec![v6::option::DNS, v6::option::SEARCH, v6::option::NTP];
            V6::new(v6::Client::new(v6::Config { duid, iaid, requested, rapid_commit: true }, seed ^ 1))
        });
        Attachment {
            key,
            place,
            origin,
            profile,
            v4,
            v6,
            on_link: Vec::new(),
            acknowledged: false,
            dirty: false,
            leaving: None,
        }
    }

    /// Looks for leases.
    pub(crate) fn start(&mut self, now: Duration) {
        if let Some(v4) = &mut self.v4 {
            v4.client.start(now);
        }
        match (&mut self.v6, self.profile.v6) {
            (Some(v6), Some(options::V6::Stateless)) => v6.client.inform(now),
            (Some(v6), _) => v6.client.start(now),
            (None, _) => {}
        }
    }

    /// Goes on after a restart of the daemon.
    pub(crate) fn resume(&mut self, leases: (Option<v4::Lease>, Option<v6::Lease>), now: Duration) {
        self.acknowledged = true;
        self.start(now);
        if let Some((v4, lease)) = self.v4.as_mut().zip(leases.0) {
            self.on_link.push(lease.address.into());
            v4.client.resume(lease, now);
        }
        if let Some((v6, lease)) = self.v6.as_mut().zip(leases.1) {
            self.on_link.push(Ipv6Net::from(lease.address).into());
            v6.client.resume(lease, now);
        }
    }

    /// Lets time pass. An error is that the interface is gone.
    pub(crate) fn drive(&mut self, now: Duration) -> Result<(), PlaceError> {
        let events = self.v4.as_mut().map(|v4| v4.drive(&self.place, now)).transpose()?;
        for event in events.into_iter().flatten() {
            self.on_v4(event);
        }
        let events = self.v6.as_mut().map(|v6| v6.drive(&self.place, now)).transpose()?;
        for event in events.into_iter().flatten() {
            self.on_v6(event, now);
        }
        Ok(())
    }

    fn on_v4(&mut self, event: v4::Event) {
        match event {
            v4::Event::Bound(lease) => {
                let settings = lease.settings();
                self.bound(
                    lease.address.into(),
                    &settings,
                    lease.expiry.map(|at| at.saturating_sub(lease.acquired)),
                );
            }
            v4::Event::Lost(address, why) => self.lost(address.into(), &why),
            v4::Event::PassedOver(fault) => self.passed_over(fault.to_string(), true),
        }
    }

    fn on_v6(&mut self, event: v6::Event, now: Duration) {
        match event {
            v6::Event::Bound(lease) => {
                let fresh = self.acknowledged && !self.on_link.contains(&Ipv6Net::from(lease.address).into());
                let length = lease.expiry.map(|at| at.saturating_sub(lease.acquired));
                self.bound(Ipv6Net::from(lease.address).into(), &lease.settings(), length);
                if let Some(v6) = self.v6.as_mut().filter(|_| fresh) {
                    v6.begin_detection(now);
                }
            }
            v6::Event::Lost(address, why) => self.lost(address.into(), &why),
            v6::Event::PassedOver(fault) => self.passed_over(fault.to_string(), false),
            v6::Event::Informed(options) => {
                if let Some(v6) = &mut self.v6 {
                    v6.informed = Some(options);
                }
            }
            v6::Event::Released => {}
        }
    }

    fn bound(&mut self, address: IpNet, settings: &Settings, length: Option<Duration>) {
        let length =
            length.map_or_else(|| "without end".to_owned(), |length| format!("for {} s", length.as_secs()));
        eprintln!("{}: lease of {address} {length}", self.key);
        self.dirty = true;
        if !self.acknowledged || self.on_link.contains(&address) {
            return;
        }
        eprintln!("{}: the address is {address} from now on", self.key);
        match self.place.put(address, settings, self.profile.priority.unwrap_or(0)) {
            Ok(()) => self.on_link.push(address),
            Err(error) => eprintln!("{}: {address} cannot be used: {error}", self.key),
        }
    }

    fn lost(&mut self, address: IpAddr, why: &dyn std::fmt::Debug) {
        eprintln!("{}: {address} may not be used any longer: {why:?}", self.key);
        self.dirty = true;
        for net in self.on_link.extract_if(.., |net| net.addr() == address) {
            if let Err(error) = self.place.take(net) {
                eprintln!("{}: {net} cannot be taken away: {error}", self.key);
            }
        }
    }

    fn passed_over(&mut self, fault: String, is_v4: bool) {
        let fault = Some(format!("a server's offer is of no use: {fault}"));
        match (&mut self.v4, &mut self.v6) {
            (Some(v4), _) if is_v4 => v4.fault = fault,
            (_, Some(v6)) => v6.fault = fault,
            _ => {}
        }
    }

    /// What the ADD answers, once every family has what was asked for.
    pub(crate) fn outcome(&self) -> Outcome {
        let mut result = CniResult::default();
        if let Some(v4) = &self.v4 {
            // While the address is probed it is not ours yet.
            let Some(lease) = v4.lease().filter(|_| v4.client.is_bound()) else { return Outcome::Waiting };
            let settings = lease.settings();
            let gateway = settings.routers.first().copied();
            result.ips.push(Ip { address: lease.address.into(), gateway, interface: None });
            result.routes = self.routes(&settings);
            describe(&settings, &mut result.dns);
        }
        if let Some(v6) = &self.v6 {
            let Some(settings) = v6.settings() else { return Outcome::Waiting };
            if let Some(lease) = v6.lease() {
                let address = Ipv6Net::from(lease.address).into();
                result.ips.push(Ip { address, gateway: None, interface: None });
            }
            describe(&settings, &mut result.dns);
        }
        Outcome::Leased(Box::new(result))
    }

    fn routes(&self, settings: &Settings) -> Vec<Route> {
        let route = |route: &weft_ipam::dhcp::StaticRoute| Route {
            dst: route.destination,
            gw: Some(route.gateway),
            mtu: settings.mtu.map(u32::from),
            advmss: None,
            priority: self.profile.priority,
            table: None,
            scope: route.gateway.is_unspecified().then_some(SCOPE_LINK),
        };
        settings.routes.iter().map(route).collect()
    }

    /// The ADD was answered: the interface has what the leases say.
    pub(crate) fn acknowledge(&mut self, now: Duration) {
        let v4 = self.v4.as_ref().and_then(V4::lease).map(|lease| lease.address.into());
        let v6 = self.v6.as_ref().and_then(V6::lease).map(|lease| Ipv6Net::from(lease.address).into());
        if let Some(client) = self.v6.as_mut().filter(|_| v6.is_some() && !self.acknowledged) {
            client.begin_detection(now);
        }
        self.on_link = [v4, v6].into_iter().flatten().collect();
        self.acknowledged = true;
    }

    /// Why there is no lease.
    pub(crate) fn fault(&self) -> String {
        let v4 = self.v4.as_ref().filter(|v4| !v4.client.is_bound()).map(|v4| ("IPv4", v4.fault.clone()));
        let v6 = self.v6.as_ref().filter(|v6| v6.settings().is_none()).map(|v6| ("IPv6", v6.fault.clone()));
        let faults = [v4, v6].into_iter().flatten();
        let text = |(family, fault): (&str, Option<String>)| {
            format!("{family}: {}", fault.unwrap_or_else(|| "no server answers".to_owned()))
        };
        faults.map(text).collect::<Vec<_>>().join("; ")
    }

    /// Gives the leases back; [`Attachment::has_left`] once the servers know.
    pub(crate) fn leave(&mut self, now: Duration, until: Duration) {
        self.leaving = Some(until);
        if let Some(v4) = &mut self.v4 {
            v4.client.release(now);
        }
        if let Some(v6) = &mut self.v6 {
            v6.client.release(now);
        }
    }

    pub(crate) fn has_left(&self, now: Duration) -> bool {
        let v6_waits = self.v6.as_ref().is_some_and(|v6| v6.client.listens());
        self.leaving.is_some_and(|until| now >= until || !v6_waits)
    }

    /// When [`Attachment::drive`] is to be called.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        let v4 = self.v4.as_ref().and_then(V4::timeout);
        let v6 = self.v6.as_ref().and_then(V6::timeout);
        v4.into_iter().chain(v6).chain(self.leaving).min()
    }

    /// What is to be polled.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.v4.iter().flat_map(V4::sockets).chain(self.v6.iter().flat_map(V6::sockets))
    }

    /// Takes in what the sockets have.
    pub(crate) fn receive(&mut self, now: Duration) {
        if let Some(v4) = &mut self.v4 {
            v4.receive(&self.place, now);
        }
        if let Some(v6) = &mut self.v6 {
            v6.receive(now);
        }
    }
}

fn describe(settings: &Settings, dns: &mut Dns) {
    dns.nameservers.extend(settings.dns_servers.iter().map(IpAddr::to_string));
    dns.search.extend(settings.search.iter().cloned());
    if dns.domain.is_none() {
        dns.domain = settings.domain.clone();
    }
}
