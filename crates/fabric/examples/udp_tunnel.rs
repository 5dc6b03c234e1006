//! The udp tunnel by itself, for benchmarks and trials without an agent:
//! `udp_tunnel LOCAL:PORT MTU OUR_PREFIX PEER:PORT=PREFIX[,PREFIX]...`, until it is killed.
//! It makes the device and carries; addresses, MTU and routes are the caller's.
#![allow(clippy::expect_used, reason = "a tool for trials ends with what is wrong")]

use std::net::SocketAddr;

use ipnet::IpNet;
use weft_fabric::UdpSpec;
use weft_fabric::udp::{Tunnel, UdpPeer};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [local, mtu, ours, peers @ ..] = &arguments[..] else {
        eprintln!("usage: udp_tunnel LOCAL:PORT MTU OUR_PREFIX[,..] PEER:PORT=PREFIX[,PREFIX]...");
        std::process::exit(2);
    };
    let local: SocketAddr = local.parse().expect("an address such as 192.0.2.1:8285");
    let prefixes: Vec<IpNet> =
        ours.split(',').map(|net| net.parse().expect("a prefix such as 10.244.1.0/24")).collect();
    let spec = UdpSpec {
        port: local.port(),
        local: local.ip(),
        underlay: 0,
        addresses: prefixes.iter().map(|net| net.network().into()).collect(),
        pod_cidrs: prefixes,
        routes: vec![],
        mtu: mtu.parse().expect("an MTU in bytes"),
    };
    let queues = std::env::var("QUEUES").map_or(2, |text| text.parse().expect("a number of queues"));
    let tunnel = Tunnel::start(&spec, queues).expect("start the tunnel");
    let peers: Vec<UdpPeer> = peers
        .iter()
        .map(|peer| {
            let (address, nets) = peer.split_once('=').expect("PEER:PORT=PREFIX");
            UdpPeer {
                address: address.parse().expect("a peer such as 192.0.2.2:8285"),
                prefixes: nets.split(',').map(|net| net.parse().expect("a prefix")).collect(),
            }
        })
        .collect();
    tunnel.set_peers(&peers);
    loop {
        std::thread::sleep(std::time::Duration::from_secs(1));
        if std::env::var_os("VERBOSE").is_some() {
            eprintln!("{:?}", tunnel.counters());
        }
    }
}
