use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use super::*;

const PORTS: &[(u16, Protocol)] = &[(80, Protocol::Tcp), (53, Protocol::Udp), (9, Protocol::Sctp)];

/// Runs a client in a namespace of its own where a responder serves [`PORTS`].
fn with_responder(client: impl FnOnce(&Unserved) + Send + 'static) {
    let netns = Netns::create_unpinned().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let identity = Identity { pod: "web-0".into(), namespace: "shop".into(), node: "node1".into() };
    runtime.block_on(async {
        let (responder, unserved) = Responder::start(&netns, identity, PORTS, &[]);
        let inside = netns.clone();
        let done = tokio::task::spawn_blocking(move || inside.run(|| client(&unserved)).unwrap());
        done.await.unwrap();
        drop(responder);
    });
}

fn ask(stream: &mut TcpStream, question: &[u8]) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(question).unwrap();
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).unwrap();
    String::from_utf8(answer[..length].to_vec()).unwrap()
}

#[test]
fn a_tcp_port_speaks_http_tells_who_it_is_and_echoes_the_rest() {
    with_responder(|unserved| {
        assert_eq!(unserved.failed, Vec::<String>::new());
        assert!(unserved.ignored[0].contains("9/SCTP"));
        let connect = || TcpStream::connect("127.0.0.1:80").unwrap();
        let mut http = connect();
        let address = http.local_addr().unwrap();
        http.write_all(
            b"POST /a?b=1 HTTP/1.1\r\nHost: shop\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 4\r\n\r\nbody",
        )
        .unwrap();
        let mut answer = String::new();
        http.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("Connection: close"), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            body,
            serde_json::json!({"pod": "web-0", "namespace": "shop", "node": "node1", "client": address,
                "method": "POST", "path": "/a?b=1",
                "headers": {"host": "shop", "x-a": "1, 2", "content-length": "4"}})
        );
        let mut who = connect();
        let address = who.local_addr().unwrap();
        assert_eq!(ask(&mut who, WHOAMI), format!("shop/web-0 node1 {address}\n"));
        assert_eq!(ask(&mut who, b"and more"), "and more");
        assert_eq!(ask(&mut connect(), b"hello"), "hello");
        assert_eq!(ask(&mut connect(), b"GE"), "GE", "one that hesitates");
    });
}

#[test]
fn a_udp_port_tells_who_it_is_and_echoes_the_rest() {
    with_responder(|_| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.connect("127.0.0.1:53").unwrap();
        let mut answer = [0; 128];
        let who = format!("shop/web-0 node1 {}\n", socket.local_addr().unwrap());
        for (question, expected) in [(WHOAMI, who.as_bytes()), (b"hello", b"hello")] {
            socket.send(question).unwrap();
            let length = socket.recv(&mut answer).unwrap();
            assert_eq!(&answer[..length], expected);
        }
    });
}

#[tokio::test]
async fn a_port_that_another_has_is_told() {
    let netns = Netns::create_unpinned().unwrap();
    let identity = Identity { pod: "a".into(), namespace: "b".into(), node: "node1".into() };
    let (first, none) = Responder::start(&netns, identity.clone(), &PORTS[..2], &[]);
    assert_eq!(none, Unserved::default());
    let (second, both) = Responder::start(&netns, identity.clone(), &PORTS[..2], &[]);
    assert!(both.failed[0].contains("80/TCP is taken on node1"), "{both:?}");
    assert!(both.failed[1].contains("53/UDP is taken on node1"), "{both:?}");
    first.stop().await;
    second.stop().await;
    let (_third, none) = Responder::start(&netns, identity, &PORTS[..2], &[]);
    assert_eq!(none, Unserved::default());
}
