//! firewalld: containers' addresses are sources of one of its zones.

use ipnet::IpNet;

use crate::chained::firewall::bus::{Bus, Reply};
use crate::netfilter::missing;
use crate::protocol::error::{CniError, code};

const NAME: &str = "org.fedoraproject.FirewallD1";
const PATH: &str = "/org/fedoraproject/FirewallD1";
const ZONES: &str = "org.fedoraproject.FirewallD1.zone";
/// The zone has the address already.
const ALREADY: &str = "ZONE_ALREADY_SET";

/// A connection to it.
pub(super) struct Firewalld(Bus);

impl Firewalld {
    /// By the system bus, whether it runs or not.
    pub(super) fn connect() -> Result<Firewalld, CniError> {
        Bus::system()
            .map(Firewalld)
            .map_err(|e| CniError::new(code::IO, format!("firewalld: system bus: {e}")))
    }

    /// The same if it runs.
    pub(super) fn running() -> Option<Firewalld> {
        let mut bus = Bus::system().ok()?;
        let bus_name = "org.freedesktop.DBus";
        match bus.call(bus_name, "/org/freedesktop/DBus", bus_name, "GetNameOwner", &[NAME]).ok()? {
            Reply::Error(_) => None,
            Reply::Text(_) | Reply::Truth(_) | Reply::Other => Some(Firewalld(bus)),
        }
    }

    pub(super) fn add_source(&mut self, zone: &str, net: &IpNet) -> Result<(), CniError> {
        match self.ask("addSource", zone, net)? {
            Reply::Error(said) if !said.contains(ALREADY) => {
                let message = format!("firewalldZone: zone {zone:?} does not take {net}: {said}");
                Err(CniError::new(code::IO, message))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn remove_source(&mut self, zone: &str, net: &IpNet) -> Result<(), CniError> {
        self.ask("removeSource", zone, net).map(drop)
    }

    pub(super) fn check_source(&mut self, zone: &str, net: &IpNet) -> Result<(), CniError> {
        match self.ask("querySource", zone, net)? {
            Reply::Truth(true) => Ok(()),
            Reply::Error(said) => Err(missing(format!("firewalld zone {zone:?}: {said}"))),
            _ => Err(missing(format!("firewalld zone {zone:?} has no source {net}"))),
        }
    }

    fn ask(&mut self, method: &str, zone: &str, net: &IpNet) -> Result<Reply, CniError> {
        let source = net.to_string();
        self.0.call(NAME, PATH, ZONES, method, &[zone, &source]).map_err(|e| {
            CniError::new(code::IO, format!("firewalld: {method} {source} of zone {zone:?}: {e}"))
        })
    }
}
