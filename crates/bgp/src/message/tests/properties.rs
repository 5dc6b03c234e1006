//! What holds for any bytes and any route.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

prop_compose! {
    fn any_nlri()(path: u32, bits: u128, length: u8, six: bool) -> Nlri {
        let prefix: ipnet::IpNet = if six {
            ipnet::Ipv6Net::new(bits.into(), length % 129).unwrap().trunc().into()
        } else {
            ipnet::Ipv4Net::new((bits as u32).into(), length % 33).unwrap().trunc().into()
        };
        Nlri { prefix, path }
    }
}

prop_compose! {
    fn any_attributes()(
        origin in prop_oneof![Just(Origin::Igp), Just(Origin::Egp), Just(Origin::Incomplete)],
        path in vec(1..u32::MAX, 1..600),
        hop in 1..0x7e00_0000_u32,
        med: Option<u32>,
        preference: Option<u32>,
        atomic: bool,
        aggregator in option::of((1..u32::MAX, any::<u32>())),
        originator: Option<u32>,
        clusters in vec(any::<u32>(), 0..9),
        communities in vec(any::<u32>(), 0..9),
        extended in vec(any::<[u8; 8]>(), 0..9),
        large in vec(any::<(u32, u32, u32)>(), 0..9),
        unknown in option::of((100..200_u8, vec(any::<u8>(), 0..300))),
    ) -> Attributes {
        let hop = Ipv4Addr::from_bits(hop | 0x0100_0000);
        Attributes {
            origin,
            as_path: AsPath::sequence(&path),
            med,
            local_pref: preference,
            atomic_aggregate: atomic,
            aggregator: aggregator.map(|(asn, id)| Aggregator { asn, id: id.into() }),
            originator: originator.map(Ipv4Addr::from_bits),
            cluster_list: clusters.into_iter().map(Ipv4Addr::from_bits).collect(),
            communities: communities.into_iter().map(Community).collect(),
            extended_communities: extended.into_iter().map(ExtendedCommunity).collect(),
            large_communities: large.into_iter().map(|(a, b, c)| LargeCommunity(a, b, c)).collect(),
            unknown: unknown.into_iter().map(|(code, value)| Unknown { code, value: value.into() }).collect(),
            ..Attributes::new(NextHop::V4(hop))
        }
    }
}

/// The bytes that an UPDATE keeps besides the message.
fn weight(attributes: &Attributes) -> usize {
    let unknown: usize = attributes.unknown.iter().map(|unknown| unknown.value.len() + 24).sum();
    attributes.as_path.bytes().len()
        + attributes.cluster_list.len() * 4
        + attributes.communities.len() * 4
        + attributes.extended_communities.len() * 8
        + attributes.large_communities.len() * 12
        + unknown
}

fn some_terms(bits: u8) -> Negotiated {
    let relations = [Relation::External, Relation::Internal, Relation::Confederation];
    let paths = PerFamily { ipv4: bits & 1 != 0, ipv6: bits & 2 != 0 };
    Negotiated {
        four_octet_as: bits & 4 != 0,
        extended_messages: bits & 8 != 0,
        extended_next_hop: bits & 16 != 0,
        add_path_in: paths,
        add_path_out: paths,
        ..terms(relations[usize::from(bits >> 5) % 3])
    }
}

/// Reads a body by these terms: it never panics, and keeps little.
fn harmless(kind: u8, body: &[u8], terms: &Negotiated) {
    let bytes = message(kind, body);
    let Ok(Some(frame)) = frame(&bytes, terms.extended_messages) else { return };
    let Ok(message) = Message::decode(&frame, Some(terms)) else { return };
    let Message::Update(update) = message else { return };
    assert!(update.malformed.len() <= 8);
    let prefixes =
        |list: &NlriList<'_>| list.iter().inspect(|n| assert_eq!(n.prefix, n.prefix.trunc())).count();
    let mut count: usize = update.withdrawn().map(|list| prefixes(&list)).sum();
    for (attributes, list) in update.into_announced() {
        count += prefixes(&list);
        assert!(weight(&attributes) <= 9 * body.len());
        // What is believed can be told to others.
        let terms = Negotiated { extended_messages: true, ..terms.clone() };
        let mut out = Vec::new();
        let _ = announce(&mut out, &terms, &attributes, list.family(), list.iter());
    }
    assert!(count <= body.len());
}

proptest! {
    #[test]
    fn routes_survive_the_wire(
        attributes in any_attributes(), routes in vec(any_nlri(), 1..300), bits: u8, hop in 1..u64::MAX,
    ) {
        let terms = Negotiated { relation: Relation::Internal, extended_messages: true, ..some_terms(bits | 4) };
        let v6 = NextHop::V6(std::net::Ipv6Addr::from_bits(0x2001 << 112 | u128::from(hop)));
        for family in Family::ALL {
            let next_hop = if family == Family::Ipv4 { attributes.next_hop } else { v6 };
            let attributes = Attributes { next_hop, ..attributes.clone() };
            let mut routes: Vec<Nlri> =
                routes.iter().copied().filter(|route| Family::of(&route.prefix) == family).collect();
            if !terms.add_path_out[family] {
                routes.iter_mut().for_each(|route| route.path = 0);
            }
            let mut bytes = Vec::new();
            announce(&mut bytes, &terms, &attributes, family, routes.iter().copied()).unwrap();
            let mut read = Vec::new();
            for update in updates(&bytes, &terms) {
                prop_assert!(update.malformed.is_empty());
                for (of, list) in update.into_announced() {
                    prop_assert_eq!(&of, &attributes);
                    read.extend(list.iter());
                }
            }
            prop_assert_eq!(&read, &routes);
            bytes.clear();
            withdraw(&mut bytes, &terms, family, routes.iter().copied());
            let gone: Vec<Nlri> =
                updates(&bytes, &terms).iter().flat_map(|u| u.withdrawn()).flat_map(|list| list.iter()).collect();
            prop_assert_eq!(gone, routes);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(kind in 1..=5_u8, body in vec(any::<u8>(), 0..400), bits: u8) {
        harmless(kind, &body, &some_terms(bits));
        let _ = frame(&body, true);
    }

    /// A good UPDATE with some bytes changed, and cut.
    #[test]
    fn nearly_good_bytes_are_read_or_refused(
        attributes in any_attributes(),
        routes in vec(any_nlri(), 1..9),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut: prop::sample::Index,
        bits: u8,
    ) {
        let terms = Negotiated { extended_messages: true, ..some_terms(bits) };
        let mut bytes = Vec::new();
        let v4 = routes.iter().copied().filter(|route| Family::of(&route.prefix) == Family::Ipv4);
        announce(&mut bytes, &terms, &attributes, Family::Ipv4, v4).unwrap();
        let mut body = bytes.get(HEADER..).unwrap_or_default().to_vec();
        for (at, value) in changes {
            let length = body.len().max(1);
            if let Some(byte) = body.get_mut(at.index(length)) {
                *byte = value;
            }
        }
        harmless(2, &body, &terms);
        body.truncate(cut.index(body.len() + 1));
        harmless(2, &body, &terms);
    }

    #[test]
    fn any_capabilities_are_read_or_refused(parameters in vec(any::<u8>(), 0..80), extended: bool) {
        let mut body = vec![4, 0xfd, 0xe9, 0, 90, 10, 0, 0, 1];
        let length = if extended { [255, 255, 0, parameters.len() as u8] } else { [parameters.len() as u8 + 2, 2, parameters.len() as u8, 0] };
        body.extend(&length[..if extended { 4 } else { 3 }]);
        body.extend(parameters);
        let bytes = message(1, &body);
        let frame = frame(&bytes, false).unwrap().unwrap();
        if let Ok(Message::Open(read)) = Message::decode(&frame, None) {
            let mut again = Vec::new();
            open(&mut again, &read);
            let again = super::frame(&again, false).unwrap().unwrap();
            let Ok(Message::Open(again)) = Message::decode(&again, None) else { panic!() };
            // Families of others are not told again.
            prop_assert_eq!(again.asn, read.asn);
            prop_assert_eq!(again.capabilities.graceful_restart, read.capabilities.graceful_restart);
        }
    }
}
