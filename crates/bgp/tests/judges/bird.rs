//! BIRD 2.

use std::fmt::Write as _;

use crate::judge::{Config, Judge, Neighbour, Program, Route};

pub(crate) fn start(judge: &Judge, config: &Config) -> Vec<Program> {
    std::fs::write(judge.file("bird.conf"), text(config)).unwrap();
    let mut arguments = vec!["-f", "-c"];
    let (file, socket, pid) = (judge.file("bird.conf"), judge.file("ctl"), judge.file("pid"));
    arguments.extend([&*file, "-s", &socket, "-P", &pid]);
    if config.restarted {
        arguments.push("-R");
    }
    vec![Program::start(&judge.ns, &judge.folder.join("log"), "/usr/sbin/bird", &arguments)]
}

fn text(config: &Config) -> String {
    let mut text = format!("log stderr all;\nrouter id {};\nprotocol device {{ scan time 1; }}\n", config.id);
    for (family, v6) in [("ipv4", false), ("ipv6", true)] {
        let routes = config.originated.iter().filter(|prefix| prefix.contains(':') == v6);
        let routes: String = routes.map(|prefix| format!("  route {prefix} blackhole;\n")).collect();
        write!(text, "protocol static static_{family} {{\n  {family};\n{routes}}}\n").unwrap();
    }
    for (i, neighbour) in config.neighbours.iter().enumerate() {
        write!(text, "protocol bgp n{i} {{\n{}}}\n", of(config, neighbour)).unwrap();
    }
    text
}

fn of(config: &Config, neighbour: &Neighbour) -> String {
    let Neighbour { address, local, asn, .. } = neighbour;
    let mut text = format!("  local {local} as {};\n  neighbor {address} as {asn};\n", config.asn);
    text += "  connect delay time 1;\n  connect retry time 1;\n  error wait time 1, 2;\n";
    text += if neighbour.asn == config.asn { "  multihop;\n" } else { "  direct;\n" };
    if let Some(password) = neighbour.password {
        writeln!(text, "  password \"{password}\";").unwrap();
    }
    if neighbour.client {
        text += "  rr client;\n";
    }
    if neighbour.passive {
        text += "  passive;\n";
    }
    if neighbour.ttl_security {
        text += "  ttl security on;\n";
    }
    if let Some(time) = neighbour.graceful {
        writeln!(text, "  graceful restart on;\n  graceful restart time {time};").unwrap();
    }
    let limit = neighbour.max_prefixes.map(|most| format!(" import limit {most} action disable;"));
    let limit = limit.unwrap_or_default();
    let family = if neighbour.is_v4() { "ipv4" } else { "ipv6" };
    let same = if neighbour.client { "" } else { " next hop self;" };
    writeln!(text, "  {family} {{ import all; export all;{same}{limit} }};").unwrap();
    text
}

pub(crate) fn ask(judge: &Judge, question: &str) -> String {
    judge.run("/usr/sbin/birdc", &["-r", "-s", &judge.file("ctl"), question])
}

pub(crate) fn routes(judge: &Judge) -> Vec<Route> {
    let said = ask(judge, "show route all where source = RTS_BGP");
    let mut routes: Vec<Route> = Vec::new();
    let mut prefix = String::new();
    for line in said.lines() {
        let line = line.trim_start_matches("1007-").trim_start_matches("1008-").trim_start_matches("1012-");
        let first = line.split_whitespace().next().unwrap_or_default();
        if first.contains('/') {
            prefix = first.to_owned();
        }
        if line.contains("unicast [") || line.contains("unreachable [") {
            routes.push(Route { prefix: prefix.clone(), next_hop: String::new(), as_path: String::new() });
        }
        let Some(route) = routes.last_mut() else { continue };
        if let Some(path) = line.trim().strip_prefix("BGP.as_path:") {
            route.as_path = path.trim().to_owned();
        }
        if let Some(next_hop) = line.trim().strip_prefix("BGP.next_hop:") {
            route.next_hop = next_hop.trim().to_owned();
        }
    }
    routes
}
