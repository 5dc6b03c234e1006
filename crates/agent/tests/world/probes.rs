//! Traffic that runs while something changes: an echo on one TCP connection, connections one after
//! the other, and datagrams; each counted.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use weft_kernel::Netns;
use weft_kernel::testing::{eventually, send_frames};
use weft_kernel::transport::{TcpInfo, forbid_fragments, path_mtu};

/// Between two bytes on the established connection, and between two datagrams.
const PACE: Duration = Duration::from_millis(1);
/// Between two new connections.
const CONNECT_PACE: Duration = Duration::from_millis(10);
/// What has no answer after this is lost.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longer than any change may stop an established connection.
const STALL: Duration = Duration::from_secs(30);

/// What the traffic met with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Echoes on the established connection, which did not end.
    pub echoes: u32,
    /// The longest wait for one.
    pub longest: Duration,
    /// Segments sent again that had not arrived.
    pub retransmits: u32,
    /// New connections, and those of them that failed.
    pub connections: (u32, u32),
    /// Datagrams, and those of them that were not answered.
    pub datagrams: (u32, u32),
}

/// Traffic between two pods until [`Probes::end`].
pub struct Probes {
    stop: Arc<AtomicBool>,
    /// For the servers, which answer until the clients have ended.
    close: Arc<AtomicBool>,
    echoes: Arc<AtomicU32>,
    echo: JoinHandle<io::Result<Report>>,
    connect: JoinHandle<(u32, u32)>,
    datagrams: JoinHandle<(u32, u32)>,
    servers: Vec<JoinHandle<()>>,
}

impl Probes {
    /// Starts it from a pod to the address of another, once the first connection is there.
    pub fn start(from: &Netns, far: &Netns, to: IpAddr) -> Probes {
        let stop = Arc::new(AtomicBool::new(false));
        let (tcp, udp) =
            far.run(|| (TcpListener::bind((to, 0)).unwrap(), UdpSocket::bind((to, 0)).unwrap())).unwrap();
        let (tcp_at, udp_at) = (tcp.local_addr().unwrap(), udp.local_addr().unwrap());
        let close = Arc::new(AtomicBool::new(false));
        let servers = vec![serve_tcp(tcp, &close), serve_udp(udp, &close)];
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let stream = from.run(|| TcpStream::connect(tcp_at).unwrap()).unwrap();
        let socket = from.run(|| UdpSocket::bind(any).unwrap()).unwrap();
        socket.connect(udp_at).unwrap();
        let (ends, near) = (stop.clone(), from.clone());
        let echoes = Arc::new(AtomicU32::new(0));
        let count = echoes.clone();
        Probes {
            echo: spawn(move || echo(stream, &ends, &count)),
            connect: {
                let ends = stop.clone();
                spawn(move || near.run(|| connect(tcp_at, &ends)).unwrap())
            },
            datagrams: {
                let ends = stop.clone();
                spawn(move || ask(&socket, &ends))
            },
            stop,
            close,
            echoes,
            servers,
        }
    }

    /// Waits until the established connection carries, now.
    pub fn carries(&self) {
        let until = self.echoes.load(Ordering::Relaxed) + 20;
        let more = || self.echoes.load(Ordering::Relaxed) > until || self.echo.is_finished();
        eventually(STALL, "the established connection carries", more);
    }

    /// Ends it; the established connection must have lived until now.
    pub fn end(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        let echo = self.echo.join().unwrap();
        let connections = self.connect.join().unwrap();
        let datagrams = self.datagrams.join().unwrap();
        self.close.store(true, Ordering::Relaxed);
        self.servers.into_iter().for_each(|server| server.join().unwrap());
        let echo = echo.expect("the established connection broke");
        Report { connections, datagrams, ..echo }
    }
}

impl Report {
    /// Nothing was lost, refused or sent again.
    pub fn is_whole(&self) -> bool {
        (self.retransmits, self.connections.1, self.datagrams.1) == (0, 0, 0)
    }
}

fn echo(mut stream: TcpStream, stop: &AtomicBool, count: &AtomicU32) -> io::Result<Report> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STALL))?;
    let mut report = Report::default();
    // What the connection took to be made is no part of it.
    let before = TcpInfo::of(&stream)?;
    while !stop.load(Ordering::Relaxed) {
        let sent = Instant::now();
        stream.write_all(&report.echoes.to_be_bytes())?;
        let mut back = [0; 4];
        stream.read_exact(&mut back)?;
        assert_eq!(u32::from_be_bytes(back), report.echoes, "an echo of something else");
        report.echoes += 1;
        count.store(report.echoes, Ordering::Relaxed);
        report.longest = report.longest.max(sent.elapsed());
        sleep(PACE);
    }
    let info = TcpInfo::of(&stream)?;
    let again = info.retransmits.saturating_sub(before.retransmits);
    report.retransmits = again.saturating_sub(info.needless);
    Ok(report)
}

fn connect(to: SocketAddr, stop: &AtomicBool) -> (u32, u32) {
    let (mut tried, mut failed) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        tried += 1;
        let exchange = || {
            let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(b"new!")?;
            stream.read_exact(&mut [0; 4])
        };
        failed += u32::from(exchange().is_err());
        sleep(CONNECT_PACE);
    }
    (tried, failed)
}

/// One at a time, so that a busy machine loses none of them in a socket's buffer.
fn ask(socket: &UdpSocket, stop: &AtomicBool) -> (u32, u32) {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut sent, mut lost) = (0u32, 0);
    while !stop.load(Ordering::Relaxed) {
        sent += 1;
        let mut answer = [0; 4];
        let answered = socket.send(&sent.to_be_bytes()).is_ok()
            && loop {
                match socket.recv(&mut answer) {
                    Ok(4) if u32::from_be_bytes(answer) == sent => break true,
                    // An answer that came after its time.
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => break false,
                }
            };
        lost += u32::from(!answered);
        sleep(PACE);
    }
    (sent, lost)
}

fn serve_tcp(listener: TcpListener, stop: &Arc<AtomicBool>) -> JoinHandle<()> {
    let stop = stop.clone();
    listener.set_nonblocking(true).unwrap();
    spawn(move || {
        let mut streams: Vec<JoinHandle<()>> = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => streams.push(spawn(move || echo_back(stream))),
                Err(_) => sleep(PACE),
            }
        }
        streams.into_iter().for_each(|stream| stream.join().unwrap());
    })
}

/// Until the client goes.
fn echo_back(mut stream: TcpStream) {
    stream.set_nonblocking(false).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(STALL)).unwrap();
    let mut bytes = [0; 64];
    loop {
        match stream.read(&mut bytes) {
            Ok(length @ 1..) if stream.write_all(&bytes[..length]).is_ok() => {}
            // A signal to the process is no end of the connection.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

fn serve_udp(socket: UdpSocket, stop: &Arc<AtomicBool>) -> JoinHandle<()> {
    let stop = stop.clone();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    spawn(move || {
        let mut bytes = [0; 64];
        while !stop.load(Ordering::Relaxed) {
            if let Ok((length, peer)) = socket.recv_from(&mut bytes) {
                let _ = socket.send_to(&bytes[..length], peer);
            }
        }
    })
}

/// Sends `bytes` bytes over one TCP connection; all must arrive.
pub fn transfer(from: &Netns, far: &Netns, to: IpAddr, bytes: usize) {
    let listener = far.run(|| TcpListener::bind((to, 0)).unwrap()).unwrap();
    let at = listener.local_addr().unwrap();
    let sink = spawn(move || io::copy(&mut listener.accept()?.0, &mut io::sink()));
    let mut stream = from.run(|| TcpStream::connect(at).unwrap()).unwrap();
    stream.set_write_timeout(Some(STALL)).unwrap();
    stream.write_all(&vec![7; bytes]).unwrap();
    drop(stream);
    assert_eq!(sink.join().unwrap().unwrap(), bytes as u64);
}

/// The largest UDP packet that comes through and must not be fragmented, in bytes with its headers:
/// as large as the kernel takes the path to be, once it has learnt it.
pub fn path_takes(from: &Netns, far: &Netns, to: IpAddr) -> u32 {
    let server = far.run(|| UdpSocket::bind((to, 0)).unwrap()).unwrap();
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = from.run(|| UdpSocket::bind(any).unwrap()).unwrap();
    socket.connect(server.local_addr().unwrap()).unwrap();
    forbid_fragments(&socket, to.is_ipv6()).unwrap();
    server.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    for _ in 0..20 {
        let mtu = path_mtu(&socket, to.is_ipv6()).unwrap();
        let length = mtu as usize - if to.is_ipv4() { 28 } else { 48 };
        let arrived = socket.send(&vec![7; length]).is_ok() && server.recv(&mut [0; 9000]).is_ok();
        if arrived {
            return mtu;
        }
    }
    panic!("nothing of the size that the path takes comes through to {to}");
}

/// Sends broadcasts from so many different hardware addresses out of `eth0` of `pod`.
pub fn flood(pod: &Netns, addresses: u32) {
    let frame = |number: u32| {
        let [a, b, c, d] = number.to_be_bytes();
        // To all, from a locally administered address, of the type that RFC 5342 leaves for experiments.
        let mut frame = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0xee, a, b, c, d, 0x88, 0xb5];
        frame.resize(60, 0);
        frame
    };
    pod.run(|| send_frames("eth0", (0..addresses).map(frame)).unwrap()).unwrap();
}
