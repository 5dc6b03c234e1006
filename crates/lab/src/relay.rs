//! The way from the lab's namespaces to an API server outside: two halves joined by a socket in the lab's folder.
//!
//! ```text
//! agents ─▶ 10.168.0.1:6443 in the keeper ─▶ relay.sock ─▶ relay process ─▶ the server, as the machine reaches it
//! ```
//!
//! The relay process stays in the machine's own network, where it only connects out. It ends with the lab.

use std::io::PipeWriter;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Context;
use rustix::io::{FdFlags, fcntl_setfd};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, copy_bidirectional};
use tokio::net::unix::pipe::Receiver;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::API_PORT;
use crate::daemon;
use crate::kubeconfig::Given;
use crate::liveness::ProcessId;
use crate::state::LabState;

fn socket(state: &LabState) -> PathBuf {
    state.dir().join("relay.sock")
}

/// What keeps the relay process running: it and its copies in the lab's processes.
pub(crate) struct Hold(#[expect(dead_code, reason = "held, not read")] PipeWriter);

/// Starts the relay process, if the lab is to use another API server. To be called in the machine's namespaces.
pub(crate) fn start(state: &LabState) -> anyhow::Result<Option<Hold>> {
    let mut info = state.info()?.context("the lab was removed while it was made")?;
    if info.config.kubeconfig.is_none() {
        return Ok(None);
    }
    let (until, hold) = std::io::pipe().context("cannot make a pipe")?;
    let mut command = daemon::in_role(state, "relay")?;
    daemon::quiet(&mut command, &state.log_dir().join("relay.log"))?;
    let child = command.stdin(Stdio::from(until)).spawn().context("cannot start the relay")?;
    info.relay = Some(ProcessId::of(i32::try_from(child.id())?)?);
    state.write_info(&info)?;
    // Every process of the lab inherits it: when the last one ends, the relay reads the end.
    fcntl_setfd(&hold, FdFlags::empty())?;
    Ok(Some(Hold(hold)))
}

/// The relay process: connects to the server for each connection from inside, until the lab has ended.
pub(crate) fn main(state: &LabState) -> anyhow::Result<()> {
    let info = state.info()?.context("the lab is gone")?;
    let given = info.config.kubeconfig.context("this lab has its own API server")?;
    let server = Given::read(&given)?.server()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = UnixListener::bind(socket(state)).context("cannot make the relay's socket")?;
        let serve = async {
            loop {
                let Ok((inside, _)) = listener.accept().await else { continue };
                let server = server.clone();
                tokio::spawn(async move {
                    join(inside, TcpStream::connect(server).await, "the API server").await
                });
            }
        };
        let held = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
        let mut held = Receiver::from_owned_fd(held).context("the relay has no pipe from the lab")?;
        // Nothing is ever written: the end is all there is to read.
        tokio::select! { () = serve => {}, _ = held.read_u8() => {} }
        Ok(())
    })
}

/// The half in the lab: answers on the address that the lab's own API server would have.
pub(crate) async fn inside(state: &LabState, address: IpAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind((address, API_PORT)).await.context("cannot listen on the underlay")?;
    let path = socket(state);
    tokio::spawn(async move {
        loop {
            let Ok((client, _)) = listener.accept().await else { continue };
            let path = path.clone();
            tokio::spawn(async move { join(client, UnixStream::connect(path).await, "the relay").await });
        }
    });
    Ok(())
}

/// Carries bytes both ways until both are done.
async fn join<A, B>(mut near: A, far: std::io::Result<B>, what: &str)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let outcome = match far {
        Ok(mut far) => copy_bidirectional(&mut near, &mut far).await.map(drop),
        Err(error) => Err(error),
    };
    if let Err(error) = outcome {
        tracing::debug!("a connection to {what} ended: {error}");
    }
}
