use proptest::collection::vec;
use proptest::prelude::*;
use weft_model::NamespacedName;
use weft_model::service::Protocol;

use super::*;
use crate::{Choice, Kind};

/// All that a history of differences comes to.
#[derive(Debug, Default, PartialEq)]
struct Kernel {
    elements: BTreeMap<(bool, Map, Bytes), Datum>,
    chains: BTreeMap<(bool, String), Vec<Rule>>,
    nets: BTreeMap<(bool, &'static str), Set>,
    addresses: BTreeSet<IpAddr>,
}

impl Kernel {
    fn take(&mut self, difference: Difference) {
        for ((ipv6, map), Elements { gone, new }) in difference.elements {
            for key in gone {
                assert!(self.elements.remove(&(ipv6, map, key)).is_some(), "{map:?}");
            }
            for Element { key, data } in new {
                assert!(self.elements.insert((ipv6, map, key), data).is_none(), "{map:?}");
            }
        }
        for (name, rules) in difference.chains {
            match rules {
                Some(rules) => assert!(self.chains.insert(name, rules).is_none()),
                None => assert!(self.chains.remove(&name).is_some()),
            }
        }
        self.nets.extend(difference.nets);
        for (ip, new) in difference.addresses {
            assert!(if new { self.addresses.insert(ip) } else { self.addresses.remove(&ip) });
        }
    }
}

fn keys() -> impl Strategy<Value = FrontendKey> {
    let address = |text: &str| Just(Place::Address(text.parse().unwrap()));
    let place = prop_oneof![
        address("10.96.0.1"),
        // The node's own.
        address("192.0.2.1"),
        address("fd00:96::1"),
        any::<bool>().prop_map(|ipv6| Place::NodePort { ipv6 }),
    ];
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    (place, protocol, 80..82u16).prop_map(|(place, protocol, port)| FrontendKey { place, protocol, port })
}

fn frontends() -> impl Strategy<Value = (FrontendKey, Frontend)> {
    let policy = prop_oneof![Just(Policy::Internal), Just(Policy::Cluster), Just(Policy::Local)];
    let list = || vec(1..7u8, 0..4);
    let sources = prop_oneof![
        2 => Just(None),
        1 => Just(Some(vec!["192.0.2.0/24".parse().unwrap()])),
        1 => Just(Some(vec![])),
    ];
    let affinity = proptest::option::of(60..62u32);
    (keys(), list(), list(), policy, affinity, sources).prop_map(
        |(at, all, here, policy, affinity, sources): (_, _, _, _, _, Option<Vec<IpNet>>)| {
            let choice = |list: Vec<u8>| {
                let ip = |last: u8| match at.place.is_ipv6() {
                    true => IpAddr::from([0xfd00, 0x244, 0, 0, 0, 0, 0, u16::from(last)]),
                    false => IpAddr::from([10, 244, 0, last]),
                };
                let backend = |last: u8| Backend { address: SocketAddr::new(ip(last), 8080), here: last < 4 };
                let all: BTreeSet<Backend> = list.into_iter().map(backend).collect();
                if all.is_empty() { Choice::Drop } else { Choice::Backends(all.into_iter().collect()) }
            };
            let all = choice(all);
            let local = if policy == Policy::Local { choice(here) } else { all.clone() };
            let guarded = matches!(at.place, Place::Address(_)) && !at.place.is_ipv6();
            let frontend = Frontend {
                service: NamespacedName::new("shop", "web"),
                port_name: "http".into(),
                kind: Kind::LoadBalancer,
                policy,
                all,
                local,
                affinity,
                sources: sources.filter(|_| guarded).map(Into::into),
            };
            (at, frontend)
        },
    )
}

fn plans() -> impl Strategy<Value = ServicePlan> {
    (vec(frontends(), 0..10), vec(1..4u8, 0..3)).prop_map(|(frontends, ips)| ServicePlan {
        frontends: frontends.into_iter().map(|(at, frontend)| (at, Arc::new(frontend))).collect(),
        cluster_ips: ips.into_iter().map(|last| (IpAddr::from([10, 96, 0, last]), 1)).collect(),
        ..ServicePlan::default()
    })
}

fn own() -> BTreeSet<IpAddr> {
    BTreeSet::from(["192.0.2.1".parse().unwrap()])
}

proptest! {
    #[test]
    fn history_does_not_matter(history in vec(plans(), 1..5)) {
        let mut state = State::new(Scheduler::RoundRobin, own());
        let mut kernel = Kernel::default();
        let mut servers = BTreeMap::new();
        let mut before = ServicePlan::default();
        for plan in &history {
            let keys = before.frontends.keys().chain(plan.frontends.keys());
            let ips = before.cluster_ips.keys().chain(plan.cluster_ips.keys());
            let changed = Changed {
                frontends: keys.filter(|at| before.frontends.get(at) != plan.frontends.get(at)).copied().collect(),
                cluster_ips: ips.copied().collect(),
                rest: false,
            };
            let difference = state.advance(plan, &changed);
            // What is not told to have changed has not.
            for key in &difference.servers {
                match state.servers().get(key) {
                    Some(wanted) => _ = servers.insert(*key, wanted.clone()),
                    None => _ = servers.remove(key),
                }
            }
            kernel.take(difference);
            before = plan.clone();
        }
        prop_assert_eq!(&servers, state.servers());
        let (whole, difference) = State::whole(Scheduler::RoundRobin, own(), &before);
        let mut fresh = Kernel::default();
        fresh.take(difference);
        prop_assert_eq!(&kernel, &fresh);
        prop_assert_eq!(&servers, whole.servers());
        prop_assert_eq!(kernel.addresses, whole.addresses().collect::<BTreeSet<_>>());
    }

    /// Whoever is led anywhere is led to a virtual server that is there, and every one of these is led to.
    #[test]
    fn tables_and_virtual_servers_agree(plan in plans()) {
        let (state, difference) = State::whole(Scheduler::RoundRobin, own(), &plan);
        let mut led: BTreeSet<ServerKey> = BTreeSet::new();
        for (at, frontend) in &plan.frontends {
            let protocol = at.protocol.number();
            if let Place::Address(ip) = at.place
                && !own().contains(&ip)
                && !frontend.all.backends().is_empty()
            {
                led.insert(ServerKey { at: SocketAddr::new(ip, at.port), protocol });
            }
        }
        let maps = [Map::Servers, Map::ServersHere, Map::NodeServers, Map::NodeServersHere];
        for ((ipv6, map), elements) in difference.elements.iter().filter(|((_, map), _)| maps.contains(map)) {
            for Element { key, data } in &elements.new {
                let Datum::Fields(data) = data else { panic!("{data:?}") };
                let width = if *ipv6 { 16 } else { 4 };
                let (ip, port) = data.as_slice().split_at(width);
                let ip: IpAddr = match ipv6 {
                    true => <[u8; 16]>::try_from(ip).unwrap().into(),
                    false => <[u8; 4]>::try_from(ip).unwrap().into(),
                };
                let node = matches!(map, Map::NodeServers | Map::NodeServersHere);
                let protocol = key.as_slice()[if node { 0 } else { width }];
                let port = u16::from_be_bytes([port[0], port[1]]);
                prop_assert!(super::super::inner::net(*ipv6).contains(&ip));
                prop_assert!(led.insert(ServerKey { at: SocketAddr::new(ip, port), protocol }), "two of one");
            }
        }
        prop_assert_eq!(led, state.servers().keys().copied().collect::<BTreeSet<_>>());
    }
}
