//! FRR's bgpd, alone: without zebra its routes go into no kernel, and every next hop is good.

use std::fmt::Write as _;

use serde_json::Value;

use crate::judge::{Config, Judge, Neighbour, Program, Route};

pub(crate) fn start(judge: &Judge, config: &Config) -> Vec<Program> {
    std::fs::write(judge.file("bgpd.conf"), text(config)).unwrap();
    let (conf, pid, api) = (judge.file("bgpd.conf"), judge.file("pid"), judge.file("zserv.api"));
    let folder = judge.folder.to_str().unwrap();
    let arguments = ["-S", "-n", "-f", &conf, "-i", &pid, "-z", &api, "--vty_socket", folder, "-P", "0"];
    vec![Program::start(&judge.ns, &judge.folder.join("log"), "/usr/lib/frr/bgpd", &arguments)]
}

fn text(config: &Config) -> String {
    let mut text = String::from("log stdout\n");
    write!(text, "router bgp {}\n bgp router-id {}\n no bgp ebgp-requires-policy\n", config.asn, config.id)
        .unwrap();
    text += " no bgp default ipv4-unicast\n no bgp network import-check\n bgp log-neighbor-changes\n";
    if let Some(time) = config.neighbours.iter().find_map(|neighbour| neighbour.graceful) {
        writeln!(text, " bgp graceful-restart\n bgp graceful-restart restart-time {time}").unwrap();
        text += " bgp graceful-restart preserve-fw-state\n";
    }
    for neighbour in &config.neighbours {
        text += &of(neighbour);
    }
    for (family, v6) in [("ipv4", false), ("ipv6", true)] {
        writeln!(text, " address-family {family} unicast").unwrap();
        for prefix in config.originated.iter().filter(|prefix| prefix.contains(':') == v6) {
            writeln!(text, "  network {prefix}").unwrap();
        }
        for neighbour in config.neighbours.iter().filter(|neighbour| neighbour.is_v4() != v6) {
            let address = neighbour.address;
            writeln!(text, "  neighbor {address} activate").unwrap();
            if neighbour.client {
                writeln!(text, "  neighbor {address} route-reflector-client").unwrap();
            }
            if let Some(most) = neighbour.max_prefixes {
                writeln!(text, "  neighbor {address} maximum-prefix {most}").unwrap();
            }
        }
        text += " exit-address-family\n";
    }
    text
}

fn of(neighbour: &Neighbour) -> String {
    let Neighbour { address, local, asn, .. } = neighbour;
    let mut text =
        format!(" neighbor {address} remote-as {asn}\n neighbor {address} update-source {local}\n");
    writeln!(text, " neighbor {address} advertisement-interval 0").unwrap();
    writeln!(text, " neighbor {address} timers connect 1").unwrap();
    if let Some(password) = neighbour.password {
        writeln!(text, " neighbor {address} password {password}").unwrap();
    }
    if neighbour.passive {
        writeln!(text, " neighbor {address} passive").unwrap();
    }
    if neighbour.ttl_security {
        writeln!(text, " neighbor {address} ttl-security hops 1").unwrap();
    }
    text
}

pub(crate) fn ask(judge: &Judge, question: &str) -> String {
    let folder = judge.folder.to_str().unwrap();
    judge.run("/usr/bin/vtysh", &["--vty_socket", folder, "-d", "bgpd", "-c", question])
}

pub(crate) fn routes(judge: &Judge) -> Vec<Route> {
    ["ipv4", "ipv6"].into_iter().flat_map(|family| family_routes(judge, family)).collect()
}

fn family_routes(judge: &Judge, family: &str) -> Vec<Route> {
    let said = ask(judge, &format!("show bgp {family} unicast json"));
    let start = said.find('{').unwrap_or(said.len());
    let Ok(said) = serde_json::from_str::<Value>(&said[start..]) else { return Vec::new() };
    let Some(all) = said["routes"].as_object() else { return Vec::new() };
    let mut routes = Vec::new();
    for (prefix, paths) in all {
        for path in paths.as_array().into_iter().flatten() {
            // Its own have no peer.
            if path["peerId"].as_str() == Some("(unspec)") {
                continue;
            }
            routes.push(Route {
                prefix: prefix.clone(),
                next_hop: path["nexthops"][0]["ip"].as_str().unwrap_or_default().to_owned(),
                as_path: path["path"].as_str().unwrap_or_default().to_owned(),
            });
        }
    }
    routes
}
