//! A node with three endpoints and a client, all pods, where connections are made and held.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use weft_kernel::testing::TestNs;
use weft_kernel::{Netns, sysctl};
use weft_model::NamespacedName;
use weft_model::service::Protocol;
use weft_service::{Backend, Changed, Choice, Frontend, FrontendKey, Kind, Place, Policy, ServicePlan};

/// Pods that ask. IPVS knows answers by the client's address and port and the endpoint alone: a connection from the same
/// port to another virtual server takes them from the older one. So who goes on asking is not who holds connections.
const CLIENT: u8 = 4;
const OTHER_CLIENT: u8 = 5;
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct World {
    test: TestNs,
}

fn pod(number: u8) -> [String; 2] {
    [format!("10.244.{number}.1"), format!("10.244.{number}.2")]
}

impl World {
    /// Pods whose servers say their number to every connection, then send back what comes.
    pub(crate) fn new() -> World {
        let mut world = World { test: TestNs::new() };
        for number in 1..=OTHER_CLIENT {
            let (here, ns) = (world.test.ns().clone(), world.test.extra(&number.to_string()));
            let [near, far] = pod(number);
            let ends = [format!("{near}/24"), format!("{far}/24")];
            world.test.join((&here, &format!("pod{number}"), &ends[0]), (&ns, "eth0", &ends[1]));
            ns.run(|| run("ip", &["route", "add", "default", "via", &near])).unwrap();
            ns.run(|| serve(number, format!("{far}:8080"))).unwrap();
        }
        sysctl::set("net.ipv4.ip_forward", "1").unwrap();
        world
    }

    /// Where another client is, for a thread of its own.
    pub(crate) fn other_client(&mut self) -> Netns {
        self.test.extra(&OTHER_CLIENT.to_string()).clone()
    }

    /// Does something as the client.
    pub(crate) fn client<T>(&mut self, work: impl FnOnce() -> T + Send) -> T
    where
        T: Send,
    {
        self.test.extra(&CLIENT.to_string()).run(work).unwrap()
    }
}

fn serve(number: u8, at: String) {
    let (tcp, udp) = (TcpListener::bind(&at).unwrap(), UdpSocket::bind(&at).unwrap());
    // Both end with the test's process.
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = tcp.accept() {
            std::thread::spawn(move || {
                stream.write_all(&[number]).ok();
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
            });
        }
    });
    std::thread::spawn(move || {
        while let Ok((_, client)) = udp.recv_from(&mut [0; 8]) {
            udp.send_to(&[number], client).ok();
        }
    });
}

/// A connection that is held, and who answered it.
pub(crate) struct Held {
    pub(crate) by: u8,
    stream: TcpStream,
}

impl Held {
    /// Connects from the calling thread's namespace.
    pub(crate) fn to(at: &str) -> Held {
        let mut stream = TcpStream::connect_timeout(&at.parse().unwrap(), PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut by = [0];
        stream.read_exact(&mut by).unwrap();
        Held { by: by[0], stream }
    }

    /// Whether what is sent comes back.
    pub(crate) fn goes_on(&mut self) -> bool {
        let mut byte = [0];
        self.stream.write_all(b"x").is_ok() && self.stream.read_exact(&mut byte).is_ok() && byte == *b"x"
    }
}

/// Whether a connection is refused.
pub(crate) fn refused(at: &str) -> bool {
    let error = TcpStream::connect_timeout(&at.parse().unwrap(), PATIENCE).err();
    error.is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Who answers a datagram; none where nobody does in time.
pub(crate) fn asked(socket: &UdpSocket) -> Option<u8> {
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    socket.send(b"?").unwrap();
    let mut by = [0];
    socket.recv(&mut by).ok().map(|_| by[0])
}

pub(crate) fn at(address: &str, protocol: Protocol, port: u16) -> FrontendKey {
    FrontendKey { place: Place::Address(address.parse().unwrap()), protocol, port }
}

/// A frontend of a cluster IP that leads to these pods.
pub(crate) fn frontend(pods: &[u8]) -> Frontend {
    let backends: Vec<Backend> = pods
        .iter()
        .map(|number| Backend { address: format!("{}:8080", pod(*number)[1]).parse().unwrap(), here: true })
        .collect();
    let all = if backends.is_empty() { Choice::Reject } else { Choice::Backends(backends.into()) };
    Frontend {
        service: NamespacedName::new("shop", "web"),
        port_name: "http".into(),
        kind: Kind::ClusterIp,
        policy: Policy::Internal,
        local: all.clone(),
        all,
        affinity: None,
        sources: None,
    }
}

pub(crate) fn plan(frontends: &[(FrontendKey, Frontend)]) -> ServicePlan {
    let address = |at: &FrontendKey| match at.place {
        Place::Address(ip) => Some((ip, 1)),
        Place::NodePort { .. } => None,
    };
    ServicePlan {
        frontends: frontends.iter().map(|(at, frontend)| (*at, Arc::new(frontend.clone()))).collect(),
        cluster_ips: frontends.iter().filter_map(|(at, _)| address(at)).collect(),
        pods: vec!["10.244.0.0/16".parse().unwrap()],
        node_addresses: vec!["10.244.1.1/32".parse().unwrap()],
        ..ServicePlan::default()
    }
}

/// That frontends changed, and nothing else.
pub(crate) fn changed(frontends: &[FrontendKey]) -> Changed {
    Changed { frontends: frontends.iter().copied().collect(), ..Changed::default() }
}

/// A virtual server and its destinations with their weights, as `ipvsadm -Ln` prints them.
pub(crate) fn listed() -> Vec<String> {
    let text = run("ipvsadm", &["-Ln"]);
    let lines = text.lines().skip(3).map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            ["->", to, _, weight, ..] => format!("{to}={weight}"),
            _ => words.join(" "),
        }
    });
    lines.collect()
}

pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = std::process::Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The client's socket for one server.
pub(crate) fn datagrams(to: &str) -> UdpSocket {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(to.parse::<SocketAddr>().unwrap()).unwrap();
    socket
}
