//! The DHCP daemon: it holds the leases of the node's pods.
//!
//! One thread polls everything: callers on the socket, and the sockets of those clients that wait
//! for a server. What a caller is told is on disk before.

mod attachment;
mod clock;
mod connection;
mod flags;
mod place;
pub(crate) mod saved;
mod server;
mod v4;
mod v6;

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitCode;
use std::{fs, io};

use rustix::process::{Resource, Rlimit};
use weft_kernel::descriptors;
use weft_kernel::signal::Termination;

use crate::ipam::dhcp::daemon::flags::Flags;
use crate::ipam::dhcp::daemon::saved::Folder;
use crate::ipam::dhcp::daemon::server::Server;

/// Runs the daemon until SIGTERM or SIGINT; `arguments` are those after `daemon`. The leases stay:
/// the next daemon goes on with them.
pub fn run(arguments: impl Iterator<Item = String>) -> ExitCode {
    match Flags::parse(arguments).and_then(serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(flags: Flags) -> Result<(), String> {
    let termination = Termination::take_over().map_err(|error| error.to_string())?;
    raise_limit();
    if let Some(path) = &flags.pidfile {
        fs::write(path, std::process::id().to_string())
            .map_err(|error| format!("pidfile {}: {error}", path.display()))?;
    }
    let data = flags.data();
    let folder = Folder::open(&data).map_err(|error| format!("datadir {}: {error}", data.display()))?;
    let socket = flags.socket();
    let (listener, own) =
        listener(&socket).map_err(|error| format!("socket {}: {error}", socket.display()))?;
    let pidfile = flags.pidfile.clone();
    let served = Server::new(flags, folder, listener).and_then(|mut server| server.run(&termination));
    if own {
        fs::remove_file(&socket).ok();
    }
    if let Some(path) = pidfile {
        fs::remove_file(path).ok();
    }
    served.map_err(|error| format!("DHCP daemon: {error}"))
}

/// The socket that systemd passes, or one of our own; the latter is removed at the end.
fn listener(path: &Path) -> io::Result<(UnixListener, bool)> {
    let mut passed = descriptors::passed();
    let (listener, own) = match (passed.pop(), passed.is_empty()) {
        (Some(fd), true) => (UnixListener::from(fd), false),
        (Some(_), false) => return Err(io::Error::other("systemd passes more than one: pass one")),
        (None, _) => (listen(path)?, true),
    };
    listener.set_nonblocking(true)?;
    Ok((listener, own))
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if UnixStream::connect(path).is_ok() {
                return Err(io::Error::other("another DHCP daemon listens there"));
            }
            // One that was killed left it.
            fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        other => other,
    }
}

/// Many exchanges at once need many sockets.
fn raise_limit() {
    let Rlimit { maximum, .. } = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).ok();
}
