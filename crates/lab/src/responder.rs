//! What stands in for a pod's containers: it answers on every declared port.
//!
//! TCP: an HTTP request gets JSON that says who answers and what arrived; the line
//! `weft-whoami` gets `NAMESPACE/POD NODE CLIENT`; anything else comes back. UDP: the same
//! without HTTP. The sockets are opened in the pod's namespace and served by the lab's keeper.

mod http;
mod sniff;
mod tcp;
mod udp;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;

use tokio::task::JoinSet;
use weft_kernel::Netns;

use crate::runtime::Protocol;

/// The question for who answers, over TCP and UDP; a newline follows.
pub const WHOAMI: &[u8] = b"weft-whoami\n";

/// Who answers.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) pod: String,
    pub(crate) namespace: String,
    pub(crate) node: String,
}

impl Identity {
    fn whoami(&self, client: SocketAddr) -> String {
        format!("{}/{} {} {}\n", self.namespace, self.pod, self.node, plain(client))
    }
}

/// The sockets of one pod, served until this is dropped.
pub(crate) struct Responder {
    tasks: JoinSet<()>,
}

/// Ports that are not served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unserved {
    /// Because they cannot be: the pod is not ready.
    pub(crate) failed: Vec<String>,
    /// Because nothing in the lab speaks their protocol.
    pub(crate) ignored: Vec<String>,
}

impl Responder {
    /// Opens the ports in `netns`. UDP is bound to `local` addresses where given, so that
    /// answers leave from the address that was asked; else to all.
    pub(crate) fn start(
        netns: &Netns,
        identity: Identity,
        ports: &[(u16, Protocol)],
        local: &[IpAddr],
    ) -> (Responder, Unserved) {
        let (mut tasks, mut unserved) = (JoinSet::new(), Unserved::default());
        let identity = Arc::new(identity);
        let guard = match netns.guard() {
            Ok(guard) => guard,
            Err(error) => {
                unserved.failed.push(error.to_string());
                return (Responder { tasks }, unserved);
            }
        };
        for &(port, protocol) in ports {
            let opened = match protocol {
                Protocol::Tcp => serve_tcp(&mut tasks, &identity, port),
                Protocol::Udp => serve_udp(&mut tasks, &identity, port, local),
                Protocol::Sctp => {
                    unserved
                        .ignored
                        .push(format!("port {port}/SCTP is not answered: the lab speaks TCP and UDP"));
                    Ok(())
                }
            };
            if let Err(error) = opened {
                unserved.failed.push(refusal(&identity, port, protocol, &error));
            }
        }
        drop(guard);
        (Responder { tasks }, unserved)
    }
}

impl Responder {
    /// Ends it; its sockets are closed when this returns.
    pub(crate) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

fn refusal(identity: &Identity, port: u16, protocol: Protocol, error: &io::Error) -> String {
    let protocol = if protocol == Protocol::Udp { "UDP" } else { "TCP" };
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "port {port}/{protocol} is taken on {}: another pod of the host's network has it",
                identity.node
            )
        }
        _ => format!("port {port}/{protocol} cannot be opened: {error}"),
    }
}

fn serve_tcp(tasks: &mut JoinSet<()>, identity: &Arc<Identity>, port: u16) -> io::Result<()> {
    let socket = on_all(|address| TcpListener::bind((address, port)))?;
    socket.set_nonblocking(true)?;
    tasks.spawn(tcp::serve(tokio::net::TcpListener::from_std(socket)?, identity.clone()));
    Ok(())
}

fn serve_udp(
    tasks: &mut JoinSet<()>,
    identity: &Arc<Identity>,
    port: u16,
    local: &[IpAddr],
) -> io::Result<()> {
    let mut sockets = Vec::new();
    for address in local {
        sockets.push(UdpSocket::bind((*address, port))?);
    }
    if local.is_empty() {
        sockets.push(on_all(|address| UdpSocket::bind((address, port)))?);
    }
    for socket in sockets {
        socket.set_nonblocking(true)?;
        tasks.spawn(udp::serve(tokio::net::UdpSocket::from_std(socket)?, identity.clone(), port));
    }
    Ok(())
}

/// Binds to all addresses of both families, or of IPv4 where the kernel has no IPv6.
fn on_all<T>(bind: impl Fn(IpAddr) -> io::Result<T>) -> io::Result<T> {
    match bind(Ipv6Addr::UNSPECIFIED.into()) {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => bind(Ipv4Addr::UNSPECIFIED.into()),
        bound => bound,
    }
}

/// An IPv4 client of an IPv6 socket, as IPv4.
fn plain(client: SocketAddr) -> SocketAddr {
    SocketAddr::new(client.ip().to_canonical(), client.port())
}

#[cfg(test)]
mod tests;
