//! What is to be written, into etcd and of Node objects: a pure function of what both hold.
//!
//! Whoever wrote last says how a host is reached. Flannel writes a host's key; that is seen by the key's
//! revision and goes into the annotations of the host's Node. The host's agent writes the annotations with
//! our mark; that goes into the key.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;

use super::host::{self, Host, Patch};
use super::settings::Settings;
use super::text::{Attributes, Subnet};

/// A key is written anew when its lease has less left, as flannel does.
const MARGIN: Duration = Duration::from_secs(60 * 60);

/// A key of flannel's.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lease {
    pub(super) subnet: Subnet,
    pub(super) attributes: Result<Attributes, String>,
    pub(super) revision: i64,
    /// How long it lasts; nothing where it never ends or that was not asked.
    pub(super) left: Option<Duration>,
}

/// All that counts.
pub(super) struct Scene<'a> {
    /// Flannel's configuration, or why nothing new is to be made.
    pub(super) settings: &'a Result<Settings, String>,
    pub(super) hosts: &'a [Host],
    pub(super) leases: &'a [Lease],
}

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// The key, if it is as it was at the revision, with a new lease; revision 0 is for a new key.
    Put { subnet: Subnet, attributes: Attributes, revision: i64 },
    /// Deletes the key, if it is as it was at the revision.
    Delete { subnet: Subnet, revision: i64 },
    /// Changes a Node object.
    Patch(Patch),
    /// Makes the Node object of a host that runs flannel.
    Mirror(Value),
    /// Deletes such a Node object.
    Retire { name: String, uid: String },
}

/// The subnet's key that each host of ours has, if it has one: that of its pod CIDR, or of its address where
/// it has no pod CIDR yet.
pub(super) fn owned<'a>(hosts: &[Host], leases: &'a [Lease]) -> Vec<Option<&'a Lease>> {
    let by_cidr = |host: &Host| leases.iter().find(|lease| host.has(&lease.subnet));
    let taken = |lease: &Lease| hosts.iter().any(|host| !host.mirror && host.has(&lease.subnet));
    let at = |host: &Host, lease: &Lease| lease.attributes.as_ref().is_ok_and(|a| host.is_at(a));
    let by_address = |host: &Host| leases.iter().find(|lease| at(host, lease) && !taken(lease));
    let of = |host: &Host| match (host.mirror || host.leaving, host.cidrs.is_empty()) {
        (true, _) => None,
        (false, false) => by_cidr(host),
        (false, true) => by_address(host),
    };
    hosts.iter().map(of).collect()
}

/// What is to be written, in this order.
pub(super) fn plan(scene: &Scene<'_>, now: &str) -> Vec<Step> {
    let owned = owned(scene.hosts, scene.leases);
    let mut planner = Planner { scene, taken: taken(scene), steps: Vec::new(), now };
    for (host, lease) in scene.hosts.iter().zip(&owned) {
        if !host.mirror && !host.leaving {
            planner.host(host, *lease);
        }
    }
    planner.others(&owned);
    planner.steps
}

/// What no new subnet may overlap.
fn taken(scene: &Scene<'_>) -> Vec<IpNet> {
    let leased = scene.leases.iter().flat_map(|lease| lease.subnet.cidrs());
    scene.hosts.iter().flat_map(|host| host.cidrs.iter().copied()).chain(leased).collect()
}

struct Planner<'a> {
    scene: &'a Scene<'a>,
    taken: Vec<IpNet>,
    steps: Vec<Step>,
    now: &'a str,
}

impl Planner<'_> {
    /// What is to be done for a host of ours.
    fn host(&mut self, host: &Host, lease: Option<&Lease>) {
        let state = match lease {
            Some(lease) => self.keep(host, lease),
            None => match self.claim(host) {
                // Told when it is there.
                Ok(()) => return,
                Err(why) => Err(why),
            },
        };
        let state = match (state, self.scene.settings) {
            (Ok(_), Err(refused)) => Err(refused.clone()),
            (state, _) => state,
        };
        self.steps.extend(host.tell(&state, self.now).map(Step::Patch));
    }

    /// A key for a host that has none: that of its pod CIDR, or a free one.
    fn claim(&mut self, host: &Host) -> Result<(), String> {
        let settings = self.scene.settings.as_ref().map_err(Clone::clone)?;
        let attributes = host.told().or_else(|| host.silent());
        let attributes =
            attributes.ok_or("the Node has no InternalIP of IPv4, by which flannel tells hosts apart")?;
        let subnet = match host.subnet() {
            Some(subnet) if settings.fits(&subnet) => subnet,
            Some(subnet) => {
                return Err(format!(
                    "the Node's pod CIDR {subnet} is none of flannel's subnets: delete the Node and make it again, to get one"
                ));
            }
            None if host.cidrs.is_empty() => settings.free(&self.taken)?,
            None => return Err("the Node has no pod CIDR of IPv4, by which flannel names subnets".to_owned()),
        };
        self.taken.extend(subnet.cidrs());
        self.steps.push(Step::Put { subnet, attributes, revision: 0 });
        Ok(())
    }

    /// A host and its key are to say the same, and the key is to stay.
    fn keep(&mut self, host: &Host, lease: &Lease) -> Result<String, String> {
        let subnet = lease.subnet;
        let found = lease.attributes.as_ref().map_err(|error| format!("the key of {subnet}: {error}"))?;
        let put = |attributes| Step::Put { subnet, attributes, revision: lease.revision };
        if !found.by_weft() && !host.is_at(found) {
            return Err(format!(
                "{subnet} is leased to flannel at {}: delete the Node and make it again, to get another one",
                found.public_ip
            ));
        }
        if host.cidrs.is_empty() || (!found.by_weft() && !host.has_seen(lease.revision)) {
            self.steps.push(Step::Patch(host.take(&subnet, found, lease.revision)));
        } else if let Some(told) = host.told().filter(|told| told != found) {
            self.steps.push(Step::Put { subnet, attributes: told, revision: lease.revision });
        } else if lease.left.is_some_and(|left| left < MARGIN) {
            self.steps.push(put(found.clone()));
        }
        let other = self.scene.leases.iter().find(|other| {
            other.subnet != subnet && other.attributes.as_ref().is_ok_and(|a| !a.by_weft() && host.is_at(a))
        });
        match other {
            Some(other) => Err(format!(
                "flannel on this host leases {}, and the Node has {subnet}: end flannel there",
                other.subnet
            )),
            None => Ok(format!("{subnet} is leased")),
        }
    }

    /// Keys that no host of ours has, and the Node objects that stand for those hosts.
    fn others(&mut self, owned: &[Option<&Lease>]) {
        let mut wanted: BTreeMap<String, (&Lease, &Attributes)> = BTreeMap::new();
        let mut kept: Vec<String> = Vec::new();
        for lease in self.scene.leases {
            let name = host::mirror_name(&lease.subnet);
            let mut owners = self.scene.hosts.iter().zip(owned).filter(|(_, own)| **own == Some(lease));
            match (owners.next(), &lease.attributes) {
                // Until its own Node has the subnet, the other one stands for it.
                (Some((host, _)), _) if host.cidrs.is_empty() => kept.push(name),
                (Some(_), _) => {}
                (None, Err(_)) => kept.push(name),
                (None, Ok(attributes)) if attributes.by_weft() => {
                    self.steps.push(Step::Delete { subnet: lease.subnet, revision: lease.revision });
                }
                (None, Ok(attributes)) => {
                    let ours = |host: &&Host| !host.mirror && !host.leaving && host.is_at(attributes);
                    if !self.scene.hosts.iter().any(|host| ours(&host)) {
                        wanted.insert(name, (lease, attributes));
                    }
                }
            }
        }
        for host in self.scene.hosts.iter().filter(|host| host.mirror && !host.leaving) {
            match wanted.remove(&host.name) {
                Some((lease, attributes)) if lease.subnet.cidrs().eq(host.cidrs.iter().copied()) => {
                    self.steps.extend(host.follow(attributes).map(Step::Patch));
                }
                None if kept.contains(&host.name) => {}
                _ => self.steps.push(Step::Retire { name: host.name.clone(), uid: host.uid.clone() }),
            }
        }
        if self.scene.settings.is_ok() {
            let missing =
                wanted.into_values().map(|(lease, attributes)| host::mirror(&lease.subnet, attributes));
            self.steps.extend(missing.map(Step::Mirror));
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
