//! The real iptables is the judge: what it prints and finds.

use std::process::Command;

use super::arguments::split;
use super::variant::Variant;
use super::*;
use crate::nft::{Family, Table};
use crate::testing::TestNs;

fn run(program: &str, args: &[&str]) -> (bool, String) {
    let output = Command::new(program).args(args).output().unwrap();
    let text = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8(text).unwrap())
}

fn words(line: &str) -> Vec<String> {
    split(line)
}

/// Chains and rules as iptables-save prints them.
fn saved(program: &str, table: &str) -> Vec<String> {
    let (_, text) = run(program, &["-t", table]);
    text.lines().filter(|line| line.starts_with([':', '-'])).map(str::to_owned).collect()
}

/// Rules in the words of iptables-save, for IPv4 and for IPv6.
const V4: [&str; 25] = [
    "-j ACCEPT",
    "-d 10.9.0.0/24 -m comment --comment \"name: \\\"net\\\" id: \\\"c1\\\"\" -j ACCEPT",
    "! -d 224.0.0.0/4 -m comment --comment plain -j MASQUERADE",
    "-s 10.9.0.2/32 -j T2",
    "-m comment --comment \"CNI portfwd masquerade mark\" -j MARK --set-xmark 0x2000/0x2000",
    "-m mark --mark 0x2000/0x2000 -j MASQUERADE",
    "-m mark ! --mark 0x5 -j RETURN",
    "-m addrtype --dst-type LOCAL -j T2",
    "-m addrtype ! --src-type LOCAL,BROADCAST --dst-type UNICAST -j RETURN",
    "-p tcp -m comment --comment \"dnat name\" -m multiport --dports 8080,8443 -j T2",
    "! -d 1.2.3.0/24 -i eth+ -p udp -m multiport --ports 1:4,8 -j T2",
    "-s 10.9.0.0/20 -d 1.2.3.4/32 -p tcp -m tcp --dport 8080 -j T2",
    "-p sctp -m sctp --dport 8080 -j DNAT --to-destination 10.9.0.2:80",
    "-p sctp -m sctp --sport 1:9 ! --dport 8080 -j RETURN",
    "-p udp -m udp --sport 1:2 ! --dport 5 -j DNAT --to-destination 10.9.0.2:80",
    "-d 10.9.0.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-m conntrack ! --ctstate INVALID,NEW,DNAT -j RETURN",
    "-i br0 ! -o br0 -g T2",
    "! -i br0.100 -o br0 -p gre -m comment --comment \"it's a \\\\ (test)\" -j RETURN",
    "! -p icmp -m addrtype --dst-type LOCAL",
    "-m comment --comment \"a/b -> 10.9.0.2:80\" -m statistic --mode random --probability 0.33333333349 -j T2",
    "-m recent --rcheck --seconds 10800 --reap --name KUBE-SEP-A --mask 255.255.255.255 --rsource -j T2",
    "-p tcp -m recent --set --name KUBE-SEP-A --mask 255.255.255.255 --rsource -m tcp -j DNAT --to-destination 10.9.0.2:80",
    "-m comment --comment \"to be masqueraded\" -j MASQUERADE --random-fully",
    "-j MARK --set-xmark 0x4000/0x0",
];
const V6: [&str; 9] = [
    "! -d ff00::/8 -j MASQUERADE",
    "-s fd00:9::2/128 -p tcp -m tcp --dport 80 -j T2",
    "-s fd00:9::/60 -j ACCEPT",
    "-p tcp -m tcp --dport 80 -j DNAT --to-destination [fd00:9::2]:80",
    "-m addrtype --dst-type LOCAL -j T2",
    "-p ipv6-icmp -j ACCEPT",
    "-m recent --set --name KUBE-SEP-B --mask ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff --rsource -j T2",
    "-m comment --comment \"to be masqueraded\" -j MASQUERADE --random-fully",
    "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
];

#[test]
fn words_become_a_rule_and_the_same_words_again() {
    for text in V4.iter().chain(&V6) {
        let rule = Rule::parse(&words(text));
        assert!(rule.is_plain(), "{text}: {rule:?}");
        assert_eq!(expected(text), rule.to_string());
    }
}

/// iptables-save quotes an apostrophe with a backslash; the constants are easier to read without.
fn expected(text: &str) -> String {
    text.replace("it's", "it\\'s")
}

#[test]
fn what_the_kernel_gets_reads_back() {
    for (family, rules) in [(Family::Ip, &V4[..]), (Family::Ip6, &V6[..])] {
        for text in rules {
            let rule = Rule::parse(&words(text));
            let lows = render::expressions(&rule, family).unwrap();
            assert_eq!(raise::rule(family, &lows), Some(rule), "{text}");
        }
    }
}

#[test]
fn iptables_shows_our_rules_as_its_own_and_finds_and_deletes_them() {
    let _ns = TestNs::new();
    let mut xtables = Xtables::open();
    assert!(!xtables.variant().legacy);
    for (family, rules, program) in [(Family::Ip, &V4[..], "iptables"), (Family::Ip6, &V6[..], "ip6tables")] {
        let start = Edits::of(family, "nat").edit(Edit::Chain("T".into())).edit(Edit::Chain("T2".into()));
        let mut edits = rules.iter().fold(start, |edits, text| edits.append("T", Rule::parse(&words(text))));
        let last = Rule::jump("T2").comment("last");
        edits = edits.append("POSTROUTING", last).insert("POSTROUTING", Rule::jump("T2"));
        assert!(xtables.apply(std::slice::from_ref(&edits)).unwrap());
        assert!(!xtables.apply(std::slice::from_ref(&edits)).unwrap(), "all of it is there");
        let shown = saved(&format!("{program}-save"), "nat");
        let ours: Vec<&str> = shown.iter().filter_map(|line| line.strip_prefix("-A T ")).collect();
        assert_eq!(ours, rules.iter().map(|text| expected(text)).collect::<Vec<_>>());
        let of_base: Vec<&String> = shown.iter().filter(|line| line.starts_with("-A POSTROUTING")).collect();
        assert_eq!(of_base, ["-A POSTROUTING -j T2", "-A POSTROUTING -m comment --comment last -j T2"]);
        for text in rules {
            let mut args = vec!["-t".to_owned(), "nat".into(), "-D".into(), "T".into()];
            args.extend(words(text));
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let (done, said) = run(program, &args);
            assert!(done, "{text}: {said}");
        }
    }
}

#[test]
fn the_rules_that_iptables_made_are_found_and_removed() {
    let _ns = TestNs::new();
    let mut xtables = Xtables::open();
    run("iptables", &["-t", "nat", "-N", "T"]);
    run("iptables", &["-t", "nat", "-N", "T2"]);
    for text in V4 {
        let mut args = vec!["-t".to_owned(), "nat".into(), "-A".into(), "T".into()];
        args.extend(words(text));
        let (done, said) = run("iptables", &args.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(done, "{text}: {said}");
    }
    let table = Table::new(Family::Ip, "nat");
    let read = xtables.rules(&table, "T").unwrap().unwrap();
    assert_eq!(read, V4.map(|text| Rule::parse(&words(text))));
    let all = V4.iter().fold(Edits::of(Family::Ip, "nat"), |edits, text| {
        edits.edit(Edit::RemoveRule { chain: "T".into(), rule: Rule::parse(&words(text)) })
    });
    assert!(xtables.apply(&[all.edit(Edit::RemoveChain("T".into()))]).unwrap());
    assert_eq!(xtables.rules(&table, "T").unwrap(), None);
    assert!(!saved("iptables-save", "nat").iter().any(|line| line.starts_with("-A")));
}

#[test]
fn chains_and_policies_that_are_there_stay_as_they_are() {
    let _ns = TestNs::new();
    run("iptables", &["-P", "FORWARD", "DROP"]);
    run("iptables", &["-A", "FORWARD", "-m", "limit", "--limit", "1/s", "-j", "ACCEPT"]);
    let edits = Edits::of(Family::Ip, "filter")
        .edit(Edit::Chain("T".into()))
        .insert("FORWARD", Rule::jump("T"))
        .append("INPUT", Rule::jump("T"));
    Xtables::open().apply(&[edits]).unwrap();
    let expected = [
        ":INPUT ACCEPT [0:0]",
        ":FORWARD DROP [0:0]",
        ":OUTPUT ACCEPT [0:0]",
        ":T - [0:0]",
        "-A INPUT -j T",
        "-A FORWARD -j T",
        "-A FORWARD -m limit --limit 1/sec -j ACCEPT",
    ];
    assert_eq!(saved("iptables-save", "filter"), expected);
    let undo = Edits::of(Family::Ip, "filter")
        .edit(Edit::RemoveJumps { from: "FORWARD".into(), to: "T".into() })
        .edit(Edit::RemoveJumps { from: "INPUT".into(), to: "T".into() })
        .edit(Edit::RemoveChain("T".into()));
    Xtables::open().apply(&[undo]).unwrap();
    assert_eq!(saved("iptables-save", "filter").len(), 4);
}

/// The same edits by both ways end in the same rules. The machine's own namespace may have one
/// variant; both are tried here.
#[test]
fn legacy_iptables_gets_the_same_rules_by_one_restore() {
    let legacy = Variant { program: Variant::find().program, legacy: true };
    let _ns = TestNs::new();
    let (usable, said) = run("iptables-legacy-save", &["-t", "nat"]);
    assert!(usable, "this test needs legacy iptables: {said}");
    let start = Edits::of(Family::Ip, "nat").edit(Edit::Chain("T".into())).edit(Edit::Chain("T2".into()));
    let edits = V4.iter().fold(start, |edits, text| edits.append("T", Rule::parse(&words(text))));
    let edits = edits.insert("POSTROUTING", Rule::jump("T2"));
    let mut xtables = Xtables::with(legacy);
    assert!(xtables.apply(std::slice::from_ref(&edits)).unwrap());
    assert!(!xtables.apply(std::slice::from_ref(&edits)).unwrap(), "all of it is there");
    let shown = saved("iptables-legacy-save", "nat");
    let ours: Vec<&str> = shown.iter().filter_map(|line| line.strip_prefix("-A T ")).collect();
    assert_eq!(ours, V4.iter().map(|text| expected(text)).collect::<Vec<_>>());
    let undo = Edits::of(Family::Ip, "nat")
        .edit(Edit::RemoveRule { chain: "T".into(), rule: Rule::parse(&words(V4[1])) })
        .edit(Edit::RemoveJumps { from: "POSTROUTING".into(), to: "T2".into() })
        .edit(Edit::RemoveChain("T".into()));
    assert!(xtables.apply(&[undo]).unwrap());
    let left = saved("iptables-legacy-save", "nat");
    assert!(!left.iter().any(|line| line.starts_with("-A")), "{left:?}");
}

#[test]
fn words_that_only_iptables_knows_go_through_iptables() {
    let _ns = TestNs::new();
    let odd = Rule::jump("T2").with(&words("-s 192.0.2.0/24 -m limit --limit 5/min"));
    assert!(!odd.is_plain());
    let edits = Edits::of(Family::Ip, "nat")
        .edit(Edit::Chain("T".into()))
        .edit(Edit::Chain("T2".into()))
        .append("T", odd);
    Xtables::open().apply(&[edits]).unwrap();
    assert!(
        saved("iptables-save", "nat").contains(&"-A T -s 192.0.2.0/24 -m limit --limit 5/min -j T2".into())
    );
}

#[test]
fn in_a_chain_of_hundreds_the_rule_is_found_wherever_it_is() {
    let _ns = TestNs::new();
    let rule = |n: usize| Rule::to(Target::Return).comment(&format!("rule {n} "));
    let all = (0..400).fold(Edits::of(Family::Ip, "filter").edit(Edit::Chain("T".into())), |edits, n| {
        edits.edit(Edit::Append { chain: "T".into(), rule: rule(n) })
    });
    let mut xtables = Xtables::open();
    xtables.apply(&[all]).unwrap();
    for n in [0, 5, 200, 399] {
        let there = Edits::of(Family::Ip, "filter").append("T", rule(n));
        assert!(!xtables.apply(&[there]).unwrap(), "rule {n} is there");
        let gone =
            Edits::of(Family::Ip, "filter").edit(Edit::RemoveRule { chain: "T".into(), rule: rule(n) });
        assert!(xtables.apply(std::slice::from_ref(&gone)).unwrap());
        assert!(!xtables.apply(&[gone]).unwrap(), "rule {n} is gone");
    }
    let shown = saved("iptables-save", "filter");
    assert_eq!(shown.iter().filter(|line| line.starts_with("-A T")).count(), 396);
    xtables.close_later();
}

#[test]
fn many_at_once_lose_no_rule() {
    let ns = TestNs::new();
    let rule = |n: usize| Rule::to(Target::Return).comment(&format!("rule {n}"));
    let long = (0..300).fold(Edits::of(Family::Ip, "filter").edit(Edit::Chain("LONG".into())), |edits, n| {
        edits.edit(Edit::Append { chain: "LONG".into(), rule: rule(n) })
    });
    Xtables::open().apply(&[long]).unwrap();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let ns = ns.ns().clone();
            scope.spawn(move || {
                ns.enter().unwrap();
                for round in 0..5 {
                    let name = format!("T{n}-{round}");
                    let edits = Edits::of(Family::Ip, "filter")
                        .edit(Edit::Chain("SHARED".into()))
                        .append("FORWARD", Rule::jump("SHARED"))
                        .append("SHARED", Rule::to(Target::Return).comment(&name));
                    Xtables::open().apply(&[edits]).unwrap();
                }
            });
        }
        // Whoever reads meanwhile gets all of a chain too long for one answer.
        let reader = ns.ns().clone();
        scope.spawn(move || {
            reader.enter().unwrap();
            let table = Table::new(Family::Ip, "filter");
            for _ in 0..40 {
                assert_eq!(Xtables::open().rules(&table, "LONG").unwrap().unwrap().len(), 300);
            }
        });
    });
    let shown = saved("iptables-save", "filter");
    assert_eq!(shown.iter().filter(|line| line.starts_with("-A FORWARD")).count(), 1);
    assert_eq!(shown.iter().filter(|line| line.starts_with("-A SHARED")).count(), 40);
}
