//! Servers, networks and daemons that are not as they should be.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use weft_ipam::dhcp::v4::{Message, kind, option};
use weft_kernel::testing::eventually;
use weft_kernel::{Netlink, Op};
use weft_model::Mac;

use crate::common::{Call, path};
use crate::fake::{Fake, SERVER, answer};
use crate::harness::{Lan, PATIENCE, address_of, addresses, give};

const FIRST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 70);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 71);
const RANGE: &str = "--dhcp-range=10.1.0.50,10.1.0.60,255.255.255.0,120";
/// Renewed after a second, by any server after two.
const HASTY: [(u8, &[u8]); 3] = [
    (option::LEASE_TIME, &[0, 0, 1, 0]),
    (option::RENEWAL_TIME, &[0, 0, 0, 1]),
    (option::REBINDING_TIME, &[0, 0, 0, 2]),
];

#[test]
fn without_a_daemon_an_add_says_how_to_start_it_and_a_del_succeeds() {
    let mut lan = Lan::new();
    let pod = lan.pod();
    let config = lan.config(json!({}));
    let add = lan.add("web", &pod, &config);
    assert_eq!(add.code(), 11, "{}", add.json);
    assert!(add.message().contains("dhcp daemon") && add.message().contains("sock"), "{}", add.json);
    lan.del("web", &pod, &config).success();
    let mut newest = config.clone();
    newest["cniVersion"] = "1.1.0".into();
    let status = Call::new("STATUS", "web", None, &newest).run();
    assert_eq!(status.code(), 50, "{}", status.json);
    let _daemon = lan.daemon(&[]);
    assert!(Call::new("STATUS", "web", None, &newest).run().ok);
    // One that was killed left its socket.
}

#[test]
fn without_a_server_an_add_fails_in_time_and_leaves_nothing() {
    let mut lan = Lan::new();
    let _daemon = lan.daemon(&["-resendtimeout", "1s"]);
    let pod = lan.pod();
    let began = Instant::now();
    let add = lan.add("web", &pod, &lan.config(json!({})));
    assert_eq!(add.code(), 11, "{}", add.json);
    assert!(add.message().contains("no server answers"), "{}", add.json);
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(lan.saved(), 0);
    let missing =
        Call::new("ADD", "web", Some(&path(&pod)), &lan.config(json!({}))).env("CNI_IFNAME", Some("eth7"));
    let missing = missing.run();
    assert!(missing.code() == 11 && missing.message().contains("eth7"), "{}", missing.json);
}

#[test]
fn a_server_that_lies_is_not_believed() {
    let mut lan = Lan::new();
    let server = lan.server(&["10.1.0.1/24"]);
    let _daemon = lan.daemon(&[]);
    let pod = lan.pod();
    let fake = Fake::new(&server);
    let config = lan.config(json!({}));
    let result = thread::scope(|scope| {
        scope.spawn(|| {
            let (discover, _) = fake.expect(kind::DISCOVER);
            fake.send(&[0xff; 900]);
            fake.send(&[]);
            // Another client's, by its number and by its address.
            let fair = answer(&discover, kind::OFFER, SECOND, &[]);
            fake.send(&Message { xid: !discover.xid, ..fair.clone() }.encode());
            fake.send(&Message { mac: Mac([2; 6]), ..fair.clone() }.encode());
            // A length that runs beyond the end; options that go on where there are none.
            let mut cut = fair.encode();
            cut.truncate(260);
            cut.extend([option::DNS, 250, 1]);
            fake.send(&cut);
            let mut overloaded = answer(&discover, kind::OFFER, SECOND, &[(option::OVERLOAD, &[3])]).encode();
            overloaded[44..236].fill(0xfe);
            fake.send(&overloaded);
            // Of no use: a lease of no time, no mask, nobody's address.
            fake.answer(&discover, kind::OFFER, SECOND, &[(option::LEASE_TIME, &[0; 4])]);
            fake.answer(&discover, kind::OFFER, SECOND, &[(option::SUBNET_MASK, &[])]);
            fake.answer(&discover, kind::OFFER, Ipv4Addr::BROADCAST, &[]);
            // An ACK that nobody asked for.
            fake.answer(&discover, kind::ACK, SECOND, &[]);
            fake.answer(&discover, kind::OFFER, FIRST, &[]);
            let (request, _) = fake.expect(kind::REQUEST);
            assert_eq!(request.options.address(option::REQUESTED_ADDRESS), Some(FIRST));
            fake.answer(&request, kind::ACK, SECOND, &[(option::SERVER_ID, &[10, 1, 0, 9])]);
            fake.answer(&request, kind::ACK, FIRST, &[]);
        });
        lan.add("web", &pod, &config).success()
    });
    assert_eq!(address_of(&result), FIRST);
}

#[test]
fn the_fault_of_a_server_is_in_the_error() {
    let mut lan = Lan::new();
    let server = lan.server(&["10.1.0.1/24"]);
    let _daemon = lan.daemon(&["-resendtimeout", "2s"]);
    let pod = lan.pod();
    let fake = Fake::new(&server);
    let add = thread::scope(|scope| {
        scope.spawn(|| {
            let (discover, _) = fake.expect(kind::DISCOVER);
            fake.answer(&discover, kind::OFFER, FIRST, &[(option::SUBNET_MASK, &[])]);
        });
        lan.add("web", &pod, &lan.config(json!({})))
    });
    assert!(add.code() == 11 && add.message().contains("subnet mask"), "{}", add.json);
}

#[test]
fn an_address_that_somebody_has_is_declined() {
    let mut lan = Lan::new();
    let server = lan.server(&["10.1.0.1/24"]);
    let _squatter = lan.server(&["10.1.0.70/24"]);
    let _daemon = lan.daemon(&[]);
    let pod = lan.pod();
    let fake = Fake::new(&server);
    let result = thread::scope(|scope| {
        scope.spawn(|| {
            fake.lease(FIRST, &[]);
            let (decline, _) = fake.expect(kind::DECLINE);
            assert_eq!(decline.options.address(option::REQUESTED_ADDRESS), Some(FIRST));
            fake.lease(SECOND, &[]);
        });
        lan.add("web", &pod, &lan.config(json!({}))).success()
    });
    assert_eq!(address_of(&result), SECOND);
}

#[test]
fn of_two_servers_one_gives_the_lease() {
    let mut lan = Lan::new();
    let one = lan.server(&["10.1.0.1/24"]);
    let two = lan.server(&["10.1.0.2/24"]);
    let _one = lan.dnsmasq(&one, "one", &[RANGE]);
    let _two = lan.dnsmasq(&two, "two", &["--dhcp-range=10.1.0.80,10.1.0.90,255.255.255.0,120"]);
    let _daemon = lan.daemon(&[]);
    let pod = lan.pod();
    let result = lan.add("web", &pod, &lan.config(json!({}))).success();
    let address = address_of(&result).to_string();
    let held = [lan.read("one.leases"), lan.read("two.leases")];
    assert_eq!(held.iter().filter(|leases| leases.contains(&address)).count(), 1, "{held:?}");
    assert_eq!(held.iter().filter(|leases| leases.trim().is_empty()).count(), 1, "{held:?}");
}

#[test]
fn a_lease_is_renewed_then_rebound_then_refused_and_the_pod_gets_another_address() {
    let mut lan = Lan::new();
    let server = lan.server(&["10.1.0.1/24"]);
    let _daemon = lan.daemon(&[]);
    let pod = lan.pod();
    let fake = Fake::new(&server);
    thread::scope(|scope| {
        let first = scope.spawn(|| fake.lease(FIRST, &HASTY));
        let result = lan.add("web", &pod, &lan.config(json!({}))).success();
        first.join().unwrap();
        assert_eq!(address_of(&result), FIRST);
    });
    give(&pod, "eth0", &["10.1.0.70/24"]);
    let (renewal, from) = fake.expect(kind::REQUEST);
    assert_eq!((renewal.client, from), (FIRST, FIRST), "from its address, by the kernel's own routing");
    fake.answer(&renewal, kind::ACK, FIRST, &HASTY);
    let (renewal, _) = fake.expect(kind::REQUEST);
    // The server does not answer that one; a second later it is told everybody.
    let (rebinding, _) = fake.expect(kind::REQUEST);
    assert_eq!((rebinding.client, rebinding.xid), (FIRST, renewal.xid));
    fake.answer(&rebinding, kind::NAK, Ipv4Addr::UNSPECIFIED, &[]);
    fake.lease(SECOND, &[]);
    eventually(PATIENCE, "the pod has the other address alone", || {
        addresses(&pod, "eth0") == ["10.1.0.71/24"]
    });
    let routes = Netlink::open_in(&pod).unwrap().routes().unwrap();
    assert!(routes.iter().any(|route| route.via == Some(SERVER.into()) && route.dst.prefix_len() == 0));
    lan.del("web", &pod, &lan.config(json!({}))).success();
    let (release, _) = fake.expect(kind::RELEASE);
    assert_eq!(release.client, SECOND);
}

#[test]
fn the_daemon_lets_go_of_a_pod_that_is_gone() {
    let mut lan = Lan::new();
    let server = lan.server(&["10.1.0.1/24"]);
    let daemon = lan.daemon(&[]);
    let pod = lan.pod();
    let fake = Fake::new(&server);
    thread::scope(|scope| {
        scope.spawn(|| fake.lease(FIRST, &HASTY));
        lan.add("web", &pod, &lan.config(json!({}))).success();
    });
    assert_eq!(lan.saved(), 1);
    let held = || {
        let links = std::fs::read_dir(format!("/proc/{}/fd", daemon.0.id())).unwrap();
        links.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok()).any(|to| to.starts_with("net:"))
    };
    assert!(!held(), "no descriptor of the pod's namespace");
    let mut netlink = Netlink::open_in(&pod).unwrap();
    let index = netlink.link("eth0").unwrap().unwrap().index;
    netlink.apply(&Op::LinkDel(index)).unwrap();
    eventually(PATIENCE, "the lease is forgotten", || lan.saved() == 0);
}

#[test]
fn a_caller_that_goes_away_ends_its_add() {
    let mut lan = Lan::new();
    let server = lan.server(&["10.1.0.1/24"]);
    let _daemon = lan.daemon(&[]);
    let pod = lan.pod();
    let fake = Fake::new(&server);
    let mut plugin = Call::new("ADD", "web", Some(&path(&pod)), &lan.config(json!({}))).start();
    let (discover, _) = fake.expect(kind::DISCOVER);
    plugin.kill().unwrap();
    plugin.wait().unwrap();
    eventually(PATIENCE, "the daemon notices", || lan.read("daemon.log").contains("over"));
    fake.answer(&discover, kind::OFFER, FIRST, &[]);
    assert!(fake.silent(Duration::from_millis(300)), "nobody wants it any more");
}

#[test]
fn what_belongs_to_no_valid_attachment_is_given_back() {
    let mut lan = Lan::new();
    let server = lan.server(&["10.1.0.1/24"]);
    let _dnsmasq = lan.dnsmasq(&server, "one", &[RANGE]);
    let _daemon = lan.daemon(&[]);
    let (kept, gone) = (lan.pod(), lan.pod());
    let mut config = lan.config(json!({}));
    config["cniVersion"] = "1.1.0".into();
    let stays = address_of(&lan.add("kept", &kept, &config).success()).to_string();
    let goes = address_of(&lan.add("gone", &gone, &config).success()).to_string();
    config["cni.dev/valid-attachments"] = json!([{"containerID": "kept", "ifname": "eth0"}]);
    assert!(Call::new("GC", "", None, &config).run().ok);
    eventually(PATIENCE, "one lease is given back", || !lan.read("one.leases").contains(&goes));
    assert!(lan.read("one.leases").contains(&stays) && lan.saved() == 1);
}

#[test]
fn many_pods_at_once_get_an_address_each() {
    let mut lan = Lan::new();
    let server = lan.server(&["10.1.0.1/24"]);
    let _dnsmasq = lan.dnsmasq(&server, "one", &["--dhcp-range=10.1.0.50,10.1.0.150,255.255.255.0,120"]);
    let _daemon = lan.daemon(&[]);
    let pods: Vec<_> = (0..20).map(|_| lan.pod()).collect();
    let config = lan.config(json!({}));
    let calls: Vec<_> = pods
        .iter()
        .enumerate()
        .map(|(n, pod)| Call::new("ADD", &format!("pod{n}"), Some(&path(pod)), &config).start())
        .collect();
    let mut given: Vec<String> = calls
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert!(output.status.success(), "{result}");
            address_of(&result).to_string()
        })
        .collect();
    given.sort();
    given.dedup();
    assert_eq!((given.len(), lan.saved()), (20, 20));
}
