//! Connections: bounded in number, time and silence.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::paced::Answers;
use super::tls::Tls;
use super::unread::Unread;
use crate::auth::Certificate;
use crate::http::{App, Client, Counts, answer};

/// Connections at once on one address; more wait in the kernel's queue. Enough for every node of a cluster of
/// 5,000, each with a few clients.
const CONNECTIONS: usize = 16 * 1024;
/// Time for a TLS handshake, and for the answer to a ping.
const PATIENCE: Duration = Duration::from_secs(10);
/// Streams that a client has reset before they were answered, at once; more, and it is cut off.
const RESETS: usize = 20;
/// A silent HTTP/2 client is asked whether it is there, and dropped when it does not answer.
const PING: Duration = Duration::from_secs(30);

/// Lets this process have as many open files as it may: the usual 1,024 would be too few connections.
pub(super) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays at {:?}", limit.current);
    }
}

/// Accepts until the server ends, then waits for the open connections.
pub(super) async fn accept(listener: TcpListener, tls: Arc<Tls>, app: Arc<App>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let addresses = Counts::default();
    let mut connections = tokio::task::JoinSet::new();
    let mut ending = app.ending.clone();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = ending.wait_for(|ending| *ending) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(own) = addresses.enter(peer.ip(), app.in_flight.limits.connections_per_address)
                else {
                    tracing::debug!(%peer, "refused: the address has too many connections");
                    continue;
                };
                let (tls, app) = (tls.clone(), app.clone());
                connections.spawn(async move {
                    if let Err(error) = connection(stream, peer.ip(), tls, app).await {
                        tracing::debug!(%peer, %error, "connection ended");
                    }
                    drop((place, own));
                });
            }
            // Too many open files, for one; the listener itself stays good.
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(
    stream: TcpStream,
    address: IpAddr,
    tls: Arc<Tls>,
    app: Arc<App>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let stream = Unread::new(stream, app.in_flight.limits.unread_time);
    let stream = tokio::time::timeout(PATIENCE, tls.acceptor().accept(stream)).await??;
    let mut ending = app.ending.clone();
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let client = Arc::new(Client { address, certificate: shown.and_then(|der| Certificate::read(der)) });
    let (answers, limits) = (Answers::default(), app.in_flight.limits.clone());
    let followed = answers.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (app, client, followed) = (app.clone(), client.clone(), followed.clone());
        async move {
            let version = request.version();
            let reply = answer(app, client, request).await;
            Ok::<_, Infallible>(if version == Version::HTTP_2 { followed.follow(reply) } else { reply })
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.idle_time).max_buf_size(64 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PATIENCE)
        .max_concurrent_streams(256)
        .max_pending_accept_reset_streams(RESETS)
        .max_header_list_size(64 * 1024);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    loop {
        tokio::select! {
            done = connection.as_mut() => return done,
            _ = ending.wait_for(|ending| *ending) => break,
            () = tokio::time::sleep(limits.unread_time / 4) => {}
        }
        if answers.are_left(limits.unread_time) {
            return Err("the client leaves an answer".into());
        }
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}
