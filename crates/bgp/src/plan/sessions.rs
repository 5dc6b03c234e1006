//! Who speaks with whom: routers that objects name, nodes that they choose, and all nodes with one another.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use weft_model::bgp::{self, BgpPeer, Passwords, Peering, SecretKey, Speaking};
use weft_model::{Cluster, Node};

use super::policies::Policies;
use crate::PerFamily;
use crate::session::PeerAs;
use crate::speaker::{Neighbour, Password, Remote, Ttl};

/// How far away a neighbour may be that nothing is said of.
const HOPS: u8 = 64;

/// A node's neighbours.
#[derive(Default)]
pub(super) struct Sessions {
    pub(super) neighbours: BTreeMap<Arc<str>, Neighbour>,
    pub(super) gateways: BTreeMap<IpAddr, IpAddr>,
    pub(super) secrets: BTreeSet<SecretKey>,
    pub(super) problems: BTreeSet<String>,
}

struct Room<'a> {
    cluster: &'a Cluster,
    me: &'a Node,
    speaking: &'a Speaking,
    policies: &'a Policies<'a>,
    passwords: &'a Passwords,
    found: Sessions,
    /// Whose session with an address it is.
    taken: BTreeMap<IpAddr, String>,
}

/// The neighbours of a node.
pub(super) fn sessions(
    cluster: &Cluster,
    me: &Node,
    speaking: &Speaking,
    policies: &Policies<'_>,
    passwords: &Passwords,
) -> Sessions {
    let (found, taken) = (Sessions::default(), BTreeMap::new());
    let mut room = Room { cluster, me, speaking, policies, passwords, found, taken };
    let mut peers: Vec<&BgpPeer> = cluster.bgp_peers.values().map(|peer| &**peer).collect();
    peers.sort_by(|a, b| (&a.created, &a.name).cmp(&(&b.created, &b.name)));
    let mut sound: Vec<(&BgpPeer, &Peering)> = Vec::new();
    for peer in peers {
        match &peer.spec {
            Ok(peering) => sound.push((peer, peering)),
            Err(why) => room.complain(peer, why),
        }
    }
    for (peer, peering) in &sound {
        room.router(peer, peering);
    }
    for (peer, peering) in &sound {
        room.nodes(peer, peering);
    }
    if speaking.mesh && me.bgp.cluster_id.is_none() {
        room.mesh();
    }
    room.found
}

/// What is agreed on for a session between nodes.
struct Terms<'a> {
    password: Option<&'a SecretKey>,
    restart_time: u16,
    filters: &'a [Arc<str>],
    ttl_security: Option<u8>,
    from_node_address: bool,
}

impl Room<'_> {
    fn complain(&mut self, peer: &BgpPeer, why: impl std::fmt::Display) {
        self.found.problems.insert(format!("BGPPeer {}: {why}", peer.name));
    }

    fn router(&mut self, peer: &BgpPeer, peering: &Peering) {
        let bgp::Remote::Router { ip, port, asn } = peering.with else { return };
        // An object for all nodes may name one of them.
        if !peering.of.have(self.me) || self.me.addresses.contains(&ip) {
            return;
        }
        if let Some(other) = self.taken.get(&ip) {
            let why = format!("the older BGPPeer {other} has the session with {ip}; this one is not used");
            return self.complain(peer, why);
        }
        let Some(local) = self.me.address_like(ip) else {
            let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            return self.complain(peer, format!("Node {} has no {family} address", self.me.name));
        };
        self.taken.insert(ip, peer.name.to_string());
        let asn = asn.unwrap_or_else(|| self.number(self.me));
        let external = asn != self.number(self.me);
        let (import, export) = match self.policies.router(&peering.filters, external) {
            Ok(policies) => policies,
            Err(why) => return self.complain(peer, why),
        };
        let Ok(password) = self.password(&format!("BGPPeer {}", peer.name), peering.password.as_ref()) else {
            return;
        };
        self.found.gateways.extend(peering.reachable_by.map(|gateway| (ip, gateway)));
        let neighbour = Neighbour {
            local_address: peering.from_node_address.then_some(local),
            ttl: ttl(peering.ttl_security),
            password,
            families: PerFamily { ipv4: ip.is_ipv4(), ipv6: ip.is_ipv6() },
            graceful_restart: restart(peering.restart_time),
            reflector_client: self.me.bgp.cluster_id.is_some() && !external,
            import,
            export,
            next_hop_self: true,
            keep_next_hop: peering.keep_next_hop,
            own_as: peering.allowed_own_as.into(),
            ..Neighbour::new(Remote::Address { ip, port }, PeerAs::Is(asn))
        };
        self.found.neighbours.insert(format!("router/{}", peer.name).into(), neighbour);
    }

    /// Sessions with nodes that an object chooses, from either end.
    fn nodes(&mut self, peer: &BgpPeer, peering: &Peering) {
        let bgp::Remote::Nodes(selector) = &peering.with else { return };
        let (is_of, is_with) = (peering.of.have(self.me), selector.matches(&self.me.labels));
        if !is_of && !is_with {
            return;
        }
        let who = format!("BGPPeer {}", peer.name);
        let terms = Terms {
            password: peering.password.as_ref(),
            restart_time: peering.restart_time,
            filters: &peering.filters,
            ttl_security: peering.ttl_security,
            from_node_address: peering.from_node_address,
        };
        let cluster = self.cluster;
        for other in cluster.nodes.values() {
            if is_of && selector.matches(&other.labels) || is_with && peering.of.have(other) {
                self.node(&who, other, &terms);
            }
        }
    }

    fn mesh(&mut self) {
        let speaking = self.speaking;
        let terms = Terms {
            password: speaking.mesh_password.as_ref(),
            restart_time: speaking.mesh_restart_time,
            filters: &[],
            ttl_security: None,
            from_node_address: true,
        };
        let cluster = self.cluster;
        for other in cluster.nodes.values().filter(|other| other.bgp.cluster_id.is_none()) {
            self.node("the mesh of nodes", other, &terms);
        }
    }

    /// A session with a node, unless an older object has it.
    fn node(&mut self, who: &str, other: &Node, terms: &Terms<'_>) {
        let name: Arc<str> = format!("node/{}", other.name).into();
        if other.name == self.me.name || self.found.neighbours.contains_key(&name) {
            return;
        }
        let pair = |ipv4| Some((super::own(self.me, ipv4)?, super::own(other, ipv4)?));
        let Some((local, ip)) = pair(true).or_else(|| pair(false)) else {
            let (me, other) = (&self.me.name, &other.name);
            let why = format!("Nodes {me} and {other} have no addresses of one family: no session");
            self.found.problems.insert(why);
            return;
        };
        if self.taken.contains_key(&ip) {
            return;
        }
        let (import, export) = match self.policies.node(terms.filters) {
            Ok(policies) => policies,
            Err(why) => {
                self.found.problems.insert(format!("{who}: {why}"));
                return;
            }
        };
        let Ok(password) = self.password(who, terms.password) else { return };
        self.taken.insert(ip, who.to_owned());
        let asn = self.number(other);
        let clusters = (self.me.bgp.cluster_id, other.bgp.cluster_id);
        let neighbour = Neighbour {
            local_address: terms.from_node_address.then_some(local),
            // One of both dials, so that there are not two connections at first.
            passive: local < ip,
            ttl: ttl(terms.ttl_security),
            password,
            // IPv4 goes over IPv6 (RFC 8950), not the other way round.
            families: PerFamily { ipv4: true, ipv6: pair(false).is_some() },
            graceful_restart: restart(terms.restart_time),
            // Reflectors of one cluster have the same clients.
            reflector_client: clusters.0.is_some() && clusters.0 != clusters.1 && asn == self.number(self.me),
            import,
            export,
            next_hop_self: true,
            ..Neighbour::new(Remote::Address { ip, port: self.speaking.port }, PeerAs::Is(asn))
        };
        self.found.neighbours.insert(name, neighbour);
    }

    fn number(&self, node: &Node) -> u32 {
        node.bgp.as_number.unwrap_or(self.speaking.as_number)
    }

    /// The password, if one is wanted. Without it there is no session.
    fn password(&mut self, who: &str, key: Option<&SecretKey>) -> Result<Option<Password>, ()> {
        let Some(key) = key else { return Ok(None) };
        self.found.secrets.insert(key.clone());
        let why = match self.passwords.get(key).map(|text| Password::new(text)) {
            Some(Some(password)) => return Ok(Some(password)),
            Some(None) => "is empty or too long",
            None => "is not known",
        };
        self.found.problems.insert(format!("{who}: {key} {why}: no session"));
        Err(())
    }
}

fn ttl(security: Option<u8>) -> Ttl {
    security.map_or(Ttl::Hops(HOPS), Ttl::Security)
}

fn restart(seconds: u16) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds.into()))
}
