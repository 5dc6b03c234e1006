//! What a whole cluster ends with: every node's plan in a RIB, and all that they tell one another as bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::IpNet;
use proptest::prelude::*;
use weft_model::bgp::NodeBgp;

use super::*;
use crate::PerFamily;
use crate::message::{self, Capabilities, LargeCommunity, Message, Negotiated, Open, Relation};
use crate::policy::Policy;
use crate::rib::{Config, Peer, PeerId, Rib};
use crate::session::PeerAs;
use crate::speaker::{Neighbour, Remote as At, Settings};

/// The addresses of routers.
fn tor(rack: u8) -> IpAddr {
    IpAddr::from([10, 0, 1, rack])
}

/// A router that takes and tells everything.
fn router_settings(rack: u8, asn: u32, neighbours: impl IntoIterator<Item = (IpAddr, u32)>) -> Settings {
    let IpAddr::V4(id) = tor(rack) else { unreachable!() };
    let all = Some(Arc::new(Policy::accept()));
    let neighbour = |(ip, asn): (IpAddr, u32)| {
        let base = Neighbour::new(At::Address { ip, port: 179 }, PeerAs::Is(asn));
        let local_address = Some(tor(rack));
        (ip.to_string().into(), Neighbour { import: all.clone(), export: all.clone(), local_address, ..base })
    };
    Settings {
        addresses: [tor(rack)].into(),
        neighbours: neighbours.into_iter().map(neighbour).collect(),
        ..Settings::new(asn, id)
    }
}

struct Speaker {
    settings: Settings,
    rib: Rib,
    peers: BTreeMap<IpAddr, (PeerId, Negotiated)>,
}

/// Speakers by their address.
struct Network(BTreeMap<IpAddr, Speaker>);

impl Network {
    fn of(all: Vec<Settings>) -> Network {
        let speaker = |settings: Settings| {
            let mut rib = Rib::new(Config {
                asn: settings.local_as,
                confederation: None,
                id: settings.id,
                cluster: settings.cluster_id,
                addresses: settings.addresses.clone(),
            });
            settings.originated.iter().for_each(|(net, attributes)| rib.originate(*net, attributes.clone()));
            let address = *settings.addresses.first().unwrap();
            (address, Speaker { settings, rib, peers: BTreeMap::new() })
        };
        let mut network = Network(all.into_iter().map(speaker).collect());
        let pairs: Vec<(IpAddr, IpAddr)> =
            network.0.iter().flat_map(|(ip, one)| one.ends().map(|end| (*ip, end))).collect();
        for (near, far) in &pairs {
            network.connect(*near, *far);
        }
        network.converge();
        network
    }

    fn connect(&mut self, near: IpAddr, far: IpAddr) {
        let (ours, theirs) = (&self.0[&near].settings, &self.0[&far].settings);
        let of = |settings: &Settings, far: IpAddr| {
            let found = settings.neighbours.values().find(|one| end(one) == Some(far)).cloned();
            found.unwrap_or_else(|| panic!("{} does not speak with {far}", settings.id))
        };
        let (one, other) = (of(ours, far), of(theirs, near));
        assert!(!(one.passive && other.passive), "nobody dials between {near} and {far}");
        assert_eq!((one.peer_as, other.peer_as), (PeerAs::Is(theirs.local_as), PeerAs::Is(ours.local_as)));
        let open = |settings: &Settings, neighbour: &Neighbour| Open {
            asn: settings.local_as,
            hold: 90,
            id: settings.id,
            capabilities: Capabilities {
                families: Some(neighbour.families),
                four_octet_as: Some(settings.local_as),
                ..Capabilities::default()
            },
        };
        let relation = if ours.local_as == theirs.local_as { Relation::Internal } else { Relation::External };
        let terms = Negotiated::new(&open(ours, &one), &open(theirs, &other), relation);
        let speaker = self.0.get_mut(&near).unwrap();
        let id = speaker.rib.add_peer(Peer {
            client: one.reflector_client,
            import: one.import,
            export: one.export,
            next_hop: PerFamily { ipv4: Some(near.into()), ipv6: None },
            next_hop_self: one.next_hop_self,
            ..Peer::new(far)
        });
        speaker.rib.up(id, &terms);
        speaker.peers.insert(far, (id, terms));
    }

    /// Until nobody has anything to tell.
    fn converge(&mut self) {
        let addresses: Vec<IpAddr> = self.0.keys().copied().collect();
        loop {
            let mut quiet = true;
            for from in &addresses {
                let speaker = self.0.get_mut(from).unwrap();
                while speaker.rib.flush(64).more {}
                let mut told = Vec::new();
                for (to, (id, _)) in &speaker.peers {
                    while let Some(bytes) = speaker.rib.poll_transmit(*id) {
                        told.push((*to, bytes));
                    }
                }
                quiet &= told.is_empty();
                for (to, bytes) in told {
                    self.hear(to, *from, &bytes);
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn hear(&mut self, to: IpAddr, from: IpAddr, bytes: &[u8]) {
        let speaker = self.0.get_mut(&to).unwrap();
        let (id, terms) = &speaker.peers[&from];
        let mut rest = bytes;
        while let Some(frame) = message::frame(rest, terms.extended_messages).unwrap() {
            rest = &rest[frame.length()..];
            let Message::Update(update) = Message::decode(&frame, Some(terms)).unwrap() else {
                panic!("no UPDATE");
            };
            speaker.rib.handle_update(*id, update).unwrap();
        }
    }

    /// What `from` has told `to`.
    fn told(&self, from: IpAddr, to: IpAddr) -> BTreeSet<IpNet> {
        let Some((id, _)) = self.0[&to].peers.get(&from) else { return BTreeSet::new() };
        let routes = self.0[&to].rib.routes();
        routes.filter(|(_, paths)| paths.iter().any(|path| path.peer == *id)).map(|(net, _)| *net).collect()
    }

    fn check(&self, nodes: &[Node], through: impl Fn(&Node, &Node) -> IpAddr) {
        for (a, b) in nodes.iter().flat_map(|a| nodes.iter().map(move |b| (a, b))) {
            let (here, there) = (a.addresses[0], b.addresses[0]);
            let hops = self.0[&here].rib.next_hops(&b.pod_cidrs[0]);
            let hops: Vec<IpAddr> = hops.iter().map(|hop| hop.address()).collect();
            match a.name == b.name {
                true => assert!(hops.is_empty()),
                false => assert_eq!(hops, [through(a, b)], "from {} to {}", a.name, b.name),
            }
            if a.bgp.cluster_id.is_none() {
                let own = a.pod_cidrs.iter().copied().collect();
                assert!(self.told(here, there).is_subset(&own), "{} tells what is not its own", a.name);
            }
        }
        for (_, paths) in self.0.values().flat_map(|speaker| speaker.rib.routes()) {
            let others = paths.iter().filter(|path| path.peer != PeerId::OWN);
            for path in others {
                let own = LargeCommunity(64_512, 87, 1);
                assert!(!path.attributes.large_communities.contains(&own), "the mark goes on no wire");
            }
        }
    }
}

impl Speaker {
    fn ends(&self) -> impl Iterator<Item = IpAddr> {
        self.settings.neighbours.values().filter_map(end)
    }
}

fn end(neighbour: &Neighbour) -> Option<IpAddr> {
    if let At::Address { ip, .. } = neighbour.remote { Some(ip) } else { None }
}

fn settings(cluster: &Cluster) -> Vec<Settings> {
    let plans = cluster.nodes.keys().map(|name| planned(cluster, name));
    plans
        .map(|plan| {
            assert_eq!(plan.problems, Default::default());
            plan.settings.unwrap()
        })
        .collect()
}

/// Racks of an AS each, whose nodes speak with their own router alone; the routers speak with one another.
fn racks(racks: u8, nodes: u8) -> (Vec<Node>, Cluster, Vec<Settings>) {
    let asn = |rack: u8| 65_000 + u32::from(rack);
    let rack_of = |number: u8| number % racks;
    let of = |number: u8| {
        let bgp = NodeBgp { as_number: Some(asn(rack_of(number))), ..NodeBgp::default() };
        Node { bgp, ..node(number, &rack_of(number).to_string()) }
    };
    let nodes: Vec<Node> = (1..=nodes).map(of).collect();
    let quiet = Speaking { mesh: false, ..Speaking::default() };
    let mut all = with_filter(with_configuration(cluster(nodes.clone()), quiet), "all", Rules::default());
    let mut speakers = Vec::new();
    for rack in 0..racks {
        let with = Remote::Router { ip: tor(rack), port: 179, asn: Some(asn(rack) + 1000) };
        let mut peer = peering(Speakers::Labelled(labelled("rack", &rack.to_string())), with);
        peer.filters = vec!["all".into()];
        // Nodes of one rack are of one AS, and the router between them of another.
        peer.allowed_own_as = 1;
        all = with_peer(all, &format!("tor{rack}"), peer);
        let below = nodes.iter().filter(|node| *node.labels["rack"] == *rack.to_string());
        let below = below.map(|node| (node.addresses[0], asn(rack)));
        let beside = (0..racks).filter(|other| *other != rack).map(|other| (tor(other), asn(other) + 1000));
        speakers.push(router_settings(rack, asn(rack) + 1000, below.chain(beside)));
    }
    (nodes, all, speakers)
}

#[test]
fn racks_reach_one_another_through_their_routers() {
    let (nodes, all, routers) = racks(3, 3);
    let mut speakers = settings(&all);
    speakers.extend(routers);
    let network = Network::of(speakers);
    network.check(&nodes, |from, _| tor(from.labels["rack"].parse().unwrap()));
}

#[test]
fn a_router_s_routes_are_not_told_to_others() {
    let (nodes, all, mut routers) = racks(2, 2);
    let mut speakers = settings(&all);
    let outside: IpNet = "0.0.0.0/0".parse().unwrap();
    let own = message::Attributes::new(message::NextHop::from(tor(0)));
    routers[0].originated.insert(outside, own);
    speakers.extend(routers);
    let network = Network::of(speakers);
    for node in &nodes {
        let address = node.addresses[0];
        assert!(!network.0[&address].rib.next_hops(&outside).is_empty(), "it is taken");
        let by = network.0[&address].ends().next().unwrap();
        assert!(!network.told(address, by).contains(&outside));
    }
}

/// Clusters that are connected: a mesh, reflectors of some clusters, or both.
fn connected() -> impl Strategy<Value = (Vec<Node>, Cluster)> {
    (2u8..8, proptest::collection::vec(0u8..3, 0..4), any::<bool>(), any::<bool>()).prop_map(
        |(count, reflectors, mesh, odd_as)| {
            let mut nodes: Vec<Node> = (1..=count).map(|number| node(number, "none")).collect();
            for (node, cluster) in nodes.iter_mut().zip(&reflectors) {
                node.labels.insert("rack".into(), "rr".into());
                node.bgp.cluster_id = Some(Ipv4Addr::new(244, 0, 0, *cluster));
            }
            if reflectors.is_empty() && odd_as {
                nodes[0].bgp.as_number = Some(65_010);
            }
            let mesh = mesh || reflectors.is_empty();
            let all = with_configuration(cluster(nodes.clone()), Speaking { mesh, ..Speaking::default() });
            let to_all = peering(Speakers::All, Remote::Nodes(labelled("rack", "rr")));
            (nodes, with_peer(all, "rr", to_all))
        },
    )
}

proptest! {
    #[test]
    fn every_pair_of_nodes_ends_with_routes_and_nobody_tells_what_is_not_its_own((nodes, all) in connected()) {
        let network = Network::of(settings(&all));
        network.check(&nodes, |_, to| to.addresses[0]);
    }
}
