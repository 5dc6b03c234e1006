//! Good UPDATEs, there and back.

use super::*;

fn full() -> Attributes {
    Attributes {
        origin: Origin::Incomplete,
        as_path: AsPath::sequence(&[65001, 4_200_000_000]),
        med: Some(7),
        local_pref: Some(200),
        atomic_aggregate: true,
        aggregator: Some(Aggregator { asn: 4_200_000_000, id: Ipv4Addr::new(10, 0, 0, 3) }),
        originator: Some(Ipv4Addr::new(10, 0, 0, 4)),
        cluster_list: [Ipv4Addr::new(10, 0, 0, 5), Ipv4Addr::new(10, 0, 0, 6)].into(),
        communities: [Community::NO_EXPORT, Community(0xfde8_0001)].into(),
        extended_communities: [ExtendedCommunity([0, 2, 0, 1, 0, 0, 0, 9])].into(),
        large_communities: [LargeCommunity(1, 2, 3)].into(),
        unknown: [Unknown { code: 200, value: [1, 2].into() }].into(),
        ..Attributes::new(NextHop::V4(Ipv4Addr::new(192, 0, 2, 1)))
    }
}

/// What is read of what was written.
fn there_and_back(
    attributes: &Attributes,
    routes: &[Nlri],
    terms: &Negotiated,
) -> Vec<(Attributes, Vec<Nlri>)> {
    let mut bytes = Vec::new();
    announce(&mut bytes, terms, attributes, Family::of(&routes[0].prefix), routes.iter().copied()).unwrap();
    let read = updates(&bytes, terms).into_iter().flat_map(|update| {
        assert!(update.malformed.is_empty(), "{:?}", update.malformed);
        update.into_announced()
    });
    read.map(|(attributes, list)| (attributes, list.iter().collect())).collect()
}

#[test]
fn all_attributes_survive_the_wire() {
    let terms = terms(Relation::Internal);
    let routes = [v4("10.0.0.0/8"), v4("0.0.0.0/0"), v4("192.0.2.129/32"), v4("172.16.0.0/13")];
    assert_eq!(there_and_back(&full(), &routes, &terms), [(full(), routes.to_vec())]);
    let v6 = |prefix: &str| Nlri { prefix: prefix.parse().unwrap(), path: 0 };
    let routes = [v6("2001:db8::/32"), v6("::/0"), v6("2001:db8::1/128")];
    let global = "2001:db8::1".parse().unwrap();
    for next_hop in [NextHop::V6(global), NextHop::V6Both(global, "fe80::1".parse().unwrap())] {
        let attributes = Attributes { next_hop, ..full() };
        assert_eq!(there_and_back(&attributes, &routes, &terms), [(attributes, routes.to_vec())]);
    }
}

#[test]
fn an_ipv4_route_has_an_ipv6_next_hop_where_that_was_agreed_on() {
    let terms = Negotiated { extended_next_hop: true, ..terms(Relation::Internal) };
    let attributes = Attributes { next_hop: NextHop::V6("fe80::1".parse().unwrap()), ..full() };
    let routes = [v4("10.0.0.0/8")];
    assert_eq!(there_and_back(&attributes, &routes, &terms), [(attributes, routes.to_vec())]);
}

#[test]
fn a_session_of_two_octets_carries_four() {
    let terms = Negotiated { four_octet_as: false, ..terms(Relation::Internal) };
    let routes = [v4("10.0.0.0/8")];
    let [(read, _)] = &there_and_back(&full(), &routes, &terms)[..] else { panic!() };
    assert_eq!(*read, full());
    // Who has a short number and no AS4_AGGREGATOR came later than the AS4_PATH.
    let short = Attributes { aggregator: Some(Aggregator { asn: 3, id: Ipv4Addr::LOCALHOST }), ..full() };
    let [(read, _)] = &there_and_back(&short, &routes, &terms)[..] else { panic!() };
    assert_eq!(read.as_path, AsPath::sequence(&[65001, AS_TRANS.into()]));
}

#[test]
fn path_numbers_go_with_prefixes_both_ways() {
    let paths = PerFamily { ipv4: true, ipv6: true };
    let terms = Negotiated { add_path_in: paths, add_path_out: paths, ..terms(Relation::Internal) };
    let routes = [1, 2, u32::MAX].map(|path| Nlri { path, ..v4("10.0.0.0/8") });
    assert_eq!(there_and_back(&full(), &routes, &terms), [(full(), routes.to_vec())]);
    let mut bytes = Vec::new();
    withdraw(&mut bytes, &terms, Family::Ipv4, routes);
    let withdrawn: Vec<Nlri> = updates(&bytes, &terms)[0].withdrawn().flat_map(|list| list.iter()).collect();
    assert_eq!(withdrawn, routes);
}

#[test]
fn many_prefixes_fill_messages_and_none_too_long() {
    for extended_messages in [false, true] {
        let terms = Negotiated { extended_messages, ..terms(Relation::Internal) };
        let v4_routes = |i: u32| v4(&format!("10.{}.{}.0/24", i / 256, i % 256));
        let v6_routes = |i: u32| Nlri { prefix: format!("2001:db8:{i:x}::/48").parse().unwrap(), path: 0 };
        let v6_hop = NextHop::V6("2001:db8::1".parse().unwrap());
        let kinds: [(NextHop, &dyn Fn(u32) -> Nlri); 2] =
            [(full().next_hop, &v4_routes), (v6_hop, &v6_routes)];
        for (next_hop, route) in kinds {
            let routes: Vec<Nlri> = (0..20_000).map(route).collect();
            let attributes = Attributes { next_hop, ..full() };
            let read = there_and_back(&attributes, &routes, &terms);
            let all: Vec<Nlri> = read.iter().flat_map(|(_, routes)| routes.clone()).collect();
            assert_eq!(all, routes);
            let fair = routes.len() * 7 / (terms.longest() - 400) + 1;
            assert!(read.len() <= fair, "{} messages", read.len());
            let mut bytes = Vec::new();
            withdraw(&mut bytes, &terms, Family::of(&routes[0].prefix), routes.iter().copied());
            let gone: Vec<Nlri> = updates(&bytes, &terms)
                .iter()
                .flat_map(|u| u.withdrawn())
                .flat_map(|list| list.iter())
                .collect();
            assert_eq!(gone, routes);
        }
    }
}

#[test]
fn attributes_without_room_for_a_prefix_are_refused() {
    let terms = terms(Relation::Internal);
    let attributes = Attributes { communities: vec![Community(1); 1100].into(), ..full() };
    let mut bytes = Vec::new();
    let refused = announce(&mut bytes, &terms, &attributes, Family::Ipv4, [v4("10.0.0.0/8")]);
    assert!(refused.is_err() && bytes.is_empty());
    let long = Negotiated { extended_messages: true, ..terms };
    assert_eq!(there_and_back(&attributes, &[v4("10.0.0.0/8")], &long).len(), 1);
    // More than any length of two octets says.
    let huge = Attributes { as_path: AsPath::sequence(&vec![1; 20_000]), ..full() };
    assert!(announce(&mut bytes, &long, &huge, Family::Ipv4, [v4("10.0.0.0/8")]).is_err());
}

#[test]
fn the_end_of_each_family_is_told() {
    let mut bytes = Vec::new();
    end_of_rib(&mut bytes, Family::Ipv4);
    end_of_rib(&mut bytes, Family::Ipv6);
    let ends: Vec<_> = updates(&bytes, &terms(Relation::External)).iter().map(|u| u.end_of_rib).collect();
    assert_eq!(ends, [Some(Family::Ipv4), Some(Family::Ipv6)]);
}
