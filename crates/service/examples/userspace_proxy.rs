//! The userspace proxy by itself, for benchmarks and trials without an agent:
//! `userspace_proxy tcp|udp:LISTEN=ENDPOINT[,ENDPOINT]...`, until it is killed. THREADS says how
//! many threads forward, CONNECTIONS how many connections there may be, with little else.
#![allow(clippy::expect_used, reason = "a tool for trials ends with what is wrong")]

use std::net::SocketAddr;

use weft_service::userspace::{Limits, Proxy, Target, Transport, UDP_IDLE};

fn main() {
    let mut limits = Limits::default();
    if let Ok(threads) = std::env::var("THREADS") {
        limits.threads = threads.parse().expect("a number of threads");
    }
    if let Ok(connections) = std::env::var("CONNECTIONS") {
        limits.connections = connections.parse().expect("a number of connections");
        (limits.flows, limits.listeners, limits.pipes) = (16, 16, 16);
    }
    let mut proxy = Proxy::start(limits, UDP_IDLE).expect("start the proxy");
    for argument in std::env::args().skip(1) {
        let (listen, endpoints) = argument.split_once('=').expect("tcp|udp:LISTEN=ENDPOINT[,ENDPOINT]");
        let (transport, listen) = listen.split_once(':').expect("tcp or udp, a colon, an address");
        let transport = if transport == "udp" { Transport::Udp } else { Transport::Tcp };
        let endpoint = |text: &str| text.parse::<SocketAddr>().expect("an endpoint such as 192.0.2.1:80");
        let target = Target { all: endpoints.split(',').map(endpoint).collect(), ..Target::default() };
        let listen = listen.parse().expect("an address such as 127.0.0.1:80");
        proxy.listen(transport, listen, &target).expect("listen");
    }
    loop {
        std::thread::sleep(std::time::Duration::from_secs(1));
        if std::env::var_os("VERBOSE").is_some() {
            eprintln!("{:?}", proxy.counters());
        }
    }
}
