//! GoBGP.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;
use weft_kernel::testing::eventually;

use crate::judge::{Config, Judge, Neighbour, Program, Route};

pub(crate) fn start(judge: &Judge, config: &Config) -> Vec<Program> {
    std::fs::write(judge.file("gobgpd.toml"), text(config)).unwrap();
    let file = judge.file("gobgpd.toml");
    let mut arguments = vec!["-f", &*file, "--api-hosts", "127.0.0.1:50051", "--pprof-disable"];
    if config.restarted {
        arguments.push("-r");
    }
    let program = Program::start(&judge.ns, &judge.folder.join("log"), "/usr/bin/gobgpd", &arguments);
    eventually(Duration::from_secs(30), "gobgpd answers", || ask(judge, &["global"]).contains("AS:"));
    for prefix in &config.originated {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let said = ask(judge, &["global", "rib", "add", "-a", family, prefix]);
        assert!(said.trim().is_empty(), "{said}");
    }
    vec![program]
}

fn text(config: &Config) -> String {
    let mut text = format!("[global.config]\n  as = {}\n  router-id = \"{}\"\n", config.asn, config.id);
    for neighbour in &config.neighbours {
        text += &of(config, neighbour);
    }
    text
}

fn of(config: &Config, neighbour: &Neighbour) -> String {
    let Neighbour { address, local, asn, .. } = neighbour;
    let mut text = format!("[[neighbors]]\n[neighbors.config]\n  neighbor-address = \"{address}\"\n");
    writeln!(text, "  peer-as = {asn}").unwrap();
    if let Some(password) = neighbour.password {
        writeln!(text, "  auth-password = \"{password}\"").unwrap();
    }
    writeln!(text, "[neighbors.transport.config]\n  local-address = \"{local}\"").unwrap();
    writeln!(text, "  passive-mode = {}", neighbour.passive).unwrap();
    writeln!(text, "[neighbors.timers.config]\n  connect-retry = 1").unwrap();
    if neighbour.ttl_security {
        text += "[neighbors.ttl-security.config]\n  enabled = true\n  ttl-min = 255\n";
    }
    if let Some(time) = neighbour.graceful {
        writeln!(text, "[neighbors.graceful-restart.config]\n  enabled = true\n  restart-time = {time}")
            .unwrap();
        text += "  notification-enabled = true\n";
    }
    if neighbour.client {
        text += "[neighbors.route-reflector.config]\n  route-reflector-client = true\n";
        writeln!(text, "  route-reflector-cluster-id = \"{}\"", config.id).unwrap();
    }
    let family = if neighbour.is_v4() { "ipv4-unicast" } else { "ipv6-unicast" };
    writeln!(text, "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\n  afi-safi-name = \"{family}\"")
        .unwrap();
    if neighbour.graceful.is_some() {
        text += "[neighbors.afi-safis.mp-graceful-restart.config]\n  enabled = true\n";
    }
    if let Some(most) = neighbour.max_prefixes {
        writeln!(text, "[neighbors.afi-safis.prefix-limit.config]\n  max-prefixes = {most}").unwrap();
    }
    text
}

pub(crate) fn ask(judge: &Judge, question: &[&str]) -> String {
    judge.run("/usr/bin/gobgp", question)
}

pub(crate) fn routes(judge: &Judge) -> Vec<Route> {
    ["ipv4", "ipv6"].into_iter().flat_map(|family| family_routes(judge, family)).collect()
}

fn family_routes(judge: &Judge, family: &str) -> Vec<Route> {
    let said = ask(judge, &["global", "rib", "-j", "-a", family]);
    let Ok(Value::Object(all)) = serde_json::from_str::<Value>(&said) else { return Vec::new() };
    let mut routes = Vec::new();
    for (prefix, paths) in &all {
        for path in paths.as_array().into_iter().flatten() {
            // Its own come from nobody.
            if path["source-id"].as_str().unwrap_or_default().is_empty() || path["neighbor-ip"] == "<nil>" {
                continue;
            }
            let attributes = path["attrs"].as_array().cloned().unwrap_or_default();
            let of =
                |code: u64| attributes.iter().find(|one| one["type"] == code).cloned().unwrap_or_default();
            let next_hop = [of(3), of(14)].iter().find_map(|one| one["nexthop"].as_str().map(str::to_owned));
            let numbers = of(2)["as_paths"][0]["asns"].as_array().cloned().unwrap_or_default();
            let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
            routes.push(Route {
                prefix: prefix.clone(),
                next_hop: next_hop.unwrap_or_default(),
                as_path: numbers.join(" "),
            });
        }
    }
    routes
}
