use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use proptest::{collection, proptest, sample, test_runner::Config};
use weft_kernel::testing::TestNs;
use weft_service::userspace::Limits;

use super::*;

#[test]
fn all_bytes_come_through_both_ways_whatever_their_size() {
    let _ns = TestNs::new();
    let mut proxy = proxy();
    let endpoint = TcpListener::bind(local(1)).unwrap();
    let (_, at) = listen_tcp(&mut proxy, &[endpoint.local_addr().unwrap()]);
    // From one byte to what goes through a pipe.
    for length in [0, 1, 1000, 65_535, 65_536, 65_537, 300_000, 20_000_000] {
        let (mut client, mut server) = connect(at, &endpoint);
        let (there, back) = (pattern(length), pattern(length / 2 + 1));
        std::thread::scope(|scope| {
            for (stream, bytes) in [(&client, &there), (&server, &back)] {
                let mut stream = stream.try_clone().unwrap();
                scope.spawn(move || {
                    stream.write_all(bytes).unwrap();
                    end_writing(&stream);
                });
            }
            scope.spawn(|| {
                let mut got = vec![];
                server.read_to_end(&mut got).unwrap();
                assert!(got == there, "{length} bytes to the endpoint");
            });
            let mut got = vec![];
            client.read_to_end(&mut got).unwrap();
            assert!(got == back, "the way back of {length} bytes");
        });
    }
    counted(&proxy, "all are closed", |c| c.connections == 0 && c.held == 0);
}

#[test]
fn one_half_is_closed_and_the_other_goes_on() {
    let _ns = TestNs::new();
    let mut proxy = proxy();
    let endpoint = TcpListener::bind(local(1)).unwrap();
    let (_, at) = listen_tcp(&mut proxy, &[endpoint.local_addr().unwrap()]);
    let (mut client, mut server) = connect(at, &endpoint);
    client.write_all(b"question").unwrap();
    end_writing(&client);
    let mut question = String::new();
    server.read_to_string(&mut question).unwrap();
    assert_eq!(question, "question");
    // After it has heard the end, the endpoint still talks.
    for word in ["a ", "long ", "answer"] {
        server.write_all(word.as_bytes()).unwrap();
    }
    drop(server);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "a long answer");
    counted(&proxy, "it is closed", |c| c.connections == 0);
    assert_eq!(proxy.counters().reset, 0);
}

/// Has closing it say RST.
fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
}

#[test]
fn a_reset_of_either_end_reaches_the_other() {
    let _ns = TestNs::new();
    let mut proxy = proxy();
    let endpoint = TcpListener::bind(local(1)).unwrap();
    let (_, at) = listen_tcp(&mut proxy, &[endpoint.local_addr().unwrap()]);
    for of_client in [true, false] {
        let (mut client, mut server) = connect(at, &endpoint);
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
        let (resets, mut hears) = if of_client { (client, server) } else { (server, client) };
        reset(resets);
        let error = hears.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    counted(&proxy, "both are closed", |c| c.connections == 0 && c.reset == 2);
}

#[test]
fn a_client_that_resets_while_nothing_is_read_is_noticed() {
    let _ns = TestNs::new();
    let mut proxy = proxy();
    let endpoint = TcpListener::bind(local(1)).unwrap();
    let (_, at) = listen_tcp(&mut proxy, &[endpoint.local_addr().unwrap()]);
    let (mut client, server) = connect(at, &endpoint);
    // The endpoint reads nothing, until everything on the way is full.
    client.set_nonblocking(true).unwrap();
    let chunk = pattern(1 << 16);
    while client.write(&chunk).is_ok() {}
    counted(&proxy, "bytes are kept", |c| c.connections == 1);
    reset(client);
    counted(&proxy, "it is closed", |c| c.connections == 0 && c.held == 0);
    drop(server);
}

#[test]
fn a_slow_reader_holds_little_here_and_gets_everything() {
    let _ns = TestNs::new();
    // Room for pipes or not, and for kept bytes or not.
    for (pipes, held) in [(8, 1 << 20), (0, 1 << 20), (0, 0)] {
        let mut proxy = start(Limits { threads: 1, pipes, held, ..Limits::default() });
        let endpoint = TcpListener::bind(local(1)).unwrap();
        let (_, at) = listen_tcp(&mut proxy, &[endpoint.local_addr().unwrap()]);
        let (client, mut server) = connect(at, &endpoint);
        let bytes = pattern(30_000_000);
        std::thread::scope(|scope| {
            let (bytes, mut client) = (&bytes, &client);
            scope.spawn(move || {
                client.write_all(bytes).unwrap();
                end_writing(client);
            });
            let mut got = Vec::with_capacity(bytes.len());
            let mut piece = vec![0; 1 << 14];
            while got.len() < bytes.len() {
                let count = server.read(&mut piece).unwrap();
                assert!(count > 0, "it ended after {} bytes", got.len());
                got.extend_from_slice(&piece[..count]);
                let counters = proxy.counters();
                assert!(counters.held <= held, "{} bytes kept", counters.held);
                assert!(counters.pipes <= pipes, "{} pipes", counters.pipes);
            }
            assert!(&got == bytes);
        });
        drop(server);
    }
}

#[test]
fn urgent_data_does_not_stop_a_stream() {
    let _ns = TestNs::new();
    let mut proxy = proxy();
    let endpoint = TcpListener::bind(local(1)).unwrap();
    let (_, at) = listen_tcp(&mut proxy, &[endpoint.local_addr().unwrap()]);
    let (mut client, mut server) = connect(at, &endpoint);
    for _ in 0..50 {
        client.write_all(b"before").unwrap();
        rustix::net::send(&client, b"!", rustix::net::SendFlags::OOB).unwrap();
        client.write_all(b"after").unwrap();
        let mut got = [0; 11];
        server.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"beforeafter");
    }
}

#[test]
fn the_end_of_a_stream_comes_after_what_a_slow_client_has_not_read() {
    let _ns = TestNs::new();
    let mut proxy = proxy();
    let endpoint = TcpListener::bind(local(1)).unwrap();
    let (_, at) = listen_tcp(&mut proxy, &[endpoint.local_addr().unwrap()]);
    let (mut client, server) = connect(at, &endpoint);
    let bytes = pattern(8 << 20);
    std::thread::scope(|scope| {
        let bytes = &bytes;
        scope.spawn(move || {
            let mut server = server;
            server.write_all(bytes).unwrap();
            server.shutdown(Shutdown::Both).unwrap();
        });
        let mut got = vec![];
        let mut piece = [0; 4096];
        loop {
            match client.read(&mut piece).unwrap() {
                0 => break,
                count => got.extend_from_slice(&piece[..count]),
            }
        }
        assert!(&got == bytes, "{} of {} bytes", got.len(), bytes.len());
    });
}

proptest! {
    #![proptest_config(Config::with_cases(12))]
    #[test]
    fn pieces_of_any_size_arrive_in_order(
        pieces in collection::vec(1usize..200_000, 1..20), held in sample::select(vec![0usize, 1 << 20]),
    ) {
        let _ns = TestNs::new();
        let mut proxy = start(Limits { threads: 1, pipes: 1, held, ..Limits::default() });
        let endpoint = TcpListener::bind(local(1)).unwrap();
        let (_, at) = listen_tcp(&mut proxy, &[endpoint.local_addr().unwrap()]);
        let (client, mut server) = connect(at, &endpoint);
        let bytes = pattern(pieces.iter().sum());
        std::thread::scope(|scope| {
            let (bytes, pieces, mut client) = (&bytes, &pieces, client);
            scope.spawn(move || {
                let mut at = 0;
                for piece in pieces {
                    client.write_all(&bytes[at..at + piece]).unwrap();
                    at += piece;
                }
            });
            let mut got = vec![];
            server.read_to_end(&mut got).unwrap();
            assert!(&got == bytes);
        });
    }
}
