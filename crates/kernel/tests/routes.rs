//! Addresses, routes, batches and dumps.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, which may panic")]

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use ipnet::IpNet;
use weft_kernel::testing::TestNs;
use weft_kernel::{Address, Netlink, Op, Route};

const OURS: u8 = 87;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A namespace with `eth0` (10.168.0.2/16, fd00:168::2/64), its other end elsewhere.
fn with_underlay() -> (TestNs, Netlink, u32) {
    let mut test = TestNs::new();
    let (here, there) = (test.ns().clone(), test.extra("there"));
    test.join((&here, "eth0", "10.168.0.2/16"), (&there, "eth0", "10.168.0.3/16"));
    let mut netlink = test.netlink();
    let index = netlink.link("eth0").unwrap().unwrap().index;
    let six = Address { no_dad: true, ..Address::new(index, net("fd00:168::2/64")) };
    netlink.apply(&Op::AddrAdd(six)).unwrap();
    (test, netlink, index)
}

fn ours(netlink: &mut Netlink) -> Vec<Route> {
    netlink.routes().unwrap().into_iter().filter(|route| route.protocol == OURS).collect()
}

#[test]
fn addresses_round_trip() {
    let (_test, mut netlink, index) = with_underlay();
    let addresses = netlink.addresses().unwrap();
    let four = Address::new(index, net("10.168.0.2/16"));
    let six = Address { no_dad: true, ..Address::new(index, net("fd00:168::2/64")) };
    assert!(addresses.contains(&four) && addresses.contains(&six), "{addresses:?}");
    assert!(netlink.apply(&Op::AddrAdd(four.clone())).unwrap_err().exists());
    netlink.apply(&Op::AddrDel(four.clone())).unwrap();
    netlink.apply(&Op::AddrDel(six)).unwrap();
    assert!(netlink.addresses().unwrap().iter().all(|a| a.net != four.net));
    assert!(netlink.apply(&Op::AddrDel(four)).unwrap_err().not_found());
}

#[test]
fn a_route_is_reported_with_all_its_parts() {
    let (_test, mut netlink, index) = with_underlay();
    let base = |dst: &str| Route { protocol: OURS, ..Route::new(net(dst)) };
    let routes = [
        Route { via: Some(ip("10.168.0.3")), oif: Some(index), ..base("10.244.1.0/24") },
        Route {
            via: Some(ip("10.99.0.1")),
            oif: Some(index),
            onlink: true,
            mtu: Some(1400),
            advmss: Some(1360),
            ..base("10.244.2.0/24")
        },
        Route {
            oif: Some(index),
            scope: 253,
            src: Some(ip("10.168.0.2")),
            metric: 7,
            ..base("10.244.3.0/24")
        },
        Route { via: Some(ip("fd00:168::3")), oif: Some(index), table: 5000, ..base("10.244.4.0/24") },
        Route { kind: libc::RTN_BLACKHOLE, ..base("10.244.0.0/16") },
        Route { via: Some(ip("fd00:168::3")), oif: Some(index), ..base("fd00:244:1::/64") },
        Route {
            via: Some(ip("fd00:99::3")),
            oif: Some(index),
            onlink: true,
            mtu: Some(1300),
            ..base("fd00:244:2::/64")
        },
        Route {
            oif: Some(index),
            scope: 253,
            src: Some(ip("fd00:168::2")),
            metric: 5,
            ..base("fd00:244:3::7/64")
        },
        Route { kind: libc::RTN_BLACKHOLE, ..base("fd00:244::/48") },
        Route { via: Some(ip("10.168.0.3")), oif: Some(index), ..base("0.0.0.0/0") },
    ];
    for route in &routes {
        netlink.apply(&Op::RouteReplace(route.clone())).unwrap();
    }
    let reported = ours(&mut netlink);
    for route in &routes {
        assert!(reported.contains(&route.clone().as_reported()), "{route:?} not in {reported:#?}");
    }
    assert_eq!(reported.len(), routes.len());
    assert!(netlink.apply(&Op::RouteAdd(routes[0].clone())).unwrap_err().exists());
    for route in reported {
        netlink.apply(&Op::RouteDel(route)).unwrap();
    }
    assert!(ours(&mut netlink).is_empty());
    assert!(netlink.apply(&Op::RouteDel(routes[0].clone())).unwrap_err().not_found());
}

#[test]
fn replacing_a_route_changes_its_next_hop() {
    let (_test, mut netlink, index) = with_underlay();
    for via in ["10.168.0.3", "10.168.0.4"] {
        let via = Some(ip(via));
        let route = Route { via, oif: Some(index), protocol: OURS, ..Route::new(net("10.244.1.0/24")) };
        netlink.apply(&Op::RouteReplace(route.clone())).unwrap();
        assert_eq!(ours(&mut netlink), [route]);
    }
}

#[test]
fn the_kernel_says_why_it_refuses() {
    let (_test, mut netlink, index) = with_underlay();
    let route = Route { via: Some(ip("10.99.0.1")), oif: Some(index), ..Route::new(net("10.244.1.0/24")) };
    let error = netlink.apply(&Op::RouteAdd(route)).unwrap_err();
    assert_eq!(error.errno(), Some(libc::ENETUNREACH));
    let text = error.to_string();
    assert!(text.contains("add route 10.244.1.0/24 via 10.99.0.1"), "{text}");
    assert!(text.contains("kernel: Nexthop has invalid gateway"), "{text}");
}

#[test]
fn a_failure_in_the_middle_of_a_batch_is_told_alone() {
    let (_test, mut netlink, index) = with_underlay();
    let route = |i: u16| Route {
        via: Some(if i == 500 { ip("10.99.0.1") } else { ip("10.168.0.3") }),
        oif: Some(index),
        protocol: OURS,
        ..Route::new(net(&format!("10.{}.{}.0/24", 200 + i / 250, i % 250)))
    };
    let ops: Vec<Op> = (0..1000).map(|i| Op::RouteReplace(route(i))).collect();
    let results = netlink.batch(&ops);
    assert_eq!(results.len(), 1000);
    for (i, result) in results.iter().enumerate() {
        assert_eq!(result.is_err(), i == 500, "{i}: {result:?}");
    }
    assert_eq!(ours(&mut netlink).len(), 999);
}

#[test]
fn a_batch_keeps_its_order() {
    let (_test, mut netlink, index) = with_underlay();
    let route = Route {
        via: Some(ip("10.168.0.3")),
        oif: Some(index),
        protocol: OURS,
        ..Route::new(net("10.244.1.0/24"))
    };
    let ops: Vec<Op> = (0..401)
        .map(|i| if i % 2 == 0 { Op::RouteAdd(route.clone()) } else { Op::RouteDel(route.clone()) })
        .collect();
    netlink.batch(&ops).into_iter().for_each(|done| done.unwrap());
    assert_eq!(ours(&mut netlink), [route]);
    assert!(netlink.batch(&[]).is_empty());
}

#[test]
fn a_dump_is_whole_while_another_thread_changes_the_table() {
    let (test, mut netlink, index) = with_underlay();
    let base = |dst: &str| Route {
        via: Some(ip("10.168.0.3")),
        oif: Some(index),
        protocol: OURS,
        ..Route::new(net(dst))
    };
    let steady: Vec<Op> = (0..2000)
        .map(|i| Op::RouteReplace(base(&format!("10.{}.{}.0/24", 200 + i / 250, i % 250))))
        .collect();
    netlink.batch(&steady).into_iter().for_each(|done| done.unwrap());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut other = Netlink::open_in(test.ns()).unwrap();
        let (stop, flapping) = (&stop, base("10.100.0.0/24"));
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                other.apply(&Op::RouteReplace(flapping.clone())).unwrap();
                other.apply(&Op::RouteDel(flapping.clone())).unwrap();
            }
        });
        for _ in 0..20 {
            match netlink.routes() {
                Ok(routes) => {
                    let kept =
                        routes.iter().filter(|r| r.protocol == OURS && r.dst != net("10.100.0.0/24")).count();
                    assert_eq!(kept, 2000);
                }
                Err(error) => assert!(matches!(error, weft_kernel::Error::Inconsistent { .. }), "{error}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn the_route_to_a_destination_is_the_kernels_choice() {
    let (_test, mut netlink, index) = with_underlay();
    let via = Some(ip("10.168.0.3"));
    let route = Route { via, oif: Some(index), ..Route::new(net("10.244.1.0/24")) };
    netlink.apply(&Op::RouteReplace(route)).unwrap();
    let found = netlink.route_get(ip("10.244.1.7"), None, None).unwrap();
    assert_eq!((found.via, found.oif, found.src), (via, Some(index), Some(ip("10.168.0.2"))));
    let found = netlink.route_get(ip("10.244.1.7"), Some(ip("10.168.0.2")), None).unwrap();
    assert_eq!(found.via, via);
    let local = netlink.route_get(ip("10.168.0.2"), None, None).unwrap();
    assert_eq!(local.kind, libc::RTN_LOCAL);
    assert_eq!(netlink.route_get(ip("192.0.2.1"), None, None).unwrap_err().errno(), Some(libc::ENETUNREACH));
    assert_eq!(netlink.route_get(ip("fd00:168::9"), None, None).unwrap().oif, Some(index));
}
