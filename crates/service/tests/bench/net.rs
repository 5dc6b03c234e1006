//! The namespaces of the bench: the node under test, its pods, another node with one, and a host outside.
//!
//! ```text
//! a, b (endpoints), c (a client) ── here ── there ── r (endpoint)
//!                                    └── outside
//! ```

use std::io::Write as _;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use ipnet::IpNet;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use weft_kernel::testing::TestNs;
use weft_kernel::{Address, Netlink, Netns, Op, Route, sysctl};

use crate::scene::{ENDPOINTS, TARGET};
use crate::sctp;

/// Who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// A pod of the node.
    Pod,
    /// A pod of the node that is an endpoint itself.
    Endpoint,
    /// A process of the node.
    Node,
    /// Another node.
    OtherNode,
    /// A host outside of the cluster.
    Outside,
    /// The same by an address that no guarded Service allows.
    Stranger,
}

impl From {
    pub(crate) const ALL: [From; 6] =
        [From::Pod, From::Endpoint, From::Node, From::OtherNode, From::Outside, From::Stranger];

    /// Its namespace.
    fn namespace(self) -> &'static str {
        match self {
            From::Pod => "c",
            From::Endpoint => "a",
            From::Node => "here",
            From::OtherNode => "there",
            From::Outside | From::Stranger => "outside",
        }
    }

    /// The address that it connects from; the node chooses.
    pub(crate) fn address(self, ipv6: bool) -> Option<IpAddr> {
        let addresses = match self {
            From::Pod => ["10.244.0.10", "fd00:244:0:c::2"],
            From::Endpoint => ENDPOINTS[0].2,
            From::Node => return None,
            From::OtherNode => ["192.168.50.2", "fd00:50::2"],
            From::Outside => ["203.0.113.2", "fd00:203::2"],
            From::Stranger => ["203.0.113.130", "fd00:203::1:2"],
        };
        Some(addresses[usize::from(ipv6)].parse().unwrap())
    }
}

/// All of it; gone when dropped.
pub(crate) struct Net {
    ended: Arc<AtomicBool>,
    servers: Vec<JoinHandle<()>>,
    test: TestNs,
}

impl Net {
    /// Builds it; the calling thread is on the node under test from now on.
    pub(crate) fn new() -> Net {
        let mut net = Net { ended: Arc::default(), servers: Vec::new(), test: TestNs::new() };
        for namespace in ["here", "there", "outside", "a", "b", "c", "r"] {
            // An address that is yet to be found unique answers nobody.
            let set = || sysctl::set("net.ipv6.conf.default.accept_dad", "0").unwrap();
            net.namespace(namespace).run(set).unwrap();
        }
        net.link(("here", "10.244.0.1/30"), ("a", "10.244.0.2/30"));
        net.link(("here", "fd00:244:0:a::1/64"), ("a", "fd00:244:0:a::2/64"));
        net.link(("here", "10.244.0.5/30"), ("b", "10.244.0.6/30"));
        net.link(("here", "fd00:244:0:b::1/64"), ("b", "fd00:244:0:b::2/64"));
        net.link(("here", "10.244.0.9/30"), ("c", "10.244.0.10/30"));
        net.link(("here", "fd00:244:0:c::1/64"), ("c", "fd00:244:0:c::2/64"));
        net.link(("here", "192.168.50.1/24"), ("there", "192.168.50.2/24"));
        net.link(("here", "fd00:50::1/64"), ("there", "fd00:50::2/64"));
        net.link(("there", "10.244.1.1/30"), ("r", "10.244.1.2/30"));
        net.link(("there", "fd00:244:1:a::1/64"), ("r", "fd00:244:1:a::2/64"));
        net.link(("here", "203.0.113.1/24"), ("outside", "203.0.113.2/24"));
        net.link(("here", "fd00:203::1/64"), ("outside", "fd00:203::2/64"));
        net.own("outside", "here4", "203.0.113.130/32");
        net.own("outside", "here6", "fd00:203::1:2/128");
        for (namespace, via) in [
            ("a", ["10.244.0.1", "fd00:244:0:a::1"]),
            ("b", ["10.244.0.5", "fd00:244:0:b::1"]),
            ("c", ["10.244.0.9", "fd00:244:0:c::1"]),
            ("r", ["10.244.1.1", "fd00:244:1:a::1"]),
            ("there", ["192.168.50.1", "fd00:50::1"]),
            ("outside", ["203.0.113.1", "fd00:203::1"]),
            ("here", ["203.0.113.2", "fd00:203::2"]),
        ] {
            net.route(namespace, ["0.0.0.0/0", "::/0"], via);
        }
        net.route("here", ["10.244.1.0/24", "fd00:244:1::/48"], ["192.168.50.2", "fd00:50::2"]);
        for namespace in ["here", "there"] {
            net.namespace(namespace)
                .run(|| {
                    sysctl::set("net.ipv4.ip_forward", "1").unwrap();
                    sysctl::set("net.ipv6.conf.all.forwarding", "1").unwrap();
                    // Every refusal is to be told: no type of ICMP has a limit, neither a peer's nor that of all.
                    sysctl::set("net.ipv4.icmp_ratemask", "0").unwrap();
                    sysctl::set("net.ipv6.icmp.ratemask", "\n").unwrap();
                })
                .unwrap();
        }
        for (name, ..) in ENDPOINTS {
            net.serve(name);
        }
        net
    }

    /// The namespace where somebody is.
    pub(crate) fn of(&mut self, from: From) -> Netns {
        self.namespace(from.namespace())
    }

    fn namespace(&mut self, name: &str) -> Netns {
        if name == "here" { self.test.ns().clone() } else { self.test.extra(name) }
    }

    /// Interfaces are named after who is at the other end, one for each family.
    fn link(&mut self, a: (&str, &str), b: (&str, &str)) {
        let family = if a.1.contains(':') { "6" } else { "4" };
        let (left, right) = (self.namespace(a.0), self.namespace(b.0));
        let (to_right, to_left) = (format!("{}{family}", b.0), format!("{}{family}", a.0));
        self.test.join((&left, &to_right, a.1), (&right, &to_left, b.1));
    }

    /// One more address.
    fn own(&mut self, namespace: &str, link: &str, address: &str) {
        let mut netlink = Netlink::open_in(&self.namespace(namespace)).unwrap();
        let index = netlink.link(link).unwrap().unwrap().index;
        let address = Address { no_dad: true, ..Address::new(index, address.parse().unwrap()) };
        netlink.apply(&Op::AddrAdd(address)).unwrap();
    }

    fn route(&mut self, namespace: &str, to: [&str; 2], via: [&str; 2]) {
        let mut netlink = Netlink::open_in(&self.namespace(namespace)).unwrap();
        for (to, via) in to.iter().zip(via) {
            let to: IpNet = to.parse().unwrap();
            let route = Route { via: Some(via.parse().unwrap()), ..Route::new(to) };
            netlink.apply(&Op::RouteAdd(route)).unwrap();
        }
    }

    /// Has an endpoint answer every connection, datagram and association with its name and the client's address.
    fn serve(&mut self, name: &'static str) {
        let ended = self.ended.clone();
        let open = || {
            let (tcp, udp) = (TcpListener::bind(("::", TARGET)), UdpSocket::bind(("::", TARGET)));
            (tcp.unwrap(), udp.unwrap(), [false, true].map(sctp::listen))
        };
        let (tcp, udp, sctp) = self.namespace(name).run(open).unwrap();
        let told = move |client: IpAddr| format!("{name} {}", client.to_canonical());
        self.servers.push(std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while !ended.load(Ordering::Relaxed) {
                let mut ready = [tcp.as_fd(), udp.as_fd(), sctp[0].as_fd(), sctp[1].as_fd()]
                    .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
                let pause = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
                poll(&mut ready, Some(&pause)).unwrap();
                let [for_tcp, for_udp, for_sctp @ ..] = ready.map(|fd| !fd.revents().is_empty());
                if for_tcp && let Ok((mut stream, client)) = tcp.accept() {
                    // A client that has gone does not listen.
                    stream.write_all(told(client.ip()).as_bytes()).ok();
                }
                if for_udp && let Ok((_, client)) = udp.recv_from(&mut buffer) {
                    udp.send_to(told(client.ip()).as_bytes(), client).ok();
                }
                for (socket, _) in sctp.iter().zip(for_sctp).filter(|(_, is_ready)| *is_ready) {
                    sctp::answer(socket, told).ok();
                }
            }
        }));
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for server in self.servers.drain(..) {
            server.join().unwrap();
        }
    }
}
