use proptest::prelude::*;

use super::*;
use crate::nft::field::{Change, Field};
use crate::nft::wire::{Attributes, Body};

fn net() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (any::<[u8; 4]>(), 0u8..=32).prop_map(|(a, l)| IpNet::new(IpAddr::from(a), l).unwrap().trunc()),
        (any::<[u8; 16]>(), 0u8..=128).prop_map(|(a, l)| IpNet::new(IpAddr::from(a), l).unwrap().trunc()),
    ]
}

fn field() -> impl Strategy<Value = Field> {
    let side = || prop_oneof![Just(Side::Source), Just(Side::Destination)];
    prop_oneof![
        (side(), any::<bool>()).prop_map(|(side, ipv6)| Field::Address { side, ipv6 }),
        prop_oneof![Just(Field::Protocol), Just(Field::Mark)],
        side().prop_map(Field::Port),
        (1u32.., any::<u32>()).prop_map(|(modulus, offset)| Field::Random { modulus, offset }),
    ]
}

fn expr() -> impl Strategy<Value = Expr> {
    let side = || prop_oneof![Just(Side::Source), Just(Side::Destination)];
    let direction = prop_oneof![Just(Direction::In), Just(Direction::Out)];
    prop_oneof![
        (side(), net(), any::<bool>()).prop_map(|(side, net, negate)| Expr::Address { side, net, negate }),
        (side(), "[a-z]{1,8}", any::<bool>(), any::<bool>())
            .prop_map(|(side, set, ipv6, negate)| Expr::AddressIn { side, set, ipv6, negate }),
        (direction, "[a-z0-9]{1,15}", any::<bool>()).prop_map(|(direction, name, negate)| Expr::Device {
            direction,
            name,
            negate
        }),
        (any::<u8>(), any::<bool>()).prop_map(|(number, negate)| Expr::Protocol { number, negate }),
        (any::<u32>(), any::<u32>()).prop_map(|(value, mask)| Expr::Mark { value, mask }),
        (side(), any::<u16>()).prop_map(|(side, port)| Expr::Port { side, port }),
        any::<u16>().prop_map(Expr::EchoId),
        prop_oneof![Just(Expr::TcpSyn), Just(Expr::ClampSegments)],
        any::<std::net::SocketAddrV4>().prop_map(|to| Expr::Dnat(to.into())),
        any::<[u8; 6]>().prop_map(|mac| Expr::EtherSource(Mac(mac))),
        ("[a-z]{1,9}", any::<bool>()).prop_map(|(chain, jump)| if jump {
            Expr::Jump(chain)
        } else {
            Expr::Goto(chain)
        }),
        prop_oneof![Just(Expr::LocalDestination), Just(Expr::LocalSource)],
        any::<u32>().prop_map(Expr::State),
        any::<u32>().prop_map(Expr::Status),
        // A lookup of the first register alone is an AddressIn after an address.
        (4u8..12, field()).prop_map(|(at, field)| Expr::Load { at, field }),
        (1u8..16, "[a-z]{1,8}", any::<bool>()).prop_map(|(at, set, negate)| Expr::Lookup { at, set, negate }),
        (0u8..16, "[a-z]{1,8}", 0u8..16).prop_map(|(at, map, to)| Expr::Map { at, map, to }),
        (0u8..16, "[a-z]{1,8}").prop_map(|(at, map)| Expr::VerdictMap { at, map }),
        (
            prop_oneof![Just(Change::Update), Just(Change::Delete)],
            "[a-z]{1,8}",
            0u8..16,
            proptest::option::of(0u8..16),
            any::<u64>()
        )
            .prop_map(|(change, set, key, data, timeout)| Expr::Change {
                change,
                set,
                key,
                data,
                timeout
            }),
        (0u8..12, any::<bool>()).prop_map(|(at, ipv6)| Expr::DnatTo { at, ipv6 }),
        (any::<u32>(), any::<u32>()).prop_map(|(mask, xor)| Expr::SetMark { mask, xor }),
        any::<bool>().prop_map(|tcp_reset| Expr::Reject { tcp_reset }),
        any::<bool>().prop_map(|random_fully| Expr::Masquerade { random_fully }),
        prop_oneof![
            Just(Expr::Counter),
            Just(Expr::Accept),
            Just(Expr::Drop),
            Just(Expr::Return),
            Just(Expr::Trace)
        ],
    ]
}

proptest! {
    #[test]
    fn a_rule_written_and_read_is_the_same(exprs in proptest::collection::vec(expr(), 0..8), inet in any::<bool>()) {
        let family = if inet { Family::Inet } else { Family::Ip };
        let mut list = Body::default();
        exprs.iter().flat_map(|e| lower(family, e)).for_each(|low| low.write(&mut list));
        let lows: Vec<Low> = Attributes(&list.0).map(|(_, e)| Low::read(Attributes(e))).collect();
        prop_assert_eq!(raise(family, &lows), exprs);
    }

    #[test]
    fn any_bytes_are_some_expression(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let lows: Vec<Low> = Attributes(&bytes).map(|(_, e)| Low::read(Attributes(e))).collect();
        prop_assert!(raise(Family::Inet, &lows).len() <= lows.len());
    }
}
