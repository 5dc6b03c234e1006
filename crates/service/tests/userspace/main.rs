//! The userspace proxy with real sockets, each test in a namespace of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod datagrams;
mod endpoints;
mod limits;
mod services;
mod streams;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;

use weft_kernel::testing::eventually;
use weft_service::userspace::{Counters, Limits, ListenerId, Proxy, Target, Transport};

/// How long something may take that is not waited for otherwise.
const PATIENCE: Duration = Duration::from_secs(20);

/// Port 0 of a loopback address.
fn local(last: u8) -> SocketAddr {
    SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, last), 0).into()
}

/// A small proxy with one thread more than one.
fn proxy() -> Proxy {
    start(Limits { threads: 2, ..Limits::default() })
}

fn start(limits: Limits) -> Proxy {
    Proxy::start(limits, Duration::from_secs(10)).unwrap()
}

fn to(endpoints: &[SocketAddr]) -> Target {
    Target { all: endpoints.to_vec(), ..Target::default() }
}

fn listen_tcp(proxy: &mut Proxy, endpoints: &[SocketAddr]) -> (ListenerId, SocketAddr) {
    proxy.listen(Transport::Tcp, local(1), &to(endpoints)).unwrap()
}

/// Waits until the counters say so.
fn counted(proxy: &Proxy, what: &str, holds: impl Fn(&Counters) -> bool) {
    eventually(PATIENCE, what, || holds(&proxy.counters()));
}

/// Both ends of a connection through the proxy.
fn connect(at: SocketAddr, endpoint: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(at).unwrap();
    let (server, _) = endpoint.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
    }
    (client, server)
}

/// An endpoint that tells its number to whoever connects and closes.
fn teller(number: u8) -> SocketAddr {
    let listener = TcpListener::bind(local(1)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            stream.write_all(&[number]).unwrap();
        }
    });
    address
}

/// Which teller answers a client of `from`; none if the connection is reset.
fn ask(at: SocketAddr, from: SocketAddr) -> Option<u8> {
    let mut stream = connect_from(from, at);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut all = vec![];
    stream.read_to_end(&mut all).ok()?;
    all.first().copied()
}

fn connect_from(from: SocketAddr, to: SocketAddr) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &from).unwrap();
    connect(&socket, &to).unwrap();
    socket.into()
}

/// Bytes that show where they belong.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn end_writing(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).unwrap();
}
