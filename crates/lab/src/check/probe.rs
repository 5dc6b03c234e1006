use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;
use weft_kernel::Netns;

use super::icmp::Icmp;
use super::listener::{self, WHOAMI};
use super::tidy::Tidy;
use super::world::World;
use crate::oracle::{self, Expectation, Party, Proto};

/// How long the first probe waits for its answer, and how long the one retry.
pub(super) const PATIENCE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];

/// What is said of an address that nobody on the last segment answers for.
pub(super) const NO_NEIGHBOUR: &str = "no answer on the last segment (EHOSTUNREACH)";

/// What came of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Observed {
    /// An answer.
    Answered {
        /// Who says it answered; ICMP does not say.
        by: Option<String>,
        /// The source address that the target saw.
        source: Option<IpAddr>,
    },
    /// Nobody listens there.
    Refused,
    /// No answer in time; `seen` is the source with which the target saw the request, if it did.
    Lost { seen: Option<IpAddr> },
    /// The kernel refused to send, or the answer makes no sense.
    Failed(String),
}

/// A probe with what should come of it and what did.
#[derive(Clone, Debug)]
pub(super) struct Probed {
    pub(super) proto: Proto,
    pub(super) port: Option<u16>,
    /// Where to; none where the target has no address.
    pub(super) ip: Option<IpAddr>,
    pub(super) expected: Expectation,
    pub(super) observed: Observed,
    /// Whether the first try was lost.
    pub(super) retried: bool,
}

/// Everything that is open while a check runs.
pub(super) struct Prober<'w> {
    world: &'w World,
    /// The members as the oracle knows them, and what was opened for them.
    parties: Vec<Party>,
    /// Each member's namespace, or why it cannot be entered.
    place: Vec<Result<usize, String>>,
    spaces: Vec<Netns>,
    icmp: Icmp,
    tidy: Option<Tidy>,
    _listeners: JoinSet<()>,
}

impl<'w> Prober<'w> {
    /// Opens the members' namespaces, a raw socket in each, and a listener for each member that
    /// declares no port of its own.
    pub(super) fn open(world: &'w World) -> anyhow::Result<Self> {
        let token = std::process::id().into();
        let members = world.members.iter().map(|member| member.party.clone());
        let parties = members.chain(world.outside.iter().map(|one| one.party.clone())).collect();
        let crowded = Tidy::matters(world.members.len(), world.nodes.len());
        let mut prober = Prober {
            world,
            parties,
            place: Vec::new(),
            spaces: Vec::new(),
            icmp: Icmp::new(token),
            tidy: crowded.then(Tidy::default),
            _listeners: JoinSet::new(),
        };
        let mut known = HashMap::new();
        for at in 0..world.members.len() {
            let path = &world.members[at].netns;
            let place = prober.space(path, &mut known).map_err(|error| format!("{error:#}"));
            if let Ok(space) = place {
                prober.listen(at, space)?;
            }
            prober.place.push(place);
        }
        for outsider in &world.outside {
            let place = prober.space(&outsider.netns, &mut known).map_err(|error| format!("{error:#}"));
            prober.place.push(place);
        }
        Ok(prober)
    }

    /// What is checked.
    pub(super) fn world(&self) -> &'w World {
        self.world
    }

    /// The members, with what was opened for them.
    pub(super) fn parties(&self) -> &[Party] {
        &self.parties
    }

    /// Asks who answers at an address.
    pub(super) async fn ask(
        &self,
        from: usize,
        proto: Proto,
        to: SocketAddr,
        patience: Duration,
    ) -> Observed {
        let outside = from.checked_sub(self.world.members.len()).map(|at| &self.world.outside[at]);
        let link = outside.map(|outsider| &*outsider.link);
        match (&self.place[from], proto) {
            (Err(reason), _) => Observed::Failed(format!("{}: {reason}", self.parties[from].name)),
            (Ok(space), Proto::Udp) => match timeout(patience, self.udp(*space, link, to)).await {
                // What a node's own rules refuse its own processes may not even send.
                Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => Observed::Refused,
                done => judged(done),
            },
            (Ok(space), _) => bounded(patience, self.tcp(*space, link, to)).await,
        }
    }

    fn space(&mut self, path: &Path, known: &mut HashMap<PathBuf, usize>) -> anyhow::Result<usize> {
        if let Some(space) = known.get(path) {
            return Ok(*space);
        }
        let netns = Netns::open(path).context("its network namespace cannot be entered")?;
        let guard = netns.guard()?;
        let space = self.spaces.len();
        self.icmp.open(space).context("cannot open a raw socket")?;
        if let Some(tidy) = &mut self.tidy {
            tidy.add();
        }
        drop(guard);
        self.spaces.push(netns);
        known.insert(path.to_owned(), space);
        Ok(space)
    }

    fn listen(&mut self, at: usize, space: usize) -> anyhow::Result<()> {
        let party = &mut self.parties[at];
        let name = format!("{} {}", party.name, party.node);
        let _guard = self.spaces[space].guard()?;
        for proto in [Proto::Tcp, Proto::Udp] {
            if party.listens.iter().any(|(declared, _)| *declared == proto) {
                continue;
            }
            // The kernel chooses the first address' port, and the others take the same.
            let mut port = 0;
            for ip in &party.ips {
                let tasks = &mut self._listeners;
                let at = SocketAddr::new(*ip, port);
                let opened = match proto {
                    Proto::Tcp => listener::tcp(tasks, at, name.clone()),
                    _ => listener::udp(tasks, at, name.clone()),
                };
                match opened {
                    Ok(opened) => port = opened,
                    // An address that is not there yet is a finding of the probes, and not of this.
                    Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
                    Err(error) => {
                        let what = || format!("cannot listen for {} at {at} of {}", proto.name(), party.name);
                        return Err(error).with_context(what);
                    }
                }
            }
            if port != 0 {
                party.listens.push((proto, port));
            }
        }
        Ok(())
    }

    /// Probes one pair with all three protocols at once, in every family that both have.
    pub(super) async fn pair(&self, from: usize, to: usize) -> Vec<Probed> {
        let targets = addresses(&self.parties[from], &self.parties[to]);
        let probes = targets.into_iter().flat_map(|ip| {
            [Proto::Icmp, Proto::Tcp, Proto::Udp].map(|proto| self.probe(from, to, proto, ip))
        });
        let probed = join_all(probes).await;
        self.forget(from, to);
        probed
    }

    /// Pods of one node learn each other's hardware addresses.
    fn forget(&self, from: usize, to: usize) {
        let (a, b) = (&self.parties[from], &self.parties[to]);
        if a.node != b.node || !a.own_address || !b.own_address {
            return;
        }
        for (place, other) in [(from, b), (to, a)] {
            if let (Some(tidy), Ok(space)) = (&self.tidy, &self.place[place]) {
                other.ips.iter().for_each(|ip| tidy.forget(*space, *ip));
            }
        }
    }

    async fn probe(&self, from: usize, to: usize, proto: Proto, ip: Option<IpAddr>) -> Probed {
        let (source, target) = (&self.parties[from], &self.parties[to]);
        let port = target.listens.iter().find(|(known, _)| *known == proto).map(|(_, port)| *port);
        let like = ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        let mut expected = oracle::expect(&self.world.nodes, source, target, proto, port, like);
        let mut retried = false;
        let observed = match (ip, &self.place[from], &self.place[to]) {
            (None, ..) => {
                // Nothing to listen on: that it has no address is what is wrong.
                expected.reachable = true;
                Observed::Failed(format!("{} has no address", target.name))
            }
            (_, Err(reason), _) => Observed::Failed(format!("{}: {reason}", source.name)),
            (_, _, Err(reason)) => Observed::Failed(format!("{}: {reason}", target.name)),
            (Some(ip), Ok(a), Ok(b)) => {
                let first = self.once(*a, *b, proto, ip, port, PATIENCE[0]).await;
                if expected.reachable && matches!(first, Observed::Lost { .. }) {
                    retried = true;
                    self.once(*a, *b, proto, ip, port, PATIENCE[1]).await
                } else {
                    first
                }
            }
        };
        Probed { proto, port, ip, expected, observed, retried }
    }

    async fn once(
        &self,
        from: usize,
        target: usize,
        proto: Proto,
        ip: IpAddr,
        port: Option<u16>,
        patience: Duration,
    ) -> Observed {
        let to = port.map(|port| SocketAddr::new(ip, port));
        match (proto, to) {
            (Proto::Icmp, _) => self.icmp(from, target, ip, patience).await,
            (Proto::Tcp, Some(to)) => bounded(patience, self.tcp(from, None, to)).await,
            (Proto::Udp, Some(to)) => bounded(patience, self.udp(from, None, to)).await,
            (_, None) => Observed::Failed(format!("{ip} is not an address there: nothing can listen")),
        }
    }

    async fn icmp(&self, from: usize, target: usize, ip: IpAddr, patience: Duration) -> Observed {
        let mut echo = match self.icmp.send(from, target, ip) {
            Ok(echo) => echo,
            Err(error) => return unsent(&error),
        };
        let _ = timeout(patience, echo.answered()).await;
        match (echo.replied(), echo.source()) {
            (true, source) => Observed::Answered { by: None, source },
            (false, seen) => Observed::Lost { seen },
        }
    }

    async fn tcp(&self, from: usize, link: Option<&str>, to: SocketAddr) -> io::Result<String> {
        let socket =
            self.within(from, || if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() })?;
        if let Some(link) = link {
            socket.bind_device(Some(link.as_bytes()))?;
        }
        // Closed by a reset: no connection lingers, and nothing is sent once the pair is done.
        socket.set_zero_linger()?;
        let mut stream = socket.connect(to).await?;
        stream.write_all(WHOAMI).await?;
        let mut answer = Vec::new();
        while !answer.contains(&b'\n') && answer.len() < 512 && stream.read_buf(&mut answer).await? > 0 {}
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    async fn udp(&self, from: usize, link: Option<&str>, to: SocketAddr) -> io::Result<String> {
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = self.within(from, || {
            let socket = std::net::UdpSocket::bind(SocketAddr::new(any, 0))?;
            socket.set_nonblocking(true)?;
            UdpSocket::from_std(socket)
        })?;
        if let Some(link) = link {
            socket.bind_device(Some(link.as_bytes()))?;
        }
        socket.connect(to).await?;
        socket.send(WHOAMI).await?;
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    }

    /// Makes a socket inside a space; it stays there.
    fn within<T>(&self, space: usize, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let _guard = self.spaces[space].guard().map_err(io::Error::other)?;
        make()
    }
}

/// The target's first address of each family that the source has; where there is none of any, its
/// first, or none.
pub(super) fn addresses(source: &Party, target: &Party) -> Vec<Option<IpAddr>> {
    let of = |party: &Party, v4: bool| party.ips.iter().find(|ip| ip.is_ipv4() == v4).copied();
    let shared = [true, false].map(|v4| of(target, v4).filter(|_| of(source, v4).is_some()));
    let shared: Vec<_> = shared.into_iter().filter(Option::is_some).collect();
    if shared.is_empty() { vec![target.ips.first().copied()] } else { shared }
}

async fn bounded(patience: Duration, exchange: impl Future<Output = io::Result<String>>) -> Observed {
    judged(timeout(patience, exchange).await)
}

fn judged(done: Result<io::Result<String>, tokio::time::error::Elapsed>) -> Observed {
    match done {
        Err(_) => Observed::Lost { seen: None },
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Observed::Refused,
        Ok(Err(error)) => unsent(&error),
        // Closed without a word: the other side had no room for the connection.
        Ok(Ok(answer)) if answer.is_empty() => Observed::Lost { seen: None },
        Ok(Ok(answer)) => parse(&answer),
    }
}

fn unsent(error: &io::Error) -> Observed {
    match error.kind() {
        io::ErrorKind::WouldBlock => Observed::Lost { seen: None },
        io::ErrorKind::HostUnreachable => Observed::Failed(NO_NEIGHBOUR.into()),
        io::ErrorKind::NetworkUnreachable => Observed::Failed("no route (ENETUNREACH)".into()),
        _ => Observed::Failed(error.to_string()),
    }
}

/// `namespace/pod node address:port`, as the responder and the check's own listeners answer.
fn parse(answer: &str) -> Observed {
    let mut words = answer.split_whitespace();
    let by = words.next();
    let peer = words.nth(1).and_then(|peer| peer.parse::<SocketAddr>().ok());
    match (by, peer) {
        (Some(by), Some(peer)) => {
            Observed::Answered { by: Some(by.to_owned()), source: Some(peer.ip().to_canonical()) }
        }
        _ => Observed::Failed(format!("an answer that does not say who it is from: {answer:.60?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_probed_in_every_family_that_both_have() {
        let party = |ips: &[&str]| Party {
            name: "a/b".into(),
            node: "node1".into(),
            own_address: true,
            ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            listens: vec![],
        };
        let (both, six, none) = (party(&["fd00::2", "10.244.0.2"]), party(&["fd00::3"]), party(&[]));
        let found = |from: &Party, to: &Party| -> Vec<String> {
            let words = |ip: Option<IpAddr>| ip.map_or("none".into(), |ip| ip.to_string());
            addresses(from, to).into_iter().map(words).collect()
        };
        assert_eq!(found(&both, &both), ["10.244.0.2", "fd00::2"]);
        assert_eq!(found(&both, &six), ["fd00::3"]);
        assert_eq!(found(&six, &both), ["fd00::2"]);
        assert_eq!(found(&six, &party(&["10.244.0.9"])), ["10.244.0.9"]);
        assert_eq!(found(&both, &none), ["none"]);
    }

    #[test]
    fn an_answer_says_who_and_whom_it_saw() {
        let answered = |source: &str| Observed::Answered {
            by: Some("shop/web-0".into()),
            source: Some(source.parse().unwrap()),
        };
        assert_eq!(parse("shop/web-0 node1 10.244.1.7:40000\n"), answered("10.244.1.7"));
        assert_eq!(parse("shop/web-0 node1 [fd00::7]:40000\n"), answered("fd00::7"));
        assert_eq!(parse("shop/web-0 node1 [::ffff:10.244.1.7]:40000\n"), answered("10.244.1.7"));
        assert!(matches!(parse("HTTP/1.1 400 Bad Request\r\n"), Observed::Failed(_)));
        assert!(matches!(parse(""), Observed::Failed(_)));
    }
}
