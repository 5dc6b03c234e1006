//! Events of changes made by others.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests, which may panic")]

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use weft_kernel::testing::TestNs;
use weft_kernel::{Event, FdbEntry, LinkKind, Monitor, NewLink, Op, Route, sysctl};
use weft_model::Mac;

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

/// The first event that `wanted` takes, of those that come within ten seconds.
fn wait_for(monitor: &mut Monitor, wanted: impl Fn(&Event) -> bool) -> Event {
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        match monitor.try_next().unwrap() {
            Some(event) if wanted(&event) => return event,
            Some(_) => {}
            None => {
                let short = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
                poll(&mut [PollFd::new(&*monitor, PollFlags::IN)], Some(&short)).unwrap();
            }
        }
    }
    panic!("the event did not come");
}

#[test]
fn what_another_program_does_is_seen() {
    let test = TestNs::new();
    let mut netlink = test.netlink();
    let mut monitor = Monitor::open().unwrap();
    assert!(monitor.try_next().unwrap().is_none());
    ip("link add br0 up type bridge");
    let Event::Link { link, .. } =
        wait_for(&mut monitor, |e| matches!(e, Event::Link { new: true, link } if link.up))
    else {
        unreachable!()
    };
    assert_eq!((link.name.as_str(), link.kind.as_deref()), ("br0", Some("bridge")));
    ip("addr add 10.0.0.1/24 dev br0");
    wait_for(
        &mut monitor,
        |e| matches!(e, Event::Address { new: true, address } if address.net.to_string() == "10.0.0.1/24"),
    );
    let route = Route {
        oif: Some(link.index),
        protocol: 87,
        scope: 253,
        ..Route::new("10.244.0.0/24".parse().unwrap())
    };
    netlink.apply(&Op::RouteReplace(route.clone())).unwrap();
    wait_for(&mut monitor, |e| matches!(e, Event::Route { new: true, route: seen } if *seen == route));
    ip("route del 10.244.0.0/24");
    wait_for(&mut monitor, |e| matches!(e, Event::Route { new: false, route: seen } if *seen == route));
    ip("neigh replace 10.0.0.9 lladdr 02:00:00:00:00:09 nud permanent dev br0");
    wait_for(
        &mut monitor,
        |e| matches!(e, Event::Neighbour { new: true, neighbour } if neighbour.state == libc::NUD_PERMANENT),
    );
    ip("link del br0");
    wait_for(
        &mut monitor,
        |e| matches!(e, Event::Link { new: false, link: gone } if gone.index == link.index),
    );
}

#[test]
fn a_forwarding_entry_and_a_sysctl_are_seen() {
    let test = TestNs::new();
    let mut netlink = test.netlink();
    let kind = LinkKind::Vxlan { vni: 7, port: 8472, local: None, dev: None, learning: false };
    netlink.apply(&Op::LinkAdd(NewLink::new("vx0", kind))).unwrap();
    let index = netlink.link("vx0").unwrap().unwrap().index;
    let mut monitor = Monitor::open().unwrap();
    let entry = FdbEntry::tunnel(index, Mac([2, 0, 0, 0, 0, 1]), "10.0.0.1".parse().unwrap());
    netlink.apply(&Op::FdbReplace(entry.clone())).unwrap();
    wait_for(&mut monitor, |e| *e == Event::Fdb { new: true, entry: entry.clone() });
    netlink.apply(&Op::FdbDel(entry.clone())).unwrap();
    wait_for(&mut monitor, |e| *e == Event::Fdb { new: false, entry: entry.clone() });
    sysctl::set("net.ipv4.ip_forward", "1").unwrap();
    wait_for(
        &mut monitor,
        |e| matches!(e, Event::Netconf(n) if n.ifindex == -1 && n.forwarding == Some(true) && !n.ipv6),
    );
    assert!(!sysctl::ensure("net.ipv4.ip_forward", "1").unwrap());
    assert!(sysctl::ensure("net.ipv4.ip_forward", "0").unwrap());
}

#[test]
fn a_port_that_leaves_its_bridge_is_not_reported_as_removed() {
    let _test = TestNs::new();
    for arguments in
        ["link add br0 type bridge", "link add p0 type veth peer name p1", "link set p0 master br0"]
    {
        ip(arguments);
    }
    let mut monitor = Monitor::open().unwrap();
    ip("link set p0 nomaster");
    ip("link set br0 up");
    loop {
        match monitor.next().unwrap() {
            Event::Link { new, link } if link.name == "p0" => assert!(new, "{link:?}"),
            Event::Link { link, .. } if link.name == "br0" && link.up => break,
            _ => {}
        }
    }
}

#[test]
fn lost_events_are_told_once_and_then_it_goes_on() {
    let test = TestNs::new();
    let mut netlink = test.netlink();
    netlink.apply(&Op::LinkAdd(NewLink { up: true, ..NewLink::new("br0", LinkKind::Bridge) })).unwrap();
    let index = netlink.link("br0").unwrap().unwrap().index;
    let mut monitor = Monitor::open().unwrap();
    let route = |i: u32| Route {
        oif: Some(index),
        scope: 253,
        ..Route::new(format!("10.{}.{}.0/24", i / 250, i % 250).parse().unwrap())
    };
    let add: Vec<Op> = (0..10_000).map(|i| Op::RouteAdd(route(i))).collect();
    let remove: Vec<Op> = (0..10_000).map(|i| Op::RouteDel(route(i))).collect();
    for ops in [&add, &remove, &add, &remove] {
        netlink.batch(ops).into_iter().for_each(|done| done.unwrap());
    }
    wait_for(&mut monitor, |e| *e == Event::Overrun);
    assert_eq!(monitor.try_next().unwrap(), None, "what is older than the loss is not handed out");
    netlink.apply(&Op::RouteAdd(route(1))).unwrap();
    wait_for(&mut monitor, |e| matches!(e, Event::Route { new: true, route: seen } if *seen == route(1)));
}

#[test]
fn a_route_that_goes_with_its_link_is_announced_by_the_link_alone() {
    let mut test = TestNs::new();
    let (here, there) = (test.ns().clone(), test.extra("there"));
    test.join((&here, "eth0", "10.168.0.2/16"), (&there, "eth0", "10.168.0.3/16"));
    ip("route add 10.244.1.0/24 via 10.168.0.3 proto 87");
    let mut monitor = Monitor::open().unwrap();
    ip("link set eth0 down");
    ip("link set lo down");
    loop {
        match monitor.next().unwrap() {
            Event::Route { route, .. } => {
                assert_ne!(route.protocol, 87, "the documentation of Monitor is out of date")
            }
            Event::Link { link, .. } if link.name == "lo" => break,
            _ => {}
        }
    }
    assert!(test.netlink().routes().unwrap().iter().all(|route| route.protocol != 87));
}
