//! Leases of dnsmasq and Kea.

use std::fs;

use serde_json::{Value, json};
use weft_kernel::testing::eventually;

use crate::harness::{Lan, PATIENCE, Process, address_of, write};

const RANGE: &str = "--dhcp-range=10.1.0.50,10.1.0.60,255.255.255.0,120";

/// The numbers of all options that a result or a test looks at.
fn everything() -> Value {
    let codes = ["121", "249", "6", "15", "26", "42", "43", "119"];
    json!({"request": codes.map(|code| json!({"option": code}))})
}

#[test]
fn a_lease_says_all_that_a_result_can_say_and_a_del_gives_it_back() {
    let mut lan = Lan::new();
    let server = lan.server(&["10.1.0.1/24"]);
    let options = [
        RANGE,
        "--dhcp-option=3,10.1.0.1",
        "--dhcp-option=6,10.1.0.2,10.1.0.3",
        "--dhcp-option=15,shop.example",
        "--dhcp-option=26,1400",
        "--dhcp-option=42,10.1.0.4",
        "--dhcp-option=119,eng.shop.example,shop.example",
        "--dhcp-option=121,0.0.0.0/0,10.1.0.1,192.0.2.0/25,10.1.0.9",
        "--dhcp-option=249,198.51.100.0/24,10.1.0.8",
    ];
    let _dnsmasq = lan.dnsmasq(&server, "one", &options);
    let _daemon = lan.daemon(&[]);
    let pod = lan.pod();
    let config = lan.config(everything());
    let result = lan.add("web", &pod, &config).success();
    let address = address_of(&result);
    assert_eq!(
        result,
        json!({
            "cniVersion": "1.0.0",
            "ips": [{"address": format!("{address}/24"), "gateway": "10.1.0.1"}],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}, {"dst": "192.0.2.0/25", "gw": "10.1.0.9"}],
            "dns": {
                "nameservers": ["10.1.0.2", "10.1.0.3"], "domain": "shop.example",
                "search": ["eng.shop.example", "shop.example"],
            },
        })
    );
    let mut newest = config.clone();
    newest["cniVersion"] = "1.1.0".into();
    newest["ipam"]["priority"] = 77.into();
    let again = lan.add("web", &pod, &newest).success();
    assert_eq!(again["routes"][0]["mtu"], 1400);
    assert_eq!(address_of(&again), address, "the same lease");
    let held = lan.read("one.leases");
    assert!(held.contains(&address.to_string()) && held.contains("00:77:65:62:2f:6e:65:74"), "{held}");
    assert!(lan.add("web", &pod, &json!({})).code() == 7 || !lan.read("one.leases").is_empty());
    lan.del("web", &pod, &config).success();
    eventually(PATIENCE, "the server takes it back", || {
        !lan.read("one.leases").contains(&address.to_string())
    });
    assert_eq!(lan.saved(), 0);
    lan.del("web", &pod, &config).success();
}

#[test]
fn microsofts_routes_count_where_there_are_no_others_of_their_kind() {
    let mut lan = Lan::new();
    let server = lan.server(&["10.1.0.1/24"]);
    let options = [RANGE, "--dhcp-option=3,10.1.0.1", "--dhcp-option=249,198.51.100.0/24,10.1.0.8"];
    let _dnsmasq = lan.dnsmasq(&server, "one", &options);
    let _daemon = lan.daemon(&[]);
    let pod = lan.pod();
    let result = lan.add("web", &pod, &lan.config(everything())).success();
    assert_eq!(result["routes"], json!([{"dst": "198.51.100.0/24", "gw": "10.1.0.8"}]));
    let other = lan.pod();
    let plain = lan.add("app", &other, &lan.config(json!({}))).success();
    assert_eq!(plain["routes"], json!([{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}]), "not asked for");
    assert!(plain["dns"].as_object().is_none_or(serde_json::Map::is_empty), "{plain}");
}

#[test]
fn what_a_pod_provides_reaches_the_server() {
    let mut lan = Lan::new();
    let server = lan.server(&["10.1.0.1/24"]);
    let _dnsmasq = lan.dnsmasq(
        &server,
        "one",
        &[RANGE, "--dhcp-vendorclass=set:red,Weft", "--dhcp-option=tag:red,3,10.1.0.7"],
    );
    let _daemon = lan.daemon(&["-broadcast"]);
    let pod = lan.pod();
    let config = lan.config(json!({"provide": [
        {"option": "host-name", "fromArg": "K8S_POD_NAME"},
        {"option": "vendor-class-identifier", "value": "Weft-pod"},
    ]}));
    let result = lan.add("web", &pod, &config).success();
    assert_eq!(result["ips"][0]["gateway"], "10.1.0.7", "the vendor class was seen");
    assert!(lan.read("one.leases").contains(" web-0 "), "{}", lan.read("one.leases"));
}

#[test]
fn what_no_result_can_say_is_asked_for_and_taken() {
    let mut lan = Lan::new();
    let server = lan.server(&["10.1.0.1/24"]);
    let options = [
        RANGE,
        "--dhcp-option=vendor:Weft,1,10.1.0.7",
        "--dhcp-option=vendor:Weft,9,text",
        "--dhcp-option=42,10.1.0.4",
        "--dhcp-option=66,boot.shop.example",
        "--dhcp-option=33,172.16.0.0,10.1.0.9",
        "--dhcp-userclass=set:blue,team-a",
        "--dhcp-option=tag:blue,3,10.1.0.8",
    ];
    let _dnsmasq = lan.dnsmasq(&server, "one", &options);
    let _daemon = lan.daemon(&[]);
    let pod = lan.pod();
    let config = lan.config(json!({
        "request": [{"option": "43"}, {"option": "42"}, {"option": "66"}, {"option": "33"}],
        "provide": [
            {"option": "vendor-class-identifier", "value": "Weft-pod"},
            {"option": "user-class", "value": "team-a"},
        ],
    }));
    let result = lan.add("web", &pod, &config).success();
    assert_eq!(result["ips"][0]["gateway"], "10.1.0.8", "the user class was seen");
    let routes = json!([{"dst": "172.16.0.0/16", "gw": "10.1.0.9"}, {"dst": "0.0.0.0/0", "gw": "10.1.0.8"}]);
    assert_eq!(result["routes"], routes);
    let log = lan.read("one.log");
    for sent in ["option: 43 vendor-encap", "option: 42 ntp-server", "option: 66 tftp-server"] {
        assert!(log.contains(sent), "{sent}: {log}");
    }
    let again = lan.add("web", &pod, &config).success();
    assert_eq!(result, again);
}

#[test]
fn a_lease_outlives_a_daemon_that_is_killed() {
    let mut lan = Lan::new();
    let server = lan.server(&["10.1.0.1/24", "fd00::1/64"]);
    let options = [RANGE, "--dhcp-range=fd00::50,fd00::60,64,120", "--dhcp-option=3,10.1.0.1"];
    let _dnsmasq = lan.dnsmasq(&server, "one", &options);
    let daemon = lan.daemon(&[]);
    let pod = lan.pod();
    let config = lan.config(json!({"dhcpv6": "stateful"}));
    let before = lan.add("web", &pod, &config).success();
    daemon.kill();
    assert_eq!(lan.saved(), 1);
    let discovers = |lan: &Lan| lan.read("one.log").matches("DHCPDISCOVER").count();
    let asked = discovers(&lan);
    let requests = lan.read("one.log").matches("DHCPREQUEST").count();
    let _daemon = lan.daemon(&[]);
    eventually(PATIENCE, "the address is asked for again", || {
        let log = lan.read("one.log");
        log.matches("DHCPREQUEST").count() > requests && log.contains("DHCPCONFIRM")
    });
    let after = lan.add("web", &pod, &config).success();
    assert_eq!((&before, discovers(&lan)), (&after, asked), "{}", lan.read("one.log"));
    let checked = {
        let mut config = config.clone();
        config["prevResult"] = before.clone();
        crate::common::Call::new("CHECK", "web", Some(&crate::common::path(&pod)), &config).run()
    };
    assert!(checked.ok, "{}", checked.json);
    lan.del("web", &pod, &config).success();
    let held = |lan: &Lan| lan.read("one.leases").lines().filter(|line| !line.starts_with("duid")).count();
    eventually(PATIENCE, "the server takes both back", || held(&lan) == 0);
}

#[test]
fn both_families_from_one_call() {
    let mut lan = Lan::new();
    let server = lan.server(&["10.1.0.1/24", "fd00::1/64"]);
    let options = [
        RANGE,
        "--dhcp-range=fd00::50,fd00::60,64,120",
        "--dhcp-option=option6:dns-server,[fd00::53]",
        "--dhcp-option=option6:domain-search,shop.example",
    ];
    let _dnsmasq = lan.dnsmasq(&server, "one", &options);
    let _daemon = lan.daemon(&[]);
    let pod = lan.pod();
    let config = lan.config(json!({"dhcpv6": "stateful", "clientIdentifier": "duid"}));
    let result = lan.add("web", &pod, &config).success();
    let v6 = result["ips"][1]["address"].as_str().unwrap();
    assert!(v6.starts_with("fd00::") && v6.ends_with("/128"), "{result}");
    assert_eq!(result["dns"], json!({"nameservers": ["fd00::53"], "search": ["shop.example"]}));
    // RFC 4361: both families know the client by its DUID.
    let leases = lan.read("one.leases");
    let duid =
        |line: &str| line.rsplit(' ').next().unwrap().rsplit(':').take(18).collect::<Vec<_>>().join(":");
    let lines: Vec<&str> = leases.lines().filter(|line| !line.starts_with("duid")).collect();
    assert_eq!(lines.len(), 2, "{leases}");
    assert_eq!(duid(lines[0]), duid(lines[1]), "{leases}");
    lan.del("web", &pod, &config).success();
    let stateless = lan.config(json!({"dhcpv4": false, "dhcpv6": "stateless"}));
    let settings = lan.add("app", &pod, &stateless).success();
    assert!(settings.get("ips").is_none());
    assert_eq!(settings["dns"]["nameservers"], json!(["fd00::53"]));
}

/// Kea, which writes its leases to a file too.
fn kea(lan: &Lan, ns: &weft_kernel::Netns, family: &str, body: Value) -> Process {
    let number = family.to_lowercase();
    let leases = lan.file(&format!("{number}.csv"));
    let mut config = json!({
        "interfaces-config": {"interfaces": ["s0"]},
        "lease-database": {"type": "memfile", "persist": true, "name": leases},
        "valid-lifetime": 600,
    });
    if let (Value::Object(all), Value::Object(more)) = (&mut config, body) {
        all.extend(more);
    }
    let file = lan.file(&format!("{number}.json"));
    write(&file, &json!({ family: config }).to_string());
    let program = format!("/usr/sbin/kea-{number}");
    let run = lan.folder.path().display().to_string();
    let env = vec![
        format!("KEA_PIDFILE_DIR={run}"),
        format!("KEA_LOCKFILE_DIR={run}"),
        program,
        "-c".into(),
        file.display().to_string(),
    ];
    let process = Process::start(ns, "env", &env, &lan.file(&format!("{number}.log")));
    eventually(PATIENCE, "Kea is ready", || lan.read(&format!("{number}.log")).contains("_STARTED"));
    process
}

#[test]
fn kea_gives_and_takes_back_an_ipv4_lease() {
    let mut lan = Lan::new();
    let server = lan.server(&["10.1.0.1/24"]);
    let body = json!({"subnet4": [{
        "subnet": "10.1.0.0/24",
        "pools": [{"pool": "10.1.0.50 - 10.1.0.60"}],
        "option-data": [
            {"name": "routers", "data": "10.1.0.1"},
            {"name": "domain-name-servers", "data": "10.1.0.2"},
            {"name": "domain-search", "data": "shop.example"},
        ],
    }]});
    let _kea = kea(&lan, &server, "Dhcp4", body);
    let _daemon = lan.daemon(&[]);
    let pod = lan.pod();
    let config = lan.config(everything());
    let result = lan.add("web", &pod, &config).success();
    assert_eq!(result["ips"][0]["gateway"], "10.1.0.1");
    assert_eq!(result["dns"], json!({"nameservers": ["10.1.0.2"], "search": ["shop.example"]}));
    lan.del("web", &pod, &config).success();
    // The last line of an address counts; a lifetime of 0 is one that was given back.
    eventually(PATIENCE, "Kea takes it back", || {
        let leases = lan.read("dhcp4.csv");
        leases.lines().last().is_some_and(|line| line.split(',').nth(3) == Some("0"))
    });
}

#[test]
fn kea_gives_and_takes_back_an_ipv6_lease() {
    let mut lan = Lan::new();
    let server = lan.server(&["fd00::1/64"]);
    let body = json!({
        "preferred-lifetime": 300,
        "data-directory": lan.folder.path(),
        "subnet6": [{
            "subnet": "fd00::/64", "interface": "s0", "rapid-commit": true,
            "pools": [{"pool": "fd00::50 - fd00::60"}],
            "option-data": [{"name": "dns-servers", "data": "fd00::53"}],
        }],
    });
    let _kea = kea(&lan, &server, "Dhcp6", body);
    let _daemon = lan.daemon(&[]);
    let pod = lan.pod();
    let config = lan.config(json!({"dhcpv4": false, "dhcpv6": "stateful"}));
    let result = lan.add("web", &pod, &config).success();
    assert!(result["ips"][0]["address"].as_str().unwrap().starts_with("fd00::"), "{result}");
    assert_eq!(result["dns"]["nameservers"], json!(["fd00::53"]));
    lan.del("web", &pod, &config).success();
    eventually(PATIENCE, "Kea takes it back", || {
        let leases = fs::read_to_string(lan.file("dhcp6.csv")).unwrap();
        leases.lines().last().is_some_and(|line| line.split(',').nth(2) == Some("0"))
    });
}
