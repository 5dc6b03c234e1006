//! Who answers whom, and what source address he sees. The whole table of connections is the bench's.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use weft_model::service::Protocol;
use weft_service::nftables::Nftables;
use weft_service::{Changed, Choice, Frontend, FrontendKey, Kind, Policy};

use super::world::{OUTSIDE, PODS, World, address, ask, patient};
use super::{choice, frontend, key, plan};

/// What becomes of a connection.
#[derive(Clone, Copy, Debug)]
enum Becomes {
    /// One of these answers and sees the client's own address, or (false) one of the node's.
    Answered(&'static [&'static str], bool),
    Refused,
    Silent,
}

use Becomes::{Answered, Refused, Silent};

fn to(pods: &[usize], ipv6: bool) -> Choice {
    let backend = |i: &usize| format!("!{}", SocketAddr::new(address(*i, ipv6, true).parse().unwrap(), 8080));
    let backends: Vec<String> = pods.iter().map(backend).collect();
    choice(&backends.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A Service's place by its number.
fn place(number: u8, ipv6: bool) -> String {
    if ipv6 { format!("fd00:96::{number}") } else { format!("10.96.0.{number}") }
}

fn services(ipv6: bool) -> Vec<(FrontendKey, Frontend)> {
    let at = |number| key(&place(number, ipv6), Protocol::Tcp, 80);
    let node = key(if ipv6 { "node6" } else { "node" }, Protocol::Tcp, 30080);
    let both = Frontend { all: to(&[0, 1], ipv6), local: to(&[0, 1], ipv6), ..frontend(&[]) };
    let one = Frontend { all: to(&[0], ipv6), local: to(&[0], ipv6), ..frontend(&[]) };
    let cluster = Frontend { kind: Kind::LoadBalancer, policy: Policy::Cluster, ..both.clone() };
    let local = Frontend { policy: Policy::Local, local: to(&[0], ipv6), ..cluster.clone() };
    let away = Frontend { local: Choice::Drop, ..local.clone() };
    let net = if ipv6 { "fd00:50::/64" } else { "192.0.2.0/24" };
    let guarded = Frontend { sources: Some([net.parse().unwrap()].into()), ..cluster.clone() };
    let nobody = Frontend { kind: Kind::LoadBalancer, policy: Policy::Local, ..frontend(&[]) };
    let udp = (key(&place(7, ipv6), Protocol::Udp, 53), frontend(&[]));
    vec![
        (at(1), both),
        (at(2), one),
        (at(3), local),
        (at(4), away),
        (at(5), guarded),
        (at(6), nobody),
        (node, Frontend { kind: Kind::NodePort, ..cluster }),
        udp,
    ]
}

#[test]
fn who_answers_whom_and_sees_what() {
    const BOTH: &[&str] = &["a", "b"];
    let cases: [(&str, u8, u16, Becomes); 25] = [
        ("c", 1, 80, Answered(BOTH, true)),
        ("here", 1, 80, Answered(BOTH, false)),
        ("outside", 1, 80, Answered(BOTH, false)),
        ("c", 1, 81, Refused),
        ("here", 1, 81, Refused),
        ("outside", 1, 81, Refused),
        ("a", 2, 80, Answered(&["a"], false)),
        ("b", 2, 80, Answered(&["a"], true)),
        ("c", 3, 80, Answered(BOTH, true)),
        ("here", 3, 80, Answered(BOTH, false)),
        ("outside", 3, 80, Answered(&["a"], true)),
        ("c", 4, 80, Answered(BOTH, true)),
        ("here", 4, 80, Answered(BOTH, false)),
        ("outside", 4, 80, Silent),
        ("c", 5, 80, Silent),
        ("here", 5, 80, Answered(BOTH, false)),
        ("outside", 5, 80, Answered(BOTH, false)),
        ("c", 6, 80, Refused),
        ("here", 6, 80, Refused),
        ("outside", 6, 80, Refused),
        // By node port, at the node's own address.
        ("c", 0, 30080, Answered(BOTH, false)),
        ("here", 0, 30080, Answered(BOTH, false)),
        ("outside", 0, 30080, Answered(BOTH, false)),
        ("outside", 0, 30081, Refused),
        ("outside", 2, 80, Answered(&["a"], false)),
    ];
    let mut world = World::new();
    let plan = plan([false, true].into_iter().flat_map(services));
    Nftables::open().unwrap().apply(&plan, &Changed::default()).unwrap();
    for ipv6 in [false, true] {
        let node = OUTSIDE[usize::from(ipv6)][0];
        for (from, number, port, becomes) in cases {
            let place = if number == 0 { node.to_owned() } else { place(number, ipv6) };
            let to = SocketAddr::new(place.parse().unwrap(), port);
            let pod = PODS.iter().position(|pod| *pod == from);
            let own = pod.map_or(OUTSIDE[usize::from(ipv6)][1].to_owned(), |i| address(i, ipv6, true));
            let own: IpAddr = own.parse().unwrap();
            let client = world.pod(from);
            let what = format!("{from} to {to}: {becomes:?}");
            match becomes {
                Answered(by, keeps) => {
                    let answers: Vec<_> = client.run(|| (0..40).map(|_| ask(to).unwrap()).collect()).unwrap();
                    let found: BTreeSet<&str> = answers.iter().map(|(by, _)| by.as_str()).collect();
                    assert_eq!(found, by.iter().copied().collect(), "{what}");
                    assert!(answers.iter().all(|(_, seen)| (*seen == own) == keeps), "{what}: {answers:?}");
                }
                Refused => {
                    let error = client.run(|| ask(to).unwrap_err()).unwrap();
                    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{what}");
                }
                Silent => {
                    let error = client.run(|| patient(to, Duration::from_millis(300)).unwrap_err()).unwrap();
                    assert_eq!(error.kind(), ErrorKind::TimedOut, "{what}");
                }
            }
        }
        let refused = |to: SocketAddr| {
            let any: IpAddr = if ipv6 { "::" } else { "0.0.0.0" }.parse().unwrap();
            let socket = UdpSocket::bind((any, 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            socket.connect(to).unwrap();
            socket.send(b"?").unwrap();
            socket.recv(&mut [0; 8]).unwrap_err().kind()
        };
        for from in ["c", "outside"] {
            let to = SocketAddr::new(place(7, ipv6).parse().unwrap(), 53);
            assert_eq!(
                world.pod(from).run(|| refused(to)).unwrap(),
                ErrorKind::ConnectionRefused,
                "{from} {to}"
            );
        }
    }
}
