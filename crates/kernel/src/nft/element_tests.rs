//! Sets and maps of several fields, and rules over registers: the kernel takes them, the `nft`
//! program prints them, and they are read back as they were wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::tests::{private, run};
use super::*;
use crate::testing::eventually;

const SECONDS: u64 = 3 * 60 * 60;

fn shapes(ipv6: bool) -> BTreeMap<&'static str, Shape> {
    let address = if ipv6 { Type::Ipv6 } else { Type::Ipv4 };
    let service = [address, Type::Protocol, Type::Port];
    let affinity = Shape {
        dynamic: true,
        timeout: Some(Duration::from_secs(SECONDS)),
        size: Some(1000),
        ..Shape::map([address, address, Type::Protocol, Type::Port], [Type::Port, address, Type::Port])
    };
    BTreeMap::from([
        ("services", Shape::verdicts(service)),
        ("endpoints", Shape::map([&service[..], &[Type::Mark]].concat(), [address, Type::Port])),
        ("remembered", Shape::map([&service[..], &[Type::Mark]].concat(), [Type::Port, address, Type::Port])),
        ("affine", Shape::set([&service[..], &[address, Type::Port]].concat())),
        ("hairpin", Shape::set([address, address])),
        ("shapes", Shape::verdicts([Type::Mark])),
        ("affinity", affinity),
    ])
}

fn chains(ipv6: bool) -> Vec<(&'static str, Option<Base>, Vec<Rule>)> {
    let from = Field::Address { side: Side::Source, ipv6 };
    let to = Field::Address { side: Side::Destination, ipv6 };
    let service = [to, Field::Protocol, Field::Port(Side::Destination)];
    let base = |kind, hook, priority| Some(Base { kind, hook, priority, drop: false });
    let random = Field::Random { modulus: 3, offset: 0 };
    let (mut prerouting, _) = Expr::load(0, service);
    prerouting.push(Expr::VerdictMap { at: 0, map: "services".into() });
    let (mut pick, end) = Expr::load(0, [&service[..], &[random]].concat());
    pick.extend([Expr::Map { at: 0, map: "endpoints".into(), to: end }, Expr::DnatTo { at: end, ipv6 }]);
    // The client's key, behind it what was remembered: from the second field on the key of `affine`.
    // What is read from a map is for nft of no length that it could use in a key, and 1.0.6 ends
    // there: it goes by what was loaded to the same registers before, if the map's data begin earlier.
    let port = Field::Port(Side::Destination);
    let key = [&[from][..], &service].concat();
    let (mut recall, behind) = Expr::load(0, [&key[..], &[to, port]].concat());
    let behind = behind - to.registers() - 1;
    let change =
        |change, data| Expr::Change { change, set: "affinity".into(), key: 0, data: Some(data), timeout: 0 };
    recall.extend([
        Expr::Map { at: 0, map: "affinity".into(), to: behind - 1 },
        Expr::Load { at: behind - 1, field: port },
        Expr::Lookup { at: from.registers(), set: "affine".into(), negate: false },
        change(Change::Update, behind - 1),
        Expr::DnatTo { at: behind, ipv6 },
    ]);
    let (mut remember, _) = Expr::load(0, [&key[..], &[random, to, port]].concat());
    remember.extend([
        Expr::Map { at: from.registers(), map: "remembered".into(), to: behind },
        Expr::Load { at: behind, field: port },
        change(Change::Delete, behind),
        change(Change::Update, behind),
        Expr::DnatTo { at: behind + 1, ipv6 },
    ]);
    let (mut both, _) = Expr::load(0, [from, to]);
    both.insert(0, Expr::Status(0x20));
    both.extend([
        Expr::Lookup { at: 0, set: "hairpin".into(), negate: false },
        Expr::Masquerade { random_fully: true },
    ]);
    let marked = [
        Expr::Mark { value: 0x4000, mask: 0x4000 },
        Expr::SetMark { mask: !0x4000, xor: 0 },
        Expr::Masquerade { random_fully: true },
    ];
    vec![
        (
            "cluster-3",
            None,
            vec![
                Rule::new(
                    "",
                    [Expr::saddr_in("pods", ipv6).negated(), Expr::SetMark { mask: !0x4000, xor: 0x4000 }],
                ),
                Rule::new("", [Expr::LocalSource, Expr::SetMark { mask: !0x4000, xor: 0x4000 }]),
                Rule::new("pick", pick),
            ],
        ),
        ("affinity-3", None, vec![Rule::new("recall", recall), Rule::new("remember", remember)]),
        (
            "refuse",
            None,
            vec![
                Rule::new("", [Expr::l4proto(6), Expr::Reject { tcp_reset: true }]),
                Rule::new("", [Expr::Reject { tcp_reset: false }]),
            ],
        ),
        ("prerouting", base(ChainKind::Nat, Hook::Prerouting, -100), vec![Rule::new("", prerouting.clone())]),
        ("output", base(ChainKind::Nat, Hook::Output, -100), vec![Rule::new("", prerouting)]),
        (
            "postrouting",
            base(ChainKind::Nat, Hook::Postrouting, 100),
            vec![Rule::new("", marked), Rule::new("", both)],
        ),
        (
            "forward",
            base(ChainKind::Filter, Hook::Forward, 0),
            vec![Rule::new("", [Expr::State(1), Expr::Drop])],
        ),
    ]
}

fn elements(ipv6: bool) -> BTreeMap<&'static str, BTreeSet<Element>> {
    let [service, pod]: [IpAddr; 2] =
        if ipv6 { ["fd00::1", "fd01::5"] } else { ["10.96.0.1", "10.244.0.5"] }.map(|a| a.parse().unwrap());
    let key = Bytes::EMPTY.address(service).protocol(17).port(53);
    let fields = |fields| Datum::Fields(fields);
    let one = |key, data| BTreeSet::from([Element { key, data }]);
    let slots = (0..3u32)
        .map(|slot| Element { key: key.mark(slot), data: fields(Bytes::EMPTY.address(pod).port(5353)) });
    BTreeMap::from([
        ("services", one(key, Datum::Goto("cluster-3".into()))),
        ("endpoints", slots.collect()),
        ("affine", one(key.address(pod).port(5353), Datum::None)),
        ("hairpin", one(Bytes::EMPTY.address(pod).address(pod), Datum::None)),
        ("shapes", one(Bytes::EMPTY.mark(3), Datum::Goto("affinity-3".into()))),
        ("affinity", BTreeSet::new()),
        ("remembered", BTreeSet::new()),
    ])
}

fn whole(family: Family) -> (Table, Transaction) {
    let ipv6 = family == Family::Ip6;
    let table = Table::new(family, "services");
    let mut t = Transaction::default();
    t.add_table(&table, false);
    let key = if ipv6 { SetKey::Ipv6 } else { SetKey::Ipv4 };
    let pods = if ipv6 { "fd01::/48" } else { "10.244.0.0/16" };
    let pods = Set::nets(key, [pods.parse().unwrap()]);
    t.add_set(&table, "pods", &pods);
    t.add_elements(&table, "pods", &pods);
    shapes(ipv6).iter().for_each(|(name, shape)| t.add_map(&table, name, shape));
    for (name, base, _) in chains(ipv6) {
        t.add_chain(&table, name, base);
    }
    for (name, _, rules) in chains(ipv6) {
        rules.iter().for_each(|rule| t.add_rule(&table, name, rule));
    }
    for (name, elements) in elements(ipv6) {
        t.insert(&table, name, &shapes(ipv6)[name], &elements);
    }
    (table, t)
}

fn read(nft: &mut Nft, table: &Table, map: &str) -> BTreeSet<Element> {
    let mut found = BTreeSet::new();
    nft.elements(table, map, |element| {
        found.insert(element);
    })
    .unwrap();
    found
}

#[test]
fn maps_and_rules_over_registers_are_read_back_as_they_were_wanted() {
    private();
    let mut nft = Nft::open().unwrap();
    for family in [Family::Ip, Family::Ip6] {
        let ipv6 = family == Family::Ip6;
        let (table, transaction) = whole(family);
        nft.apply(&transaction).unwrap();
        let outline = nft.outline(&table).unwrap().unwrap();
        for (name, shape) in shapes(ipv6) {
            assert_eq!(outline.maps[name], shape, "{name}");
            assert_eq!(read(&mut nft, &table, name), elements(ipv6)[name], "{name}");
        }
        for (name, base, rules) in chains(ipv6) {
            assert_eq!(outline.chains[name], Chain { base, rules }, "{name}");
        }
        let key = if ipv6 { SetKey::Ipv6 } else { SetKey::Ipv4 };
        assert_eq!(nft.net_set(&table, "pods", key, true).unwrap().elements().len(), 1);
        let listed = run("nft", &["-s", "list", "table", &family.to_string(), "services"]);
        let (ip, address) = if ipv6 { ("ip6", "fd00::1") } else { ("ip", "10.96.0.1") };
        for line in [
            format!("elements = {{ {address} . udp . 53 : goto cluster-3 }}"),
            "flags dynamic,timeout\n\t\ttimeout 3h".into(),
            format!("{ip} saddr != @pods meta mark set meta mark | 0x00004000"),
            format!("dnat {ip} to {ip} daddr . meta l4proto . th dport . numgen random mod 3 map @endpoints"),
            format!("update @affinity {{ {ip} saddr . {ip} daddr . meta l4proto . th dport : th dport . "),
            format!("{ip} daddr . meta l4proto . th dport vmap @services"),
            format!("ct status dnat {ip} saddr . {ip} daddr @hairpin masquerade fully-random"),
            "meta mark set meta mark & 0xffffbfff masquerade fully-random".into(),
            "reject with tcp reset\n\t\treject\n".into(),
            "fib saddr type local".into(),
            "ct state invalid drop".into(),
        ] {
            assert!(listed.contains(&line), "{line} in {listed}");
        }
    }
}

/// A map of `count` slots, and its elements.
fn large(count: u32) -> (Table, Shape, Vec<Element>) {
    let slot = |i: u32| Element {
        key: Bytes::EMPTY.address([10, 96, 0, 1].into()).mark(i),
        data: Datum::Fields(Bytes::EMPTY.address((0x0af4_0000 + i).to_be_bytes().into()).port(80)),
    };
    let shape = Shape::map([Type::Ipv4, Type::Mark], [Type::Ipv4, Type::Port]);
    (Table::new(Family::Ip, "services"), shape, (0..count).map(slot).collect())
}

#[test]
fn a_hundred_thousand_elements_are_one_transaction() {
    private();
    let (table, shape, elements) = large(100_000);
    let mut nft = Nft::open().unwrap();
    let mut monitor = NftMonitor::open().unwrap();
    let before = nft.generation().unwrap();
    let mut t = Transaction::default();
    t.add_table(&table, false);
    t.add_map(&table, "slots", &shape);
    t.insert(&table, "slots", &shape, &elements);
    nft.apply(&t).unwrap();
    assert_eq!(monitor.try_next().unwrap(), None, "nobody listened, and nobody else did anything");
    assert_eq!(nft.generation().unwrap(), before + 1);
    // The kernel's hash table grows behind the transaction: who reads meanwhile may miss elements.
    let all: BTreeSet<Element> = elements.iter().cloned().collect();
    eventually(Duration::from_secs(20), "all elements are read", || read(&mut nft, &table, "slots") == all);

    // Other data under the same key: away and back in one transaction.
    let changed = Element { data: elements[0].data.clone(), ..elements[7].clone() };
    let mut t = Transaction::default();
    t.remove(&table, "slots", &shape, [&changed.key]);
    t.insert(&table, "slots", &shape, [&changed]);
    nft.apply(&t).unwrap();
    let mut wanted = elements;
    wanted[7] = changed;
    assert_eq!(read(&mut nft, &table, "slots"), wanted.into_iter().collect());
}

#[test]
fn an_element_that_is_refused_is_named() {
    private();
    let (table, shape, elements) = large(4000);
    let mut nft = Nft::open().unwrap();
    let mut t = Transaction::default();
    t.add_table(&table, false);
    t.add_map(&table, "slots", &shape);
    t.insert(&table, "slots", &shape, &elements[..3000]);
    nft.apply(&t).unwrap();
    let mut t = Transaction::default();
    t.remove(&table, "slots", &shape, elements[2990..3010].iter().map(|e| &e.key));
    let error = nft.apply(&t).unwrap_err();
    assert!(error.not_found(), "{error}");
    let text = error.to_string();
    assert!(
        text.starts_with("delete elements of nft ip services set slots element 10.96.0.1 . 3000: "),
        "{text}"
    );
    assert_eq!(read(&mut nft, &table, "slots").len(), 3000);
    let mut t = Transaction::default();
    t.delete_map(&table, "slots");
    nft.apply(&t).unwrap();
    assert!(nft.outline(&table).unwrap().unwrap().maps.is_empty());
}

#[test]
fn a_monitor_that_did_not_listen_says_so_if_another_changed_something() {
    private();
    let mut monitor = NftMonitor::open().unwrap();
    let mut nft = Nft::open().unwrap();
    let other = || run("nft", &["add table ip other"]);
    let done = monitor::unheard(&mut nft, |_| {
        other();
        Err(crate::Error::Malformed { op: "change nft", detail: "on purpose" })
    });
    assert!(done.is_err());
    assert_eq!(monitor.wait().unwrap(), [NftEvent::Overrun]);
    // It listens again.
    run("nft", &["delete table ip other"]);
    let table = Table::new(Family::Ip, "other");
    loop {
        let events = monitor.wait().unwrap();
        if events.iter().any(|e| matches!(e, NftEvent::Touched { table: t, .. } if *t == table)) {
            break;
        }
    }
}
