//! `weft route-reflector`: a speaker outside of any node, which tells its clients' routes on.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use ipnet::IpNet;
use tokio::signal::unix::{SignalKind, signal};
use weft_bgp::session::PeerAs;
use weft_bgp::speaker::control::{self, Control};
use weft_bgp::speaker::{End, Neighbour, PORT, Password, Remote, Settings, Speaker, Ttl};

use crate::args::{cidr, duration};
use crate::daemons::{log, runtime};
use crate::exit::{self, Usage};

/// No line of the world is longer.
const HOPS: u8 = 64;

#[derive(Debug, Args)]
#[command(
    after_help = "All are of one AS. Clients hear of all routes, other peers of the clients' alone (RFC 4456); peers are what other reflectors are to this one. One that is told to end by a signal, and one that is killed, is waited for by its clients for as long as --restart-time says, and loses no route.\n\nExamples:\n  weft route-reflector --as 64512 --id 10.0.0.9 --clients 10.0.0.0/16\n  weft route-reflector --as 64512 --id 10.0.0.9 --cluster-id 1.1.1.1 --client 10.0.0.1 --client 10.0.0.2 --peer 10.0.0.8\n  weft bgp peers --socket /run/weft/route-reflector/bgp.sock"
)]
pub(crate) struct ReflectorArgs {
    /// The AS
    #[arg(long = "as", value_name = "NUMBER")]
    asn: u32,
    /// Its BGP identifier, which no other speaker may have: usually its address
    #[arg(long)]
    id: Ipv4Addr,
    /// The cluster that it reflects in, where several reflectors have the same clients [default: its identifier]
    #[arg(long, value_name = "ID")]
    cluster_id: Option<Ipv4Addr>,
    /// Where it listens; again for another address
    #[arg(long, value_name = "ADDRESS", default_values = ["0.0.0.0:179", "[::]:179"])]
    listen: Vec<SocketAddr>,
    /// A client that it dials; again for another
    #[arg(long, value_name = "IP")]
    client: Vec<IpAddr>,
    /// Whoever dials from this network is a client; again for another
    #[arg(long, value_name = "CIDR", value_parser = cidr)]
    clients: Vec<IpNet>,
    /// So many clients of one network at most
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    clients_limit: usize,
    /// A peer that is no client; again for another
    #[arg(long, value_name = "IP")]
    peer: Vec<IpAddr>,
    /// The file with the password that all segments are signed with (RFC 2385)
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// How long clients wait for it when it is gone
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "120s")]
    restart_time: Duration,
    /// The folder of its socket
    #[arg(long, default_value = "/run/weft/route-reflector")]
    state_dir: PathBuf,
}

pub(crate) fn run(options: &ReflectorArgs) -> anyhow::Result<u8> {
    log();
    let folder = &options.state_dir;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let settings = settings(options)?;
    // Clients that had it before have its routes, and keep them until it says that it has told all.
    let mark = folder.join("started");
    let restarted = mark.exists().then_some(options.restart_time / 4);
    std::fs::write(&mark, "").with_context(|| format!("cannot write {}", mark.display()))?;
    let settings = Settings { restarted, ..settings };
    let (asn, id) = (settings.local_as, settings.id);
    let speaker = Speaker::start(settings)?;
    let socket = folder.join(control::SOCKET);
    let control = Control::serve(&socket, speaker.asker())
        .with_context(|| format!("cannot listen at {}", socket.display()))?;
    tracing::info!(asn, %id, socket = %socket.display(), "weft route-reflector starts");
    runtime()?.block_on(async {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        anyhow::Ok(())
    })?;
    drop(control);
    tracing::info!("weft route-reflector ends; its clients wait for it");
    speaker.stop(End::Restart);
    Ok(exit::DONE)
}

fn settings(options: &ReflectorArgs) -> anyhow::Result<Settings> {
    if options.asn == 0 || options.id.is_unspecified() {
        bail!(Usage("neither AS 0 nor the identifier 0.0.0.0 can be anybody's".to_owned()));
    }
    if options.client.is_empty() && options.clients.is_empty() {
        bail!(Usage("a reflector needs clients: give --client or --clients".to_owned()));
    }
    let password = options.password_file.as_deref().map(password).transpose()?;
    let at = |ip: &IpAddr| Remote::Address { ip: *ip, port: PORT };
    let single = options.client.iter().map(|ip| (ip.to_string(), at(ip), true));
    let networks = options
        .clients
        .iter()
        .map(|net| (net.to_string(), Remote::Prefix { net: *net, limit: options.clients_limit }, true));
    let peers = options.peer.iter().map(|ip| (ip.to_string(), at(ip), false));
    let mut neighbours: BTreeMap<Arc<str>, Neighbour> = BTreeMap::new();
    for (name, remote, reflector_client) in single.chain(networks).chain(peers) {
        let neighbour = Neighbour {
            reflector_client,
            password: password.clone(),
            ttl: Ttl::Hops(HOPS),
            graceful_restart: Some(options.restart_time),
            ..Neighbour::new(remote, PeerAs::Internal)
        };
        if neighbours.insert(name.as_str().into(), neighbour).is_some() {
            bail!(Usage(format!("{name} is given twice")));
        }
    }
    Ok(Settings {
        listen: options.listen.clone(),
        cluster_id: options.cluster_id,
        neighbours,
        ..Settings::new(options.asn, options.id)
    })
}

fn password(path: &Path) -> anyhow::Result<Password> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let password = Password::new(text.trim_end_matches(['\n', '\r']));
    password.with_context(|| format!("{}: a password has 1 to 80 bytes", path.display()))
}
