//! A node with pods and a host outside, where connections are made.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use weft_kernel::testing::TestNs;
use weft_kernel::{Netns, sysctl};

/// Endpoints `a` and `b`, and two clients: pods on the node.
pub(crate) const PODS: [&str; 4] = ["a", "b", "c", "d"];

/// The node's address to the outside, the host's, and the length of the network's prefix.
pub(crate) const OUTSIDE: [[&str; 3]; 2] =
    [[super::NODE[0], "192.0.2.2", "24"], [super::NODE[1], "fd00:50::2", "64"]];

/// An address of a pod: the node's end or its own.
pub(crate) fn address(pod: usize, ipv6: bool, own: bool) -> String {
    let host = if own { 2 } else { 1 };
    if ipv6 { format!("fd00:244:0:{pod}::{host}") } else { format!("10.244.{pod}.{host}") }
}

pub(crate) struct World {
    test: TestNs,
}

impl World {
    pub(crate) fn new() -> World {
        let mut world = World { test: TestNs::new() };
        for name in PODS.iter().chain(&["outside", "here"]) {
            // An address that is yet to be found unique answers nobody.
            let set = || sysctl::set("net.ipv6.conf.default.accept_dad", "0").unwrap();
            world.pod(name).run(set).unwrap();
        }
        for (i, pod) in PODS.iter().enumerate() {
            let (here, ns) = (world.test.ns().clone(), world.test.extra(pod));
            for (ipv6, length) in [(false, 24), (true, 64)] {
                let device = format!("{pod}{}", u8::from(ipv6));
                let ends = [false, true].map(|own| format!("{}/{length}", address(i, ipv6, own)));
                world
                    .test
                    .join((&here, &device, &ends[0]), (&ns, &format!("eth{}", u8::from(ipv6)), &ends[1]));
                let family = if ipv6 { "-6" } else { "-4" };
                let via = address(i, ipv6, false);
                ns.run(|| super::run("ip", &[family, "route", "add", "default", "via", &via])).unwrap();
            }
        }
        let (here, outside) = (world.test.ns().clone(), world.test.extra("outside"));
        for (i, [node, host, length]) in OUTSIDE.iter().enumerate() {
            let ends = [format!("{node}/{length}"), format!("{host}/{length}")];
            world.test.join((&here, &format!("out{i}"), &ends[0]), (&outside, &format!("eth{i}"), &ends[1]));
            let family = if i == 1 { "-6" } else { "-4" };
            let route = |via: &str| super::run("ip", &[family, "route", "add", "default", "via", via]);
            outside.run(|| route(node)).unwrap();
            route(host);
        }
        sysctl::set("net.ipv4.ip_forward", "1").unwrap();
        sysctl::set("net.ipv6.conf.all.forwarding", "1").unwrap();
        for (i, pod) in PODS.iter().enumerate().take(2) {
            for ipv6 in [false, true] {
                let ip: IpAddr = address(i, ipv6, true).parse().unwrap();
                let listener = world.test.extra(pod).run(|| TcpListener::bind((ip, 8080)).unwrap()).unwrap();
                // Ends with the test's process.
                std::thread::spawn(move || {
                    while let Ok((mut stream, client)) = listener.accept() {
                        stream.write_all(format!("{pod} {}", client.ip()).as_bytes()).ok();
                    }
                });
            }
        }
        world
    }

    /// The namespace of a pod, of the node (`here`) or of the host outside (`outside`).
    pub(crate) fn pod(&mut self, name: &str) -> Netns {
        if name == "here" { self.test.ns().clone() } else { self.test.extra(name) }
    }
}

/// Who answers at `to`, and which address he saw.
pub(crate) fn ask(to: SocketAddr) -> io::Result<(String, IpAddr)> {
    patient(to, Duration::from_secs(20))
}

/// The same with less time.
pub(crate) fn patient(to: SocketAddr, patience: Duration) -> io::Result<(String, IpAddr)> {
    let mut stream = TcpStream::connect_timeout(&to, patience)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (by, source) = text.split_once(' ').unwrap();
    Ok((by.to_owned(), source.parse().unwrap()))
}
