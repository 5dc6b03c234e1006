use std::io;
use std::sync::Arc;

use tokio::net::UdpSocket;

use super::{Identity, WHOAMI};

/// The longest datagram.
const LONGEST: usize = 65_535;

/// Serves the port for good.
pub(super) async fn serve(socket: UdpSocket, identity: Arc<Identity>, port: u16) {
    while socket.readable().await.is_ok() {
        // Held only while there is something to read: a lab has thousands of these sockets.
        let mut buffer = vec![0; LONGEST];
        loop {
            let (length, client) = match socket.try_recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // What an earlier answer met (port unreachable) is told here.
                Err(_) => continue,
            };
            // Two responders that answer each other would never end.
            if client.port() == port {
                continue;
            }
            let datagram = &buffer[..length];
            // An answer that does not fit the socket's buffer is lost, as datagrams may be.
            let _ = match datagram == WHOAMI {
                true => socket.try_send_to(identity.whoami(client).as_bytes(), client),
                false => socket.try_send_to(datagram, client),
            };
        }
    }
}
