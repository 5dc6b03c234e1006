//! Addresses of Services of type LoadBalancer on a segment, end to end: a client beside the nodes asks for them
//! by ARP and NDP, and goes on being served when their node fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test fails by panicking and is one crate"
)]

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{Labs, eventually, signal};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);
const V4: &str = "10.168.0.200";
const V6: &str = "fd10:168::200";
const FAMILIES: [&str; 4] = ["--pod-cidr", "10.244.0.0/16", "--pod-cidr", "fd00:244::/48"];

/// The endpoint is on the last node, which is the first choice for neither address.
const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeSelector: {kubernetes.io/hostname: node3}
      containers: [{name: web, image: web, ports: [{containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  loadBalancerClass: weft.dev/load-balancer
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
"#;

/// A lab whose Service `web` has both addresses.
struct Lab {
    labs: Labs,
    name: &'static str,
}

impl Lab {
    fn up(name: &'static str, options: &[&str]) -> Lab {
        let labs = Labs::new();
        let file = labs.file("web.yaml", WEB);
        labs.expect(0, &[&["lab", "up", "--name", name, "-f", &file], &FAMILIES[..], options].concat());
        let lab = Lab { labs, name };
        let ingress =
            format!(r#"{{"status":{{"loadBalancer":{{"ingress":[{{"ip":"{V4}"}},{{"ip":"{V6}"}}]}}}}}}"#);
        lab.kubectl(&["patch", "service", "web", "--subresource=status", "--type=merge", "-p", &ingress]);
        for address in [V4, V6] {
            eventually(SOON, "somebody announces it, and all know who", || lab.agreed(address).is_some());
        }
        lab
    }

    fn kubectl(&self, args: &[&str]) -> String {
        let kubeconfig = self.labs.expect(0, &["lab", "kubeconfig", "--name", self.name]);
        let mut kubectl = Command::new("kubectl");
        kubectl.args(args).env("KUBECONFIG", kubeconfig.trim()).env("HOME", self.labs.path(""));
        let output = kubectl.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {}\n{errors}", args.join(" "));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Runs a line on the segment, beside the nodes.
    fn outside(&self, line: &str) -> String {
        let output = self.labs.run(&["lab", "exec", "--name", self.name, "underlay", "--", "sh", "-c", line]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn start(&self, target: &str, line: &str) -> Shell {
        let mut command =
            self.labs.weft(&["lab", "exec", "--name", self.name, target, "--", "sh", "-c", line]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).take_while(|line| sender.send(line.clone()).is_ok()).count()
        });
        Shell { child, lines }
    }

    fn status(&self, node: &str) -> Value {
        let file = self.labs.state(self.name).join(format!("node/{node}/agent/announce.json"));
        std::fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    fn place(&self, node: &str, address: &str) -> Value {
        self.status(node)["addresses"][address].clone()
    }

    /// Who has the address as these nodes say.
    fn owner_by(&self, nodes: &[&str], address: &str) -> Option<String> {
        let said: BTreeSet<Option<String>> =
            nodes.iter().map(|node| self.place(node, address)["owner"].as_str().map(str::to_owned)).collect();
        if said.len() == 1 { said.into_iter().next().flatten() } else { None }
    }

    fn agreed(&self, address: &str) -> Option<String> {
        self.owner_by(&["node1", "node2", "node3"], address)
    }

    fn mac(&self, node: &str) -> String {
        self.labs.on_node(self.name, node, "cat /sys/class/net/eth0/address").trim().to_uppercase()
    }

    /// The hardware addresses that answer for an address, all that are heard.
    fn answers(&self, address: &str) -> BTreeSet<String> {
        let told = match address {
            V4 => self.outside(&format!("arping -b -c 3 -w 3 -I segment {V4}")),
            _ => self.outside(&format!("for i in 1 2 3; do ndisc6 -m -r 1 -w 500 {address} segment; done")),
        };
        let mac = |word: &str| word.trim_matches(['[', ']']).to_uppercase();
        let words = told.split_whitespace().map(mac);
        words.filter(|word| word.len() == 17 && word.matches(':').count() == 5).collect()
    }

    /// The one node that answers is that of which all say so.
    fn assert_settled(&self) {
        for address in [V4, V6] {
            let owner = self.agreed(address).unwrap();
            assert_eq!(self.answers(address), [self.mac(&owner)].into(), "{address} of {owner}");
        }
    }

    /// A host that is about to take the IPv6 address (RFC 4862, 5.4) finds that it is taken. One that has it all
    /// the same is told of, and answered.
    fn assert_conflicts_of_ipv6(&self, unasked: &Shell) {
        let owner = self.agreed(V6).unwrap();
        let mac = self.outside("cat /sys/class/net/segment/address").trim().to_owned();
        let told = || self.status(&owner)["conflicts"][V6].to_string().to_lowercase().contains(&mac);
        assert!(!told());
        self.outside(&format!("ip addr add {V6}/128 dev segment"));
        eventually(SOON, "the address is found to be taken", || {
            self.outside("ip addr show dev segment dadfailed").contains(V6)
        });
        eventually(SOON, "who looked is told of", told);
        self.outside(&format!("ip addr del {V6}/128 dev segment; ip addr add {V6}/128 dev segment nodad"));
        unasked.so_far();
        let asks = format!("ndisc6 -1 -r 1 {V6} eth0 || true");
        assert!(self.labs.on_node(self.name, &owner, &asks).to_lowercase().contains(&mac), "it has it too");
        let own = self.mac(&owner).to_lowercase();
        eventually(SOON, "everybody is told where it is", || {
            unasked.so_far().iter().any(|line| line.contains(V6) && line.contains(&own))
        });
        self.outside(&format!("ip addr del {V6}/128 dev segment"));
        assert_eq!(self.agreed(V6), Some(owner), "nobody gives way to it");
        self.assert_settled();
    }

    fn reaches(&self, address: &str) -> bool {
        let ask = format!("echo weft-whoami | socat -t 2 -T 2 - TCP:{},connect-timeout=1", at(address));
        self.outside(&ask).contains("default/web-")
    }

    fn agent(&self, node: &str) -> i32 {
        self.labs.processes(&["agent", "--node-name", node])[0]
    }
}

/// An address and the Service's port, as socat wants it.
fn at(address: &str) -> String {
    if address.contains(':') { format!("[{address}]:80") } else { format!("{address}:80") }
}

struct Shell {
    child: Child,
    lines: Receiver<String>,
}

impl Shell {
    /// The next line that is printed from now on.
    fn next(&self) -> String {
        while self.lines.try_recv().is_ok() {}
        self.lines.recv_timeout(SOON).expect("a line in time")
    }

    /// All lines until now.
    fn so_far(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again and again over new connections, and prints when one was answered, in milliseconds.
fn knocking(address: &str) -> String {
    let ask = format!("socat -t 0.3 -T 0.3 - TCP:{},connect-timeout=0.1 2>/dev/null", at(address));
    format!("while :; do echo weft-whoami | {ask} | grep -q default/web- && date +%s%3N; done")
}

/// The longest time between two answers.
fn gap(answers: &[String]) -> u64 {
    let times: Vec<u64> = answers.iter().map(|line| line.parse().unwrap()).collect();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
}

/// Prints the addresses that are announced unasked.
const UNASKED: &str = "tshark -l -i segment -Y 'arp.isgratuitous or (icmpv6.type == 136 and icmpv6.nd.na.flag.s == 0)' \
     -T fields -e arp.src.proto_ipv4 -e icmpv6.nd.na.target_address -e eth.src 2>/dev/null";

#[test]
fn an_address_is_asked_for_by_arp_and_ndp_and_moves_when_its_node_fails() {
    let lab = Lab::up("m", &[]);
    lab.assert_settled();
    assert!(lab.reaches(V4) && lab.reaches(V6));
    let owner = lab.agreed(V4).unwrap();
    assert_ne!(owner, "node3", "it has the endpoint");
    let kubeconfig = lab.labs.expect(0, &["lab", "kubeconfig", "--name", "m"]);
    let folder = lab.labs.state("m").join("node/node3/agent");
    let shown = ["service", "show", "web", "--kubeconfig", kubeconfig.trim(), "--state-dir"];
    let shown = lab.labs.expect(0, &[&shown[..], &[folder.to_str().unwrap()]].concat());
    assert!(shown.contains(&format!("{V4} is announced by {owner}, since ")), "{shown}");
    let told = lab.outside(&format!("arping -D -c 2 -w 2 -I segment {V4} || echo taken"));
    assert!(told.contains("taken"), "{told}");
    let warned = || lab.status(&owner)["conflicts"].to_string().contains(V4);
    eventually(SOON, "who looked whether the address is free is told of", warned);

    let unasked = lab.start("underlay", UNASKED);
    eventually(SOON, "what is told unasked is heard", || {
        lab.outside("arping -A -c 1 -w 1 -I segment 10.168.0.1");
        !unasked.so_far().is_empty()
    });
    lab.assert_conflicts_of_ipv6(&unasked);
    let others: Vec<&str> = ["node1", "node2", "node3"].into_iter().filter(|node| *node != owner).collect();
    let mac = |node: &str| lab.mac(node).to_lowercase();
    let mut heard = Vec::new();
    for also_the_agent in [false, true] {
        let clients = lab.start("underlay", &knocking(V4));
        let mut answers = vec![clients.next()];
        let agent = lab.agent(&owner);
        lab.outside(&format!("ip link set {owner} down"));
        if also_the_agent {
            signal(agent, "KILL");
        }
        let moved = || lab.owner_by(&others, V4).is_some_and(|new| new != owner);
        eventually(SOON, "another node has it", moved);
        let new = lab.owner_by(&others, V4).unwrap();
        let served = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        eventually(SOON, "clients are served again", || {
            answers.extend(clients.so_far());
            answers.last().is_some_and(|line| line.parse::<u64>().unwrap() > served)
        });
        println!("{owner} failed: {new} served after {} ms at most", gap(&answers));
        eventually(SOON, "it was announced unasked", || {
            heard.extend(unasked.so_far());
            heard.iter().any(|line| line.contains(V4) && line.contains(&mac(&new)))
        });
        assert_eq!(lab.answers(V4), [lab.mac(&new)].into());
        // Back again, it takes what it goes before others for.
        lab.outside(&format!("ip link set {owner} up"));
        eventually(SOON, "it has it again", || lab.agreed(V4).as_ref() == Some(&owner));
        lab.assert_settled();
        heard.clear();
    }
}

/// Asks again and again over one connection.
fn talking(address: &str) -> String {
    format!("while echo weft-whoami; do sleep 0.1; done | socat -t 5 - TCP:{}", at(address))
}

#[test]
fn a_restart_of_the_agent_breaks_no_connection_and_moves_nothing() {
    let lab = Lab::up("n", &[]);
    let owner = lab.agreed(V4).unwrap();
    let other = if owner == "node1" { "node2" } else { "node1" };
    let long = lab.start("underlay", &talking(V4));
    assert!(long.next().contains("default/web-"));
    let since = lab.place(other, V4)["since"].clone();
    for _ in 0..2 {
        let agent = lab.agent(&owner);
        signal(agent, "TERM");
        eventually(SOON, "the others wait for it", || {
            lab.place(other, V4)["why"].as_str().is_some_and(|why| why.contains("restarts"))
        });
        assert_eq!(long.next(), "weft-whoami");
        eventually(SOON, "it has it again", || {
            lab.place(other, V4)["why"] == "it says so" && lab.agreed(V4).as_ref() == Some(&owner)
        });
        assert_eq!(long.next(), "weft-whoami");
    }
    assert_eq!(lab.place(other, V4)["since"], since, "nobody else had it in between");
    assert!(lab.labs.processes(&["agent", "--node-name", &owner]).len() == 1);
}

#[test]
fn nodes_without_endpoints_or_taken_out_have_no_address_and_no_kernel_answers_by_itself() {
    let lab = Lab::up("o", &["--proxy", "userspace"]);
    // As where the kernel has no packet filter: the address is every node's own.
    for node in ["node1", "node2", "node3"] {
        let routes = format!("ip route add local {V4} dev lo && ip -6 route add local {V6} dev lo");
        lab.labs.on_node("o", node, &routes);
    }
    lab.assert_settled();
    let owner = lab.agreed(V4).unwrap();
    let moves = |what: &str, to: &dyn Fn(&str) -> bool| {
        eventually(SOON, what, || lab.agreed(V4).is_some_and(|new| to(&new)));
        lab.assert_settled();
    };
    let label = "node.kubernetes.io/exclude-from-external-load-balancers";
    lab.kubectl(&["label", "node", &owner, &format!("{label}=")]);
    moves("a node that load balancers pass over has it no more", &|new| new != owner);
    lab.kubectl(&["label", "node", &owner, &format!("{label}-")]);
    moves("it has it again", &|new| new == owner);
    let policy = |policy: &str| format!(r#"{{"spec":{{"externalTrafficPolicy":"{policy}"}}}}"#);
    lab.kubectl(&["patch", "service", "web", "-p", &policy("Local")]);
    moves("the node with the endpoint has it", &|new| new == "node3");
    assert_eq!(lab.agreed(V6).as_deref(), Some("node3"));
    lab.kubectl(&["scale", "deployment", "web", "--replicas", "0"]);
    eventually(SOON, "without endpoints nobody has it", || {
        ["node1", "node2", "node3"].iter().all(|node| lab.place(node, V4)["owner"].is_null())
    });
    assert!(lab.answers(V4).is_empty() && lab.answers(V6).is_empty());
    lab.kubectl(&["patch", "service", "web", "-p", &policy("Cluster")]);
    moves("any node may have it", &|new| new == owner);
}

/// Nobody on the node gets through to the API, and what it has open is closed.
const CUT_OFF: &str = "nft add table inet cut; nft 'add chain inet cut out { type filter hook output priority 0; }'; \
     nft add rule inet cut out tcp dport PORT reject with tcp reset; \
     nft 'add chain inet cut in { type filter hook input priority 0; }'; \
     nft add rule inet cut in tcp sport PORT reject with tcp reset";

#[test]
fn a_node_that_is_deleted_lets_go_and_one_that_cannot_hear_of_it_is_outranked() {
    let lab = Lab::up("p", &[]);
    let owner = lab.agreed(V4).unwrap();
    let others: Vec<&str> = ["node1", "node2", "node3"].into_iter().filter(|node| *node != owner).collect();
    let mut object: Value =
        serde_json::from_str(&lab.kubectl(&["get", "node", &owner, "-o", "json"])).unwrap();
    let of_this_one = ["uid", "resourceVersion", "creationTimestamp"];
    object["metadata"].as_object_mut().unwrap().retain(|key, _| !of_this_one.contains(&&**key));
    let object = lab.labs.file("node.json", &object.to_string());
    let kubeconfig = lab.labs.state("p").join(format!("node/{owner}/kubeconfig"));
    let kubeconfig = std::fs::read_to_string(kubeconfig).unwrap();
    let server = kubeconfig.split_once("https://").unwrap().1.split(['"', '\n']).next().unwrap();
    let (_, port) = server.rsplit_once(':').unwrap();
    for cut_off in [false, true] {
        if cut_off {
            lab.labs.on_node("p", &owner, &CUT_OFF.replace("PORT", port));
            eventually(SOON, "it knows that it does not reach the API", || {
                lab.status(&owner)["apiAway"] == true
            });
            lab.assert_settled();
            assert_eq!(lab.agreed(V4).as_ref(), Some(&owner), "that moves nothing");
        }
        lab.kubectl(&["delete", "node", &owner]);
        eventually(SOON, "the others know a new owner", || {
            lab.owner_by(&others, V4).is_some_and(|new| new != owner)
        });
        eventually(SOON, "it knows too", || lab.agreed(V4).is_some_and(|new| new != owner));
        lab.assert_settled();
        let (new, status) = (lab.agreed(V4).unwrap(), lab.status(&owner));
        match cut_off {
            false => assert_eq!(status["out"], format!("the cluster has no node {owner}")),
            true => {
                assert_eq!(lab.place(&owner, V4)["why"], "it says so, and knows what the API says now");
                let told = lab.status(&new)["conflicts"][V4].to_string();
                assert!(told.contains(&format!("{owner}, which is no node of the cluster")), "{told}");
                lab.labs.on_node("p", &owner, "nft delete table inet cut");
            }
        }
        lab.kubectl(&["create", "-f", &object]);
        lab.kubectl(&["replace", "--subresource=status", "-f", &object]);
        eventually(SOON, "it is a node again", || lab.agreed(V4).as_ref() == Some(&owner));
    }
    lab.assert_settled();
}
