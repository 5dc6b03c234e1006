//! Every backend on every underlay in every family: real packets between all pods and nodes, held
//! against the oracle. One test a backend; each of its cells is named and reported.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking and is one crate"
)]

mod common;

use common::{Labs, example};

const FAMILIES: &[(&str, &[&str])] = &[
    ("IPv4", &["10.244.0.0/16"]),
    ("IPv6", &["fd00:244::/56"]),
    ("dual stack", &["10.244.0.0/16", "fd00:244::/56"]),
    // The nodes' first addresses are of IPv6 then, and so are the outer packets of a tunnel.
    ("dual stack, IPv6 first", &["fd00:244::/56", "10.244.0.0/16"]),
];

/// Makes a lab for each family on each of `topologies`, checks it and takes it down; panics with all
/// cells that are not as they should be.
fn check_all(backend: &str, topologies: &[&str]) {
    let labs = Labs::new();
    let mut wrong = Vec::new();
    for topology in topologies {
        for (family, cidrs) in FAMILIES {
            let cell = format!("{backend}, {topology}, {family}");
            match check(&labs, backend, topology, cidrs) {
                Ok(pairs) => println!("{cell}: {pairs} pairs as they should be"),
                Err(why) => wrong.push(format!("{cell}: {why}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn check(labs: &Labs, backend: &str, topology: &str, cidrs: &[&str]) -> Result<u64, String> {
    let shop = example("shop");
    let mut up = vec!["lab", "up", "--name", "m", "--nodes", "3", "--topology", topology];
    up.extend(["--backend", backend, "-f", &shop]);
    cidrs.iter().for_each(|cidr| up.extend(["--pod-cidr", cidr]));
    let checked = run(labs, &up).and_then(|_| run(labs, &["lab", "check", "--name", "m", "-o", "json"]));
    let gone = run(labs, &["lab", "down", "--name", "m"]);
    let report: serde_json::Value = serde_json::from_str(&checked?).map_err(|error| error.to_string())?;
    gone?;
    // Every pair in every family, with ICMP, TCP and UDP, and everybody at every Service.
    let number = |field: &str| report[field].as_u64().unwrap_or(0);
    let (pairs, services) = (number("pairs"), number("services"));
    let probes = pairs * 3 * cidrs.len() as u64 + services;
    if pairs < 200 || services < 90 || number("probes") != probes {
        return Err(format!("not everything was probed: {report}"));
    }
    Ok(pairs)
}

/// Runs `weft`; what it printed, or all that it said where it failed.
fn run(labs: &Labs, args: &[&str]) -> Result<String, String> {
    let output = labs.run(args);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(said),
        false => Err(format!("{said}{}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// Jumbo frames between nodes and a router of 1,400 bytes in the middle: the largest packet that comes
/// through is the router's less the tunnel's headers, whatever the pod's own link takes, and 10 MB over
/// TCP come through as well as fragments do.
fn a_narrow_hop(backend: &str, cidrs: &[&str], least: u64) {
    let labs = Labs::new();
    let pods = example("two-pods.yaml");
    let mut up = vec!["lab", "up", "--name", "n", "--nodes", "2", "--topology", "racks=2", "-f", &pods];
    up.extend(["--backend", backend, "--underlay-mtu", "9000", "--hop-mtu", "1400"]);
    cidrs.iter().for_each(|cidr| up.extend(["--pod-cidr", cidr]));
    labs.expect(0, &up);
    let report = labs.json(&["lab", "check", "--name", "n", "--sizes", "-o", "json"]);
    let paths = report["paths"].as_array().unwrap();
    assert_eq!(paths.len(), 2 * cidrs.len(), "{report}");
    for path in paths {
        assert!(path["linkMtu"].as_u64().unwrap() > 8900, "{path}");
        assert_eq!(path["pathMtu"], least, "{backend}: {path}");
    }
    labs.expect(0, &["lab", "down", "--name", "n"]);
}

#[test]
fn vxlan_finds_the_path_through_a_narrow_hop() {
    a_narrow_hop("vxlan", &["10.244.0.0/16", "fd00:244::/56"], 1400 - 50);
    a_narrow_hop("vxlan", &["fd00:244::/56"], 1400 - 70);
}

#[test]
fn udp_finds_the_path_through_a_narrow_hop() {
    a_narrow_hop("udp", &["10.244.0.0/16", "fd00:244::/56"], 1400 - 28);
}

#[test]
fn host_gw_in_every_family() {
    check_all("host-gw", &["flat"]);
}

#[test]
fn bgp_in_every_family() {
    check_all("bgp", &["flat"]);
}

#[test]
fn auto_in_every_family_on_every_underlay() {
    check_all("auto", &["flat", "racks=2"]);
}

#[test]
fn udp_in_every_family_on_every_underlay() {
    check_all("udp", &["flat", "racks=2"]);
}

#[test]
fn vxlan_in_every_family_on_every_underlay() {
    check_all("vxlan", &["flat", "racks=2"]);
}
