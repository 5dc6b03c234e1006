mod best;
mod groups;
mod properties;
mod reflection;
mod restarts;

use std::collections::BTreeMap;

use super::*;
use crate::message::{self, AsPath, Capabilities, Message, Nlri, Open, Relation};
use crate::policy;

/// Our AS.
const OURS: u32 = 65000;

fn config() -> Config {
    Config {
        asn: OURS,
        confederation: None,
        id: Ipv4Addr::new(10, 0, 0, 100),
        cluster: None,
        addresses: [IpAddr::from([10, 0, 0, 100])].into(),
    }
}

fn net(prefix: &str) -> IpNet {
    prefix.parse().unwrap()
}

fn terms(number: u8, relation: Relation) -> Negotiated {
    let open = |asn, number| Open {
        asn,
        hold: 90,
        id: Ipv4Addr::new(10, 0, 0, number),
        capabilities: Capabilities {
            families: Some(PerFamily { ipv4: true, ipv6: true }),
            four_octet_as: Some(asn),
            route_refresh: true,
            enhanced_refresh: true,
            ..Capabilities::default()
        },
    };
    let theirs = if relation == Relation::Internal { OURS } else { OURS + u32::from(number) };
    Negotiated::new(&open(OURS, 100), &open(theirs, number), relation)
}

/// A route as that peer tells it.
fn route(number: u8, relation: Relation) -> Attributes {
    let mut attributes = Attributes::new(NextHop::V4(Ipv4Addr::new(10, 0, 0, number)));
    if relation != Relation::Internal {
        attributes.as_path = AsPath::sequence(&[OURS + u32::from(number)]);
    }
    attributes
}

/// A RIB and what its peers believe, by what they were sent.
struct World {
    rib: Rib,
    peers: Vec<Seen>,
}

/// A peer's view.
struct Seen {
    id: PeerId,
    terms: Negotiated,
    routes: BTreeMap<Nlri, Attributes>,
    messages: usize,
    ends: Vec<Family>,
    marks: Vec<(Family, RefreshKind)>,
}

impl World {
    fn new() -> World {
        World { rib: Rib::new(config()), peers: Vec::new() }
    }

    /// A peer that is up; of another AS with policies that take all.
    fn peer(&mut self, relation: Relation, change: impl FnOnce(&mut Peer, &mut Negotiated)) -> usize {
        let number = self.peers.len() as u8 + 1;
        let mut peer = Peer::new(IpAddr::from([10, 0, 0, number]));
        let mut terms = terms(number, relation);
        if relation == Relation::External {
            peer.import = Some(Arc::new(policy::Policy::accept()));
            peer.export = peer.import.clone();
            peer.next_hop.ipv4 = Some(NextHop::V4(Ipv4Addr::new(10, 0, 0, 100)));
        }
        change(&mut peer, &mut terms);
        let id = self.rib.add_peer(peer);
        self.rib.up(id, &terms);
        let seen =
            Seen { id, terms, routes: BTreeMap::new(), messages: 0, ends: Vec::new(), marks: Vec::new() };
        self.peers.push(seen);
        self.drain();
        usize::from(number) - 1
    }

    fn bytes(&mut self, from: usize, bytes: &[u8]) -> Result<(), TooMany> {
        let Seen { id, terms, .. } = &self.peers[from];
        let mut rest = bytes;
        while let Some(frame) = message::frame(rest, false).unwrap() {
            rest = &rest[frame.length()..];
            match Message::decode(&frame, Some(terms)).unwrap() {
                Message::Update(update) => self.rib.handle_update(*id, update)?,
                Message::Refresh(Some((family, kind))) => self.rib.handle_refresh(*id, family, kind),
                other => panic!("{other:?}"),
            }
        }
        Ok(())
    }

    /// A peer announces a route, numbered.
    fn announce_path(
        &mut self,
        from: usize,
        prefix: &str,
        path: u32,
        attributes: &Attributes,
    ) -> Result<(), TooMany> {
        let mut bytes = Vec::new();
        let prefix = net(prefix);
        // As the peer writes what we read.
        let terms =
            Negotiated { add_path_out: self.peers[from].terms.add_path_in, ..self.peers[from].terms.clone() };
        message::announce(&mut bytes, &terms, attributes, Family::of(&prefix), [Nlri { prefix, path }])
            .unwrap();
        self.bytes(from, &bytes)
    }

    fn announce(&mut self, from: usize, prefix: &str, attributes: &Attributes) {
        self.announce_path(from, prefix, 0, attributes).unwrap();
    }

    fn withdraw(&mut self, from: usize, prefix: &str, path: u32) {
        let mut bytes = Vec::new();
        let prefix = net(prefix);
        let terms =
            Negotiated { add_path_out: self.peers[from].terms.add_path_in, ..self.peers[from].terms.clone() };
        message::withdraw(&mut bytes, &terms, Family::of(&prefix), [Nlri { prefix, path }]);
        self.bytes(from, &bytes).unwrap();
    }

    /// Decides everything, and lets all peers read.
    fn drain(&mut self) {
        while self.rib.flush(3).more {}
        for peer in 0..self.peers.len() {
            self.read(peer);
        }
    }

    /// A peer reads all that there is for it.
    fn read(&mut self, peer: usize) {
        while self.read_one(peer) {}
    }

    fn read_one(&mut self, peer: usize) -> bool {
        let seen = &mut self.peers[peer];
        let Some(bytes) = self.rib.poll_transmit(seen.id) else { return false };
        let terms = Negotiated { add_path_in: seen.terms.add_path_out, ..seen.terms.clone() };
        let mut rest = &bytes[..];
        while let Some(frame) = message::frame(rest, terms.extended_messages).unwrap() {
            rest = &rest[frame.length()..];
            seen.messages += 1;
            match Message::decode(&frame, Some(&terms)).unwrap() {
                Message::Update(update) => {
                    assert!(
                        update.malformed.iter().all(|m| m.action == message::Action::Discard),
                        "{:?}",
                        update.malformed
                    );
                    seen.ends.extend(update.end_of_rib);
                    for nlri in update.withdrawn().flat_map(|list| list.iter()) {
                        seen.routes.remove(&nlri);
                    }
                    for (attributes, list) in update.into_announced() {
                        seen.routes.extend(list.iter().map(|nlri| (nlri, attributes.clone())));
                    }
                }
                Message::Refresh(Some(mark)) => seen.marks.push(mark),
                other => panic!("{other:?}"),
            }
        }
        true
    }

    /// What a peer believes of a prefix.
    fn sees(&self, peer: usize, prefix: &str) -> Option<&Attributes> {
        self.peers[peer].routes.get(&Nlri { prefix: net(prefix), path: 0 })
    }

    /// The peer of the best path to a prefix, by its index.
    fn best(&self, prefix: &str) -> Option<usize> {
        let paths = self.rib.explain(&net(prefix));
        let (path, _) = paths.iter().find(|(_, verdict)| *verdict == Verdict::Best)?;
        self.peers.iter().position(|peer| peer.id == path.peer)
    }
}
