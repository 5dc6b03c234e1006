//! Routing rules and traffic control, as the kernel and `tc` see them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, which may panic")]

use std::process::Command;

use weft_kernel::testing::TestNs;
use weft_kernel::{Class, Filter, LinkSet, Match, Op, Qdisc, QdiscKind, Rule, Tbf, Verdict, ticks};

fn tc(arguments: &[&str]) -> String {
    let output = Command::new("tc").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn rules_of_both_families_are_added_read_and_removed() {
    let ns = TestNs::new();
    let mut netlink = ns.netlink();
    let wanted = [
        Rule { priority: Some(10), from: "10.1.2.3/32".parse().ok(), table: 100, ..Rule::default() },
        Rule { priority: Some(11), to: "10.1.0.0/16".parse().ok(), table: 70_000, ..Rule::default() },
        Rule { priority: Some(12), iif: Some("lo".into()), table: 101, ..Rule::default() },
        Rule { priority: Some(13), fwmark: Some(0x10), fwmask: Some(0xf0), table: 101, ..Rule::default() },
        Rule { priority: Some(14), l3mdev: true, ..Rule::default() },
        Rule {
            ipv6: true,
            priority: Some(15),
            from: "fd00::1/128".parse().ok(),
            table: 102,
            ..Rule::default()
        },
    ];
    for rule in &wanted {
        netlink.apply(&Op::RuleAdd(rule.clone())).unwrap();
        assert!(netlink.apply(&Op::RuleAdd(rule.clone())).unwrap_err().exists(), "{rule}");
    }
    let read = netlink.rules().unwrap();
    for rule in &wanted {
        let found = read.iter().find(|r| r.ipv6 == rule.ipv6 && r.priority == rule.priority).unwrap();
        assert_eq!(*found, Rule { action: 1, ..rule.clone() });
    }
    for rule in wanted {
        netlink.apply(&Op::RuleDel(rule.clone())).unwrap();
        assert!(netlink.apply(&Op::RuleDel(rule)).unwrap_err().not_found());
    }
    let left: Vec<Option<u32>> = netlink.rules().unwrap().iter().map(|rule| rule.priority).collect();
    assert_eq!(left, [0, 32766, 32767, 0, 32766].map(Some), "those that every namespace has");
}

#[test]
fn the_kernel_chooses_the_priority_of_a_rule_without_one() {
    let ns = TestNs::new();
    let mut netlink = ns.netlink();
    let rule = Rule { from: "10.1.2.3/32".parse().ok(), table: 100, ..Rule::default() };
    netlink.apply(&Op::RuleAdd(rule)).unwrap();
    assert_eq!(netlink.rules().unwrap()[1].priority, Some(32765));
}

#[test]
fn a_token_bucket_is_what_tc_shows_and_what_is_read() {
    let ns = TestNs::new();
    let mut netlink = ns.netlink();
    // 10 KiB take 80 ms at 128,000 bytes a second.
    let slow = Tbf { rate: 128_000, buffer: ticks(80_000), limit: 13_440 };
    let qdisc = Qdisc::root(1, QdiscKind::Tbf(slow));
    netlink.apply(&Op::QdiscAdd(qdisc.clone())).unwrap();
    assert!(netlink.apply(&Op::QdiscAdd(qdisc.clone())).unwrap_err().exists());
    assert!(netlink.qdiscs(1).unwrap().contains(&qdisc));
    let shown = tc(&["qdisc", "show", "dev", "lo"]);
    assert!(shown.contains("tbf 1: root refcnt 2 rate 1024Kbit burst 10Kb lat 25ms"), "{shown}");
    // 40 Gbit/s do not fit the old field.
    let fast = Qdisc::root(1, QdiscKind::Tbf(Tbf { rate: 5_000_000_000, buffer: 9, limit: 99_999 }));
    netlink.apply(&Op::QdiscReplace(fast.clone())).unwrap();
    assert!(netlink.qdiscs(1).unwrap().contains(&fast));
    netlink.apply(&Op::QdiscDel(fast.clone())).unwrap();
    assert!(netlink.qdiscs(1).unwrap().iter().all(|qdisc| qdisc.kind.name() != "tbf"));
}

#[test]
fn incoming_packets_are_redirected_and_classes_divide_what_leaves() {
    let mut ns = TestNs::new();
    let (here, there) = (ns.ns().clone(), ns.extra("there"));
    ns.join((&here, "a", "10.0.0.1/24"), (&there, "b", "10.0.0.2/24"));
    let mut netlink = ns.netlink();
    let link = netlink.link("a").unwrap().unwrap().index;
    let incoming = Qdisc::incoming(link, QdiscKind::Ingress);
    let redirect = Filter {
        ifindex: link,
        parent: incoming.handle,
        handle: 0,
        priority: 1,
        protocol: 3,
        matches: Match::All,
        verdict: Verdict::Redirect { ifindex: 1, class: 0x1_0001 },
    };
    let root = Qdisc::root(link, QdiscKind::Htb { default: 0x30 });
    let class = Class { ifindex: link, parent: 0x1_0000, handle: 0x1_0030, rate: 125_000, buffer: 7 };
    let class_of = |priority, protocol, matches| Filter {
        ifindex: link,
        parent: root.handle,
        handle: 0,
        priority,
        protocol,
        matches,
        verdict: Verdict::Class(0x1_0030),
    };
    let classify = [
        class_of(1, 0x800, Match::Source("10.9.0.0/16".parse().unwrap())),
        class_of(1, 0x800, Match::Destination("0.0.0.0/1".parse().unwrap())),
        class_of(2, 0x86dd, Match::Destination("fd00:1:2:3:400::/72".parse().unwrap())),
        class_of(2, 0x86dd, Match::Source("fd00::1/128".parse().unwrap())),
    ];
    let mut ops = vec![Op::QdiscAdd(incoming.clone()), Op::FilterAdd(redirect.clone())];
    ops.extend([Op::QdiscAdd(root.clone()), Op::ClassAdd(class.clone())]);
    ops.extend(classify.iter().cloned().map(Op::FilterAdd));
    for done in netlink.batch(&ops) {
        done.unwrap();
    }
    let without_handle = |filters: Vec<Filter>| -> Vec<Filter> {
        filters.into_iter().map(|filter| Filter { handle: 0, ..filter }).collect()
    };
    assert_eq!(without_handle(netlink.filters(link, incoming.handle).unwrap()), [redirect]);
    assert_eq!(without_handle(netlink.filters(link, root.handle).unwrap()), classify);
    assert_eq!(netlink.qdiscs(link).unwrap(), [root, incoming.clone()]);
    let read = netlink.classes(link).unwrap();
    assert_eq!(
        read.iter().map(|c| (c.handle, c.rate, c.buffer)).collect::<Vec<_>>(),
        [(0x1_0030, 125_000, 7)]
    );
    let shown = tc(&["filter", "show", "dev", "a", "parent", "ffff:"]);
    assert!(shown.contains("mirred (Egress Redirect to device lo) stolen"), "{shown}");
    netlink.apply(&Op::QdiscDel(incoming.clone())).unwrap();
    netlink.apply(&Op::QdiscAdd(Qdisc::incoming(link, QdiscKind::Clsact))).unwrap();
    assert!(netlink.qdiscs(link).unwrap().iter().any(|qdisc| qdisc.kind == QdiscKind::Clsact));
}

#[test]
fn a_links_queue_length_and_all_multicast_are_set_and_read() {
    let ns = TestNs::new();
    let mut netlink = ns.netlink();
    let set = LinkSet { index: 1, tx_queue_len: Some(77), allmulti: Some(true), ..LinkSet::default() };
    netlink.apply(&Op::LinkSet(set)).unwrap();
    let lo = netlink.link("lo").unwrap().unwrap();
    assert_eq!((lo.tx_queue_len, lo.allmulti, lo.promiscuous), (77, true, false));
}
