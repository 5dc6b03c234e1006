//! F61: a resolver asks for A and AAAA at once from one socket. Both packets may be the first of the connection
//! then, each with an endpoint of its own, and neither question may be lost: the kernel resolves that (its counter
//! `clash_resolve`; here some hundred times) where a decision is made in chains of NAT alone.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use weft_model::service::Protocol;
use weft_service::Changed;
use weft_service::nftables::Nftables;

use super::world::{World, address};
use super::{choice, frontend, key, plan};

const QUESTIONS: usize = 5000;

/// Answers each question with itself.
fn answer(socket: &UdpSocket) {
    let mut question = [0; 64];
    while let Ok((length, from)) = socket.recv_from(&mut question) {
        socket.send_to(&question[..length], from).ok();
    }
}

#[test]
fn two_questions_at_once_are_both_answered() {
    let mut world = World::new();
    let servers: Vec<SocketAddr> =
        (0..2).map(|i| SocketAddr::new(address(i, false, true).parse().unwrap(), 53)).collect();
    for (pod, at) in ["a", "b"].iter().zip(&servers) {
        let socket = world.pod(pod).run(|| UdpSocket::bind(at).unwrap()).unwrap();
        std::thread::spawn(move || answer(&socket));
    }
    let backends: Vec<String> = servers.iter().map(|at| format!("!{at}")).collect();
    let all = choice(&backends.iter().map(String::as_str).collect::<Vec<_>>());
    let dns = super::Frontend { all: all.clone(), local: all, ..frontend(&[]) };
    let plan = plan([(key("10.96.0.10", Protocol::Udp, 53), dns)]);
    Nftables::open().unwrap().apply(&plan, &Changed::default()).unwrap();

    let client = world.pod("c");
    let socket = || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect("10.96.0.10:53").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        Arc::new(socket)
    };
    let (ask, barrier) = (std::sync::mpsc::channel::<Arc<UdpSocket>>(), Arc::new(Barrier::new(2)));
    let (sender, asked) = ask;
    let other = barrier.clone();
    let aaaa = std::thread::spawn(move || {
        for socket in asked {
            other.wait();
            socket.send(b"AAAA").unwrap();
        }
    });
    let mut lost = 0;
    for _ in 0..QUESTIONS {
        let socket = client.run(socket).unwrap();
        sender.send(socket.clone()).unwrap();
        barrier.wait();
        socket.send(b"A").unwrap();
        let mut answers: Vec<usize> = (0..2).filter_map(|_| socket.recv(&mut [0; 64]).ok()).collect();
        answers.sort_unstable();
        lost += usize::from(answers != [1, 4]);
    }
    drop(sender);
    aaaa.join().unwrap();
    assert_eq!(lost, 0, "of {QUESTIONS} pairs");
}
