use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::http::{LONGEST_HEAD, answer, head_end, too_long};
use super::sniff::{Speech, sniff};
use super::{Identity, WHOAMI};

/// Connections at a time on one port; more wait in the kernel's queue.
const CONNECTIONS: usize = 256;
/// Without a byte for this long a connection is closed.
const SILENCE: Duration = Duration::from_secs(300);
/// A connection is closed at this age.
const LONGEST: Duration = Duration::from_secs(3600);
/// Who sent the first letters of something and then waits gets them back.
const HESITATION: Duration = Duration::from_millis(300);
/// How long and how much is read from a client that was answered, so that it sees the answer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

/// Serves the port for good.
pub(super) async fn serve(listener: TcpListener, identity: Arc<Identity>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, client)) => {
                    let identity = identity.clone();
                    connections.spawn(async move {
                        // A client that goes away is no fault of ours.
                        let _ = timeout(LONGEST, converse(stream, client, &identity)).await;
                    });
                }
                // Out of descriptors, or a client that left the queue.
                Err(_) => sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn converse(mut stream: TcpStream, client: SocketAddr, identity: &Identity) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = Vec::with_capacity(1024);
    let speech = listen(&mut stream, &mut bytes).await?;
    match speech {
        Speech::Http => {
            let response = request(&mut stream, &mut bytes, client, identity).await?;
            stream.write_all(&response).await?;
            part(stream).await
        }
        Speech::Whoami => {
            stream.write_all(identity.whoami(client).as_bytes()).await?;
            bytes.drain(..WHOAMI.len());
            echo(stream, bytes).await
        }
        Speech::Echo | Speech::Unclear => echo(stream, bytes).await,
    }
}

/// Reads until it is clear what the client speaks.
async fn listen(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<Speech> {
    loop {
        let patience = if bytes.is_empty() { SILENCE } else { HESITATION };
        match timeout(patience, stream.read_buf(bytes)).await {
            Err(_) | Ok(Ok(0)) => return Ok(Speech::Echo),
            Ok(read) => read?,
        };
        let speech = sniff(bytes);
        if speech != Speech::Unclear {
            return Ok(speech);
        }
    }
}

async fn request(
    stream: &mut TcpStream,
    bytes: &mut Vec<u8>,
    client: SocketAddr,
    identity: &Identity,
) -> io::Result<Vec<u8>> {
    loop {
        if let Some(end) = head_end(bytes) {
            return Ok(answer(identity, client, &bytes[..end]));
        }
        if bytes.len() > LONGEST_HEAD {
            return Ok(too_long());
        }
        if timeout(SILENCE, stream.read_buf(bytes)).await?? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Closes in order: data that is not read when a socket closes would reset the connection.
async fn part(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut rest = [0; 4096];
    let drain = async {
        let mut read = 0;
        while read < LINGER_BYTES {
            match stream.read(&mut rest).await {
                Ok(0) | Err(_) => return,
                Ok(more) => read += more,
            }
        }
    };
    let _ = timeout(LINGER, drain).await;
    Ok(())
}

async fn echo(mut stream: TcpStream, mut bytes: Vec<u8>) -> io::Result<()> {
    loop {
        stream.write_all(&bytes).await?;
        bytes.clear();
        bytes.reserve(16 * 1024);
        if timeout(SILENCE, stream.read_buf(&mut bytes)).await?? == 0 {
            return stream.shutdown().await;
        }
    }
}
