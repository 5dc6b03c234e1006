//! How long a speaker takes over real sockets: routes in from one neighbour, reflected to clients, sessions of many.
//! Ours beside BIRD, each as a process of its own in a namespace whose loopback has 10.0.0.0/8. As root, on a quiet
//! machine.
//!
//! usage: cargo run --release -p weft-bgp --example speaker -- ours|bird ROUTES CLIENTS
//!
//! One feeder tells ROUTES (/24, ten in each UPDATE, which has a MED of its own) when CLIENTS sinks, clients of the
//! reflector as the feeder is, are up. Told are the wall time until the speaker has all routes, and until all sinks
//! have them; and of its process the time on CPUs and the resident memory.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ipnet::Ipv4Net;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use weft_bgp::message::{self, Attributes, Capabilities, Kind, Negotiated, NextHop, Nlri, Open, Relation};
use weft_bgp::session::PeerAs;
use weft_bgp::speaker::{Neighbour, Remote, Settings, Speaker, Ttl};
use weft_bgp::{Family, PerFamily};
use weft_kernel::testing::TestNs;
use weft_kernel::{Address, Op};

const AS: u32 = 64512;
const SPEAKER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// The speaker of ours, which answers each line with the number of its routes.
fn serve() -> Result<()> {
    let mut settings = Settings::new(AS, SPEAKER);
    settings.listen.push(SocketAddr::new(SPEAKER.into(), 179));
    let all = Remote::Prefix { net: "10.0.0.0/8".parse()?, limit: 100_000 };
    let mut neighbour = Neighbour::new(all, PeerAs::Internal);
    neighbour.reflector_client = true;
    neighbour.ttl = Ttl::Hops(64);
    settings.neighbours.insert("all".into(), neighbour);
    let speaker = Speaker::start(settings)?;
    for line in std::io::stdin().lock().lines() {
        line?;
        println!("{}", speaker.status().prefixes);
    }
    Ok(())
}

/// A speaker that is measured.
struct Measured {
    process: Child,
    folder: tempfile::TempDir,
    bird: bool,
}

impl Measured {
    fn start(bird: bool) -> Result<Measured> {
        let folder = tempfile::tempdir()?;
        let (conf, socket) = (folder.path().join("bird.conf"), folder.path().join("ctl"));
        let mut command = match bird {
            true => Command::new("/usr/sbin/bird"),
            false => Command::new(std::env::current_exe()?),
        };
        if bird {
            let text = format!(
                "router id {SPEAKER};\nprotocol device {{}}\nprotocol bgp clients {{\n  local {SPEAKER} as {AS};\n  \
                 neighbor range 10.0.0.0/8 as {AS};\n  multihop;\n  passive;\n  rr client;\n  \
                 ipv4 {{ import all; export all; }};\n}}\n"
            );
            std::fs::write(&conf, text)?;
            command.arg("-f").arg("-c").arg(&conf).arg("-s").arg(&socket);
            command.arg("-P").arg(folder.path().join("pid"));
        } else {
            command.arg("serve");
        }
        let process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        Ok(Measured { process, folder, bird })
    }

    /// How many routes it has.
    fn routes(&mut self) -> Result<usize> {
        if self.bird {
            let socket = self.folder.path().join("ctl");
            let said = Command::new("/usr/sbin/birdc")
                .arg("-s")
                .arg(socket)
                .args(["show", "route", "count"])
                .output()?;
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            let count =
                said.lines().find_map(|line| line.split_once(" of ")?.0.split(' ').next()?.parse().ok());
            return Ok(count.unwrap_or(0));
        }
        self.process.stdin.as_mut().context("no input")?.write_all(b"\n")?;
        let mut said = Vec::new();
        let output = self.process.stdout.as_mut().context("no output")?;
        while said.last() != Some(&b'\n') {
            let mut byte = [0];
            output.read_exact(&mut byte)?;
            said.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&said).trim().parse()?)
    }

    /// Time on CPUs, and resident memory in MiB.
    fn cost(&self) -> Result<(Duration, usize)> {
        let mut on_cpu = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let stat = std::fs::read_to_string(thread?.path().join("schedstat"))?;
            on_cpu += stat.split(' ').next().context("no time on CPU")?.parse::<u64>()?;
        }
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.process.id()))?;
        let pages: usize = statm.split(' ').nth(1).context("no resident pages")?.parse()?;
        Ok((Duration::from_nanos(on_cpu), (pages * 4096) >> 20))
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A neighbour whose session stands.
struct Peer {
    stream: TcpStream,
    unread: Vec<u8>,
    routes: usize,
}

impl Peer {
    fn up(number: u32) -> Result<Peer> {
        let ip = Ipv4Addr::from_bits(SPEAKER.to_bits() + number);
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &SocketAddr::new(ip.into(), 0))?;
        connect(&socket, &SocketAddr::new(SPEAKER.into(), 179))?;
        let mut stream = TcpStream::from(socket);
        let mut bytes = Vec::new();
        message::open(&mut bytes, &open(ip));
        message::keepalive(&mut bytes);
        stream.write_all(&bytes)?;
        let mut peer = Peer { stream, unread: Vec::new(), routes: 0 };
        let mut kinds = Vec::new();
        while !kinds.contains(&Kind::Keepalive) {
            peer.read(|kind, _| kinds.push(kind))?;
            ensure!(!kinds.contains(&Kind::Notification), "the session is refused");
        }
        peer.stream.set_nonblocking(true)?;
        Ok(peer)
    }

    fn read(&mut self, mut each: impl FnMut(Kind, &[u8])) -> Result<()> {
        let mut buffer = [0; 64 << 10];
        let read = match self.stream.read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
            read => read?,
        };
        ensure!(read > 0, "the speaker has closed a session");
        self.unread.extend(&buffer[..read]);
        let mut done = 0;
        while let Some(frame) = message::frame(&self.unread[done..], false)? {
            each(frame.kind, frame.body);
            done += frame.length();
        }
        self.unread.drain(..done);
        Ok(())
    }

    /// Counts the routes that have come, all of them /24.
    fn count(&mut self) -> Result<()> {
        let mut routes = 0;
        self.read(|kind, body| {
            let length = |at: usize| usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
            if kind == Kind::Update {
                let attributes = 2 + length(0);
                routes += (body.len() - attributes - 2 - length(attributes)) / 4;
            }
        })?;
        self.routes += routes;
        Ok(())
    }
}

fn open(id: Ipv4Addr) -> Open {
    let capabilities = Capabilities {
        families: Some(PerFamily { ipv4: true, ipv6: false }),
        four_octet_as: Some(AS),
        ..Capabilities::default()
    };
    Open { asn: AS, hold: 0, id, capabilities }
}

/// The UPDATEs of so many routes.
fn feed(count: u32) -> Result<Vec<u8>> {
    let terms = Negotiated::new(&open(SPEAKER), &open(Ipv4Addr::BROADCAST), Relation::Internal);
    let mut out = Vec::new();
    for first in (0..count).step_by(10) {
        let mut attributes = Attributes::new(NextHop::V4(Ipv4Addr::new(10, 9, 9, 9)));
        attributes.local_pref = Some(100);
        attributes.med = Some(first / 10);
        let route = |i: u32| {
            let prefix = Ipv4Net::new_assert(Ipv4Addr::from_bits((20 << 24) + (i << 8)), 24).into();
            Nlri { prefix, path: 0 }
        };
        let routes = (first..count.min(first + 10)).map(route);
        message::announce(&mut out, &terms, &attributes, Family::Ipv4, routes)?;
    }
    Ok(out)
}

fn measure(bird: bool, routes: u32, clients: u32) -> Result<()> {
    let test = TestNs::new();
    let mut netlink = test.netlink();
    let lo = netlink.link("lo")?.context("no loopback")?.index;
    netlink.apply(&Op::AddrAdd(Address::new(lo, "10.0.0.1/8".parse()?)))?;
    let mut speaker = Measured::start(bird)?;
    let began = Instant::now();
    let mut sinks = Vec::new();
    while sinks.len() < clients as usize {
        match Peer::up(2 + sinks.len() as u32) {
            Ok(peer) => sinks.push(peer),
            Err(error) if began.elapsed() > Duration::from_secs(60) => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    let mut feeder = loop {
        match Peer::up(1) {
            Ok(peer) => break peer,
            Err(error) if began.elapsed() > Duration::from_secs(60) => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    println!("{clients} sessions and the feeder's: {:?}", began.elapsed());
    feeder.stream.set_nonblocking(false)?;
    let (bytes, (cpu, _)) = (feed(routes)?, speaker.cost()?);
    let start = Instant::now();
    let writer = std::thread::spawn(move || feeder.stream.write_all(&bytes).map(|()| feeder));
    while sinks.iter().any(|sink| sink.routes < routes as usize) {
        let mut fds: Vec<PollFd<'_>> = sinks
            .iter()
            .filter(|sink| sink.routes < routes as usize)
            .map(|sink| PollFd::from_borrowed_fd(sink.stream.as_fd(), PollFlags::IN))
            .collect();
        poll(&mut fds, None)?;
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let waiting = sinks.iter_mut().filter(|sink| sink.routes < routes as usize);
        for (sink, _) in waiting.zip(ready).filter(|(_, ready)| *ready) {
            sink.count()?;
        }
    }
    let reflected = start.elapsed();
    while speaker.routes()? < routes as usize {
        std::thread::sleep(Duration::from_millis(2));
    }
    let taken = start.elapsed();
    let (cpu_after, memory) = speaker.cost()?;
    let _feeder = writer.join().ok().context("the feeder failed")??;
    let name = if bird { "BIRD" } else { "ours" };
    println!(
        "{name}: {routes} routes taken within {taken:?}, by {clients} clients within {reflected:?}, {:?} on CPUs, {memory} MiB",
        cpu_after - cpu
    );
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve"] => serve(),
        [who @ ("ours" | "bird"), routes, clients] => {
            measure(*who == "bird", routes.parse()?, clients.parse()?)
        }
        _ => bail!("usage: speaker ours|bird ROUTES CLIENTS"),
    }
}
