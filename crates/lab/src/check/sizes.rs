//! What a path takes: packets of every size that must not be fragmented, larger ones that may be,
//! and a large transfer over TCP. A tunnel that hides a narrow hop swallows some of them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;
use weft_kernel::transport::{TcpInfo, forbid_fragments, path_mtu};
use weft_kernel::{Netlink, Netns};

use super::World;
use crate::oracle::Party;

/// Bytes of the large transfer: enough for hundreds of full segments of any size.
const TRANSFER: usize = 10_000_000;
/// How long the transfer, and one datagram, may take.
const TRANSFER_PATIENCE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_millis(500);
/// How often a datagram is sent again, each time as large as the path is known to take by then.
const ATTEMPTS: u32 = 8;
/// Lengths of UDP datagrams, in bytes, beside the largest that the path takes.
const LENGTHS: [usize; 4] = [1, 512, 1200, 1372];
/// Longer than any link takes: it is sent in fragments.
const FRAGMENTED: usize = 20_000;

/// What one path between two pods takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PathReport {
    /// The pod that sent.
    pub from: String,
    /// The pod that received.
    pub to: String,
    /// To which address.
    pub address: IpAddr,
    /// MTU of the sender's link, in bytes.
    pub link_mtu: u32,
    /// The largest packet that came through whole, in bytes with its IP header.
    pub path_mtu: u32,
    /// Segments of the transfer that were sent again and had not arrived.
    pub retransmits: u32,
    /// What did not come through.
    pub failed: Vec<String>,
}

/// The paths that are measured: between a pod of each node and one of each other node, in every
/// family that both have.
pub(super) async fn measure(world: &World) -> anyhow::Result<Vec<PathReport>> {
    let mut chosen: Vec<(&Party, Netns)> = Vec::new();
    for member in world.members.iter().filter(|member| member.party.own_address) {
        if !chosen.iter().any(|(party, _)| party.node == member.party.node) {
            chosen.push((&member.party, Netns::open(&member.netns)?));
        }
    }
    let mut reports = Vec::new();
    for (from, near) in &chosen {
        for (to, far) in chosen.iter().filter(|(to, _)| to.node != from.node) {
            for ip in super::probe::addresses(from, to).into_iter().flatten() {
                let mut report = PathReport {
                    from: from.name.clone(),
                    to: to.name.clone(),
                    address: ip,
                    link_mtu: 0,
                    path_mtu: 0,
                    retransmits: 0,
                    failed: Vec::new(),
                };
                if let Err(error) = one(near, far, ip, TRANSFER_PATIENCE, &mut report).await {
                    report.failed.push(error.to_string());
                }
                reports.push(report);
            }
        }
    }
    Ok(reports)
}

async fn one(
    near: &Netns,
    far: &Netns,
    ip: IpAddr,
    patience: Duration,
    report: &mut PathReport,
) -> io::Result<()> {
    let mut tasks = JoinSet::new();
    let (listener, echo) = {
        let _guard = far.guard().map_err(io::Error::other)?;
        let at = SocketAddr::new(ip, 0);
        let listener = if ip.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        listener.bind(at)?;
        (listener.listen(1)?, udp(at)?)
    };
    let (tcp_at, udp_at) = (listener.local_addr()?, echo.local_addr()?);
    tasks.spawn(count(listener));
    tasks.spawn(lengths(echo));
    let link = Netlink::open_in(near).and_then(|mut netlink| netlink.link("eth0"));
    report.link_mtu = link.map_err(io::Error::other)?.map_or(0, |link| link.mtu);
    let (socket, stream) = {
        let _guard = near.guard().map_err(io::Error::other)?;
        let any = if ip.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let stream = if ip.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        (udp(SocketAddr::new(any, 0))?, stream)
    };
    // Fragments first, when nothing is known of the path yet.
    socket.connect(udp_at).await?;
    let mut fragmented = false;
    for _ in 0..ATTEMPTS {
        fragmented = fragmented || answered(&socket, FRAGMENTED).await?;
    }
    if !fragmented {
        report.failed.push(format!("UDP, {FRAGMENTED} bytes in fragments"));
    }
    forbid_fragments(&socket, ip.is_ipv6())?;
    match largest(&socket, ip).await? {
        Some(mtu) => report.path_mtu = mtu,
        None => report.failed.push("UDP that must not be fragmented, however small".into()),
    }
    for length in LENGTHS.into_iter().filter(|length| length + head(ip) <= report.path_mtu as usize) {
        if !answered(&socket, length).await? {
            report.failed.push(format!("UDP, {length} bytes that must not be fragmented"));
        }
    }
    match timeout(patience, transfer(stream, tcp_at)).await {
        Ok(Ok(info)) => report.retransmits = info.retransmits.saturating_sub(info.needless),
        Ok(Err(error)) => report.failed.push(format!("TCP, {TRANSFER} bytes: {error}")),
        Err(_) => report.failed.push(format!("TCP, {TRANSFER} bytes: not in {patience:?}")),
    }
    Ok(())
}

fn udp(at: SocketAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(at)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// Bytes of the IP and UDP headers.
fn head(ip: IpAddr) -> usize {
    if ip.is_ipv4() { 28 } else { 48 }
}

/// The largest packet that is answered: as large as the kernel takes the path to be, which an ICMP
/// message about a narrower hop corrects.
async fn largest(socket: &UdpSocket, ip: IpAddr) -> io::Result<Option<u32>> {
    for _ in 0..ATTEMPTS {
        let mtu = path_mtu(socket, ip.is_ipv6())?;
        if answered(socket, (mtu as usize).saturating_sub(head(ip))).await? {
            return Ok(Some(mtu));
        }
    }
    Ok(None)
}

/// Whether a datagram of `length` bytes arrived whole. What the path is known not to take, or turns
/// out not to, is not.
async fn answered(socket: &UdpSocket, length: usize) -> io::Result<bool> {
    let datagram = vec![0x77; length];
    for _ in 0..2 {
        match socket.send(&datagram).await {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(false),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) => {
                return Ok(false);
            }
            sent => sent?,
        };
        let mut answer = [0; 8];
        match timeout(PATIENCE, socket.recv(&mut answer)).await {
            Ok(Ok(8)) if u64::from_be_bytes(answer) == length as u64 => return Ok(true),
            // An answer to an earlier one, an ICMP message, or silence.
            _ => {}
        }
    }
    Ok(false)
}

/// Answers each datagram with its length.
async fn lengths(socket: UdpSocket) {
    let mut datagram = vec![0; 65_535];
    loop {
        if let Ok((length, peer)) = socket.recv_from(&mut datagram).await {
            let _ = socket.send_to(&(length as u64).to_be_bytes(), peer).await;
        }
    }
}

/// Reads one connection to its end and answers with what came: how much, and the sum of it.
async fn count(listener: TcpListener) {
    let Ok((mut stream, _)) = listener.accept().await else { return };
    let (mut buffer, mut seen) = (vec![0; 65_536], Digest::default());
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        seen.take(&buffer[..length]);
    }
    let _ = stream.write_all(&seen.0.to_be_bytes()).await;
}

/// Fowler, Noll and Vo's hash (FNV-1a): where a byte is wrong, missing or out of place, it differs.
#[derive(Debug, PartialEq, Eq)]
struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Digest(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

async fn transfer(socket: TcpSocket, to: SocketAddr) -> io::Result<TcpInfo> {
    let mut stream = socket.connect(to).await?;
    let bytes: Vec<u8> = (0..TRANSFER).map(|at| (at / 7 + at / 1000) as u8).collect();
    let mut sent = Digest::default();
    sent.take(&bytes);
    stream.write_all(&bytes).await?;
    stream.shutdown().await?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).await?;
    if Digest(u64::from_be_bytes(answer)) != sent {
        return Err(io::Error::other("other bytes arrived than were sent"));
    }
    TcpInfo::of(&stream)
}

#[cfg(test)]
mod tests {
    use weft_kernel::testing::TestNs;

    use super::*;

    #[tokio::test]
    async fn a_path_is_as_wide_as_its_narrowest_hop_says_and_a_silent_hop_is_found_out() {
        // Two hosts and a router whose far link is narrower.
        let mut ns = TestNs::new();
        let router = ns.ns().clone();
        let (near, far) = (ns.extra("near"), ns.extra("far"));
        ns.join((&router, "r1", "10.1.0.1/24"), (&near, "eth0", "10.1.0.2/24"));
        ns.join((&router, "r2", "10.2.0.1/24"), (&far, "eth0", "10.2.0.2/24"));
        let sh = |ns: &Netns, line: &str| {
            let done = ns.run(|| std::process::Command::new("sh").args(["-ec", line]).status().unwrap());
            assert!(done.unwrap().success(), "{line}");
        };
        sh(&router, "sysctl -qw net.ipv4.ip_forward=1; ip link set r2 mtu 1400");
        sh(&near, "ip route add default via 10.1.0.1");
        sh(&far, "ip route add default via 10.2.0.1");
        let empty = PathReport {
            from: "near".into(),
            to: "far".into(),
            address: "10.2.0.2".parse().unwrap(),
            link_mtu: 0,
            path_mtu: 0,
            retransmits: 0,
            failed: Vec::new(),
        };
        let mut report = empty.clone();
        one(&near, &far, empty.address, TRANSFER_PATIENCE, &mut report).await.unwrap();
        assert_eq!((report.link_mtu, report.path_mtu, &report.failed), (1500, 1400, &vec![]));
        // One that does not say why it drops: nothing large comes through.
        sh(&near, "ip route flush cache");
        sh(
            &router,
            "nft add table ip t; nft add chain ip t c '{ type filter hook output priority 0; }'
            nft add rule ip t c icmp type destination-unreachable drop",
        );
        let mut report = empty.clone();
        one(&near, &far, empty.address, PATIENCE, &mut report).await.unwrap();
        assert!(report.failed.iter().any(|what| what.starts_with("UDP that must not")), "{report:?}");
        assert!(report.failed.iter().any(|what| what.starts_with("TCP")), "{report:?}");
    }
}
