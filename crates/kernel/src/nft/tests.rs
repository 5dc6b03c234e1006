//! The kernel is the judge and the `nft` program reads the verdict.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::sched::{CloneFlags, unshare};

use super::*;

/// Puts the calling test thread in a network namespace of its own, which ends with it.
pub(super) fn private() {
    unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
}

pub(super) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match found() {
            Some(found) => return found,
            None if Instant::now() > deadline => panic!("not within 5 s: {what}"),
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn wanted() -> Ruleset {
    let masquerade = Rule::new(
        "leaves the cluster",
        [
            Expr::saddr_in("pods", false),
            Expr::daddr_in("pods", false).negated(),
            Expr::daddr(net("224.0.0.0/4")).negated(),
            Expr::oifname("weft0").negated(),
            Expr::Counter,
            Expr::Masquerade { random_fully: true },
        ],
    );
    let dns =
        Rule::new("", [Expr::l4proto(17), Expr::Port { side: Side::Destination, port: 53 }, Expr::Drop]);
    let marked =
        Rule::new("", [Expr::Mark { value: 0x4000, mask: 0x4000 }, Expr::iifname("eth0"), Expr::Return]);
    let echo =
        Rule::new("", [Expr::l4proto(1), Expr::EchoId(7), Expr::saddr(net("10.0.0.9/32")), Expr::Trace]);
    let narrow = Rule::new("", [Expr::l4proto(6), Expr::TcpSyn, Expr::ClampSegments]);
    Ruleset::new(Family::Ip, "weft")
        .with_set(
            "pods",
            Set::nets(SetKey::Ipv4, [net("10.244.0.0/16"), net("10.245.0.0/24"), net("255.0.0.0/8")]),
        )
        .with_set("hosts", Set::addresses(SetKey::Ipv4, [net("10.168.0.3/32"), net("10.168.0.2/32")]))
        .with_base_chain("postrouting", ChainKind::Nat, Hook::Postrouting, 100, vec![masquerade])
        .with_base_chain("forward", ChainKind::Filter, Hook::Forward, 0, vec![dns, marked, echo, narrow])
}

fn apply(nft: &mut Nft, wanted: &Ruleset) {
    let existing = nft.dump(wanted.table.family, &wanted.table.name).unwrap();
    nft.apply(&wanted.replace_transaction(existing.as_ref())).unwrap();
}

const LISTED: &str = r#"table ip weft {
	set hosts {
		type ipv4_addr
		elements = { 10.168.0.2, 10.168.0.3 }
	}

	set pods {
		type ipv4_addr
		flags interval
		elements = { 10.244.0.0-10.245.0.255, 255.0.0.0/8 }
	}

	chain forward {
		type filter hook forward priority filter; policy accept;
		udp dport 53 drop
		meta mark & 0x00004000 == 0x00004000 iifname "eth0" return
		icmp id 7 ip saddr 10.0.0.9 meta nftrace set 1
		tcp flags syn / syn,rst tcp option maxseg size set rt mtu
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr @pods ip daddr != @pods ip daddr != 224.0.0.0/4 oifname != "weft0" counter masquerade fully-random comment "leaves the cluster"
	}
}
"#;

#[test]
fn a_table_is_listed_by_nft_and_read_back_as_it_was_wanted() {
    private();
    let mut nft = Nft::open().unwrap();
    assert_eq!(nft.dump(Family::Ip, "weft").unwrap(), None);
    apply(&mut nft, &wanted());
    assert_eq!(run("nft", &["-s", "list", "table", "ip", "weft"]), LISTED);
    assert_eq!(nft.dump(Family::Ip, "weft").unwrap(), Some(wanted()));
    assert!(wanted().replace_transaction(Some(&wanted())).is_empty());
}

#[test]
fn both_families_in_one_table() {
    private();
    let pods = Set::nets(SetKey::Ipv6, [net("fd00:10:244::/56"), net("::/8"), net("ff00::/8")]);
    let rules = vec![
        Rule::new("six", [Expr::saddr_in("six", true), Expr::daddr(net("fd00::/8")).negated(), Expr::Accept]),
        Rule::new("four", [Expr::saddr(net("10.0.0.0/9")), Expr::Counter]),
    ];
    let wanted = Ruleset::new(Family::Inet, "weft").with_set("six", pods).with_base_chain(
        "forward",
        ChainKind::Filter,
        Hook::Forward,
        -10,
        rules,
    );
    let mut nft = Nft::open().unwrap();
    apply(&mut nft, &wanted);
    assert_eq!(nft.dump(Family::Inet, "weft").unwrap(), Some(wanted));
    let listed = run("nft", &["-s", "list", "table", "inet", "weft"]);
    assert!(listed.contains("ip6 saddr @six ip6 daddr != fd00::/8 accept comment \"six\""), "{listed}");
    assert!(listed.contains("ip saddr 10.0.0.0/9 counter comment \"four\""), "{listed}");
    let elements: Vec<&str> =
        ["::/8", "fd00:10:244::/56", "ff00::/8"].into_iter().filter(|e| listed.contains(e)).collect();
    assert_eq!(elements.len(), 3, "{listed}");
}

#[test]
fn what_nft_wrote_is_read_the_same() {
    private();
    run(
        "nft",
        &[
            "table ip weft { set pods { type ipv4_addr; flags interval; elements = { 10.244.0.0/16, 10.245.0.0/24, 255.0.0.0/8 }; }; \
         chain postrouting { type nat hook postrouting priority 100; ip saddr @pods masquerade; ip daddr 10.9.0.0/16 jump other; }; \
         chain other { ct mark 1 accept; }; }",
        ],
    );
    let read = Nft::open().unwrap().dump(Family::Ip, "weft").unwrap().unwrap();
    assert_eq!(read.sets["pods"], wanted().sets["pods"]);
    let rules = &read.chains["postrouting"].rules;
    assert_eq!(rules[0].exprs, [Expr::saddr_in("pods", false), Expr::Masquerade { random_fully: false }]);
    assert_eq!(rules[1].to_string(), "ip daddr 10.9.0.0/16 jump other");
    assert_eq!(read.chains["other"].base, None);
    assert!(matches!(read.chains["other"].rules[0].exprs[0], Expr::Other(_)));
}

#[test]
fn a_change_replaces_our_table_and_no_other() {
    private();
    run(
        "nft",
        &[
            "add table ip kube-proxy; add set ip kube-proxy s { type ipv4_addr; }; add chain ip kube-proxy c { type filter hook input priority 0; }; add rule ip kube-proxy c ip saddr @s counter drop comment \"theirs\"; add table inet weft; add chain inet weft theirs",
        ],
    );
    let foreign = || {
        (
            run("nft", &["-a", "list", "table", "ip", "kube-proxy"]),
            run("nft", &["-a", "list", "table", "inet", "weft"]),
        )
    };
    let before = foreign();
    let mut nft = Nft::open().unwrap();
    apply(&mut nft, &wanted());
    let mut less = wanted();
    less.chains.remove("forward");
    less.sets.remove("hosts");
    apply(&mut nft, &less);
    assert_eq!(nft.dump(Family::Ip, "weft").unwrap(), Some(less.clone()));

    // Elements alone leave the rules in place: their handles stay.
    let handles = nft.rules(Family::Ip, "weft").unwrap();
    less.sets.insert("pods".into(), Set::nets(SetKey::Ipv4, [net("10.244.0.0/17"), net("10.9.0.0/16")]));
    apply(&mut nft, &less);
    assert_eq!(nft.dump(Family::Ip, "weft").unwrap(), Some(less));
    assert_eq!(nft.rules(Family::Ip, "weft").unwrap(), handles);
    assert_eq!(handles[0].rule.comment, "leaves the cluster");

    let mut gone = Transaction::default();
    gone.delete_table(&Table::new(Family::Ip, "weft"));
    nft.apply(&gone).unwrap();
    assert_eq!(nft.dump(Family::Ip, "weft").unwrap(), None);
    assert_eq!(foreign(), before);
}

#[test]
fn a_batch_that_fails_leaves_nothing_and_names_the_object() {
    private();
    let mut nft = Nft::open().unwrap();
    let mut t = Transaction::default();
    wanted().add_to(&mut t, false);
    let bad = Rule::new("bad", [Expr::saddr_in("nosuch", false), Expr::Drop]);
    t.add_rule(&Table::new(Family::Ip, "weft"), "forward", &bad);
    let error = nft.apply(&t).unwrap_err();
    assert!(error.not_found(), "{error}");
    let text = error.to_string();
    assert!(
        text.starts_with("add nft rule ip weft chain forward rule `ip saddr @nosuch drop comment \"bad\"`: "),
        "{text}"
    );
    assert_eq!(run("nft", &["list", "ruleset"]), "");
    // And it works again afterwards.
    apply(&mut nft, &wanted());
    assert_eq!(nft.dump(Family::Ip, "weft").unwrap(), Some(wanted()));
}

#[test]
fn a_large_set_is_one_transaction() {
    private();
    // 40 bytes each: more than a megabyte.
    let nets = (0..40_000u32)
        .map(|i| IpNet::new(std::net::Ipv4Addr::from(0x0a00_0000 + i * 512).into(), 24).unwrap());
    let wanted = Ruleset::new(Family::Ip, "weft").with_set("pods", Set::nets(SetKey::Ipv4, nets));
    let mut nft = Nft::open().unwrap();
    let before = nft.generation().unwrap();
    apply(&mut nft, &wanted);
    assert_eq!(nft.generation().unwrap(), before + 1);
    assert_eq!(nft.dump(Family::Ip, "weft").unwrap(), Some(wanted));
}

#[test]
fn the_monitor_notices_a_table_flushed_by_hand_and_tells_own_changes() {
    private();
    let mut nft = Nft::open().unwrap();
    let mut monitor = NftMonitor::open().unwrap();
    assert_eq!(monitor.try_next().unwrap(), None);
    apply(&mut nft, &wanted());
    let table = Table::new(Family::Ip, "weft");
    let mut touched = |port: &dyn Fn(u32) -> bool| {
        eventually("an event", || {
            let events = monitor.try_next().unwrap().unwrap_or_default();
            events
                .into_iter()
                .find(|e| matches!(e, NftEvent::Touched { table: t, port: p } if *t == table && port(*p)))
        })
    };
    let own = nft.port();
    touched(&|port| port == own);
    run("nft", &["flush", "ruleset"]);
    touched(&|port| port != own);
    apply(&mut nft, &wanted());
    run("nft", &["delete", "element", "ip", "weft", "pods", "{ 255.0.0.0/8 }"]);
    touched(&|port| port != own);
    apply(&mut nft, &wanted());
    assert_eq!(nft.dump(Family::Ip, "weft").unwrap(), Some(wanted()));
}

#[test]
fn a_monitor_ignores_one_port_and_hears_all_others() {
    private();
    let [mut ours, mut other] = [(); 2].map(|()| Nft::open().unwrap());
    let table = Table::new(Family::Ip, "weft");
    let mut gone = Transaction::default();
    gone.delete_table(&table);
    let mut monitor = NftMonitor::open().unwrap();
    let mut heard = || {
        let mut ports = BTreeSet::new();
        // The kernel has told when a transaction returns.
        while let Some(events) = monitor.try_next().unwrap() {
            ports.extend(events.into_iter().filter_map(|event| match event {
                NftEvent::Touched { port, .. } => Some(port),
                _ => None,
            }));
        }
        ports
    };
    apply(&mut ours, &wanted());
    assert_eq!(heard(), [ours.port()].into());
    monitor.ignore(ours.port()).unwrap();
    ours.apply(&gone).unwrap();
    assert_eq!(monitor.try_next().unwrap(), None);
    apply(&mut ours, &wanted());
    other.apply(&gone).unwrap();
    let heard = monitor.try_next().unwrap().unwrap();
    assert!(heard.contains(&NftEvent::Touched { table, port: other.port() }), "{heard:?}");
    assert!(
        heard.iter().all(|event| !matches!(event, NftEvent::Touched { port, .. } if *port == ours.port()))
    );
}

#[test]
fn a_trace_names_the_rule_that_dropped_and_its_table_goes_with_the_socket() {
    private();
    run("ip", &["link", "set", "lo", "up"]);
    run(
        "nft",
        &[
            "table ip theirs { chain in { type filter hook input priority 0; udp dport 9 drop comment \"no discard\"; }; }",
        ],
    );
    let trace =
        Rule::new("", [Expr::l4proto(17), Expr::Port { side: Side::Destination, port: 9 }, Expr::Trace]);
    let table = Ruleset::new(Family::Inet, "weft-trace").with_base_chain(
        "prerouting",
        ChainKind::Filter,
        Hook::Prerouting,
        -300,
        vec![trace],
    );
    let mut owner = Nft::open().unwrap();
    let mut t = Transaction::default();
    table.add_to(&mut t, true);
    owner.apply(&t).unwrap();
    let mut monitor = TraceMonitor::open().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(b"x", "127.0.0.1:9").unwrap();
    let mut seen = Vec::new();
    let dropped = eventually("a drop", || {
        seen.extend(monitor.ready().unwrap());
        seen.iter().find(|e| e.verdict == Verdict::Drop).cloned()
    });
    assert_eq!((dropped.table.to_string().as_str(), dropped.chain.as_str()), ("ip theirs", "in"));
    assert_eq!(dropped.kind, TraceKind::Rule);
    assert!(seen.iter().all(|e| e.id == dropped.id));
    assert!(seen.iter().any(|e| e.network.len() >= 20 && e.transport.len() >= 8));
    let rules = Nft::open().unwrap().rules(Family::Ip, "theirs").unwrap();
    let rule = rules.iter().find(|r| Some(r.handle) == dropped.handle).unwrap();
    assert_eq!(rule.rule.to_string(), "meta l4proto 17 th dport 9 drop comment \"no discard\"");
    drop(owner);
    eventually("the owned table is gone", || {
        (!run("nft", &["list", "tables"]).contains("weft-trace")).then_some(())
    });
}
