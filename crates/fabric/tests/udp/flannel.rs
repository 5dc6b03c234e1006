//! A neighbour that moves one packet a time, as Flannel's own proxy does; and that proxy itself,
//! where WEFT_FLANNEL_PROXY names a program that runs it with the arguments
//! TUN ADDRESS/LENGTH LOCAL PORT MTU [REMOTE_NET LENGTH REMOTE]...

use std::process::{Child, Command, Stdio};

use super::*;

struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn flannels_own_proxy_is_a_peer_like_another() {
    let Ok(program) = std::env::var("WEFT_FLANNEL_PROXY") else {
        println!("skipped: WEFT_FLANNEL_PROXY names no program that runs flannel's udp proxy");
        return;
    };
    let mut world = World::without_tunnels(Outer::V4, 1_500);
    world.start(1);
    let [node1, node2] = [1, 2].map(|n| world.outer.node(n).to_string());
    let arguments = ["flannel0", "10.244.2.0/16", &node2, "8285", "1472", "10.244.1.0", "24", &node1];
    let start = || Command::new(&program).args(arguments).stdout(Stdio::null()).spawn().unwrap();
    let _proxy = Proxy(world.nodes[1].run(start).unwrap());
    eventually(SOON, "flannel's proxy answers", || world.pod(1, "ping -c1 -W1 10.244.2.2").0);
    let (client, server) = connect(&world.pods[0], &world.pods[1], pods(true)[1]);
    let data = pattern(8 << 20);
    transfer(&client, &server, &data);
    transfer(&server, &client, &data);
    let (ok, text) = world.pod(2, "ping -c1 -W5 -M dont -s 20000 10.244.1.2");
    assert!(ok, "{text}");
    assert_eq!(total(&world.tunnel(1).counters()), 0, "{:?}", world.tunnel(1).counters());
}
