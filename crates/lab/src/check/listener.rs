use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long a connection may take to ask.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// What is asked; the lab's responder answers it on every port as these listeners do.
pub(super) const WHOAMI: &[u8] = b"weft-whoami\n";

/// Listens at `at` (port 0: a free one) for TCP and answers who it is; the calling thread is in the
/// target's namespace.
pub(super) fn tcp(tasks: &mut JoinSet<()>, at: SocketAddr, name: String) -> io::Result<u16> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.bind(at)?;
    let listener = socket.listen(BACKLOG)?;
    let port = listener.local_addr()?.port();
    tasks.spawn(accept(listener, name));
    Ok(port)
}

/// The same for UDP. It is bound to the address, so that the answer comes from there.
pub(super) fn udp(tasks: &mut JoinSet<()>, at: SocketAddr, name: String) -> io::Result<u16> {
    let socket = std::net::UdpSocket::bind(at)?;
    socket.set_nonblocking(true)?;
    let socket = UdpSocket::from_std(socket)?;
    let port = socket.local_addr()?.port();
    tasks.spawn(answer(socket, name));
    Ok(port)
}

async fn accept(listener: TcpListener, name: String) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => { connections.spawn(serve(stream, format!("{name} {peer}\n"))); }
                // Out of descriptors for a moment: what is open will close.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(mut stream: TcpStream, answer: String) {
    let mut asked = [0; 64];
    let exchange = async {
        if stream.read(&mut asked).await? > 0 {
            stream.write_all(answer.as_bytes()).await?;
        }
        stream.shutdown().await
    };
    // Who asked and left needs no answer.
    let _ = timeout(PATIENCE, exchange).await;
}

async fn answer(socket: UdpSocket, name: String) {
    let mut asked = [0; 64];
    loop {
        if let Ok((_, peer)) = socket.recv_from(&mut asked).await {
            let _ = socket.send_to(format!("{name} {peer}\n").as_bytes(), peer).await;
        }
    }
}
