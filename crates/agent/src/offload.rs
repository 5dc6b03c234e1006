//! Whether the underlay's driver spoils checksums inside of VXLAN, and what to do then.
//!
//! Some drivers say that they complete the checksum of a packet inside of a tunnel and do not: TCP and
//! UDP of pods then vanish, while ping works. A connection to a port of a peer's VTEP where nobody
//! listens is refused at once if its checksum was right. Where nothing comes back, the device is told
//! to compute checksums itself; where that helps, it stays so, and else it was something else.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use weft_fabric::{FabricPlan, Via};
use weft_kernel::ethtool;
use weft_model::mark;

/// The discard service, which nobody has; an answer of any kind will do.
const PORT: u16 = 9;
/// How long an answer may take. A SYN is sent again after one second.
const PATIENCE: Duration = Duration::from_millis(2500);
/// After a trial that no peer answered.
const AGAIN: Duration = Duration::from_secs(60);
/// How many peers are tried: some may be down.
const PEERS: usize = 3;

/// What is known of the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Verdict {
    #[default]
    Untried,
    Trying,
    /// The device with this index was tried; whether the driver spoils checksums.
    Tried {
        device: u32,
        spoils: bool,
    },
    /// No peer answered either way: they are down, or a firewall drops what nobody listens for.
    Unclear {
        since: Instant,
    },
}

/// Tries each new VXLAN device once, beside the agent's loop.
#[derive(Debug, Default)]
pub(crate) struct Offload(Arc<Mutex<Verdict>>);

impl Offload {
    /// Begins a trial if the device with index `device` was not tried yet and the plan has a peer
    /// behind it.
    pub(crate) fn watch(&self, device: Option<u32>, plan: &FabricPlan) {
        let Some(device) = device else { return };
        let peers: Vec<IpAddr> = plan.peers.values().filter_map(vtep).take(PEERS).collect();
        let verdict = self.verdict();
        let settled = match verdict {
            Verdict::Untried => false,
            Verdict::Trying => true,
            Verdict::Tried { device: tried, .. } => tried == device,
            Verdict::Unclear { since } => since.elapsed() < AGAIN,
        };
        if settled || peers.is_empty() {
            return;
        }
        self.set(Verdict::Trying);
        let shared = Offload(self.0.clone());
        // A thread of the node's network namespace, as the one that calls. It ends by itself.
        let trial = std::thread::Builder::new().name("weft-offload".into());
        if let Err(error) = trial.spawn(move || shared.set(attempt(device, &peers))) {
            tracing::debug!("start a thread to try checksums: {error}");
            self.set(Verdict::Unclear { since: Instant::now() });
        }
    }

    /// What an operator should know.
    pub(crate) fn told(&self) -> Option<String> {
        matches!(self.verdict(), Verdict::Tried { spoils: true, .. }).then(|| {
            format!(
                "the underlay's driver spoils checksums inside of VXLAN: {0} computes them itself \
                 (ethtool -K {0} tx off), which costs throughput until the driver is mended",
                mark::VXLAN
            )
        })
    }

    fn verdict(&self) -> Verdict {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, verdict: Verdict) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = verdict;
    }
}

/// The address of a peer's VTEP.
fn vtep(peer: &weft_fabric::PeerPlan) -> Option<IpAddr> {
    let by_vxlan = |path: &&weft_fabric::Path| matches!(path.via, Via::Vxlan { .. });
    // A lent address is a pod's.
    let whole = |cidr: &ipnet::IpNet| cidr.prefix_len() < cidr.max_prefix_len();
    peer.paths.iter().filter(by_vxlan).map(|path| path.cidr).find(whole).map(|cidr| cidr.network())
}

fn attempt(device: u32, peers: &[IpAddr]) -> Verdict {
    let tried = |spoils| Verdict::Tried { device, spoils };
    match ethtool::tx_checksum(mark::VXLAN) {
        Ok(true) => {}
        // Somebody turned it off before: there is nothing to find out.
        Ok(false) => return tried(false),
        Err(error) => {
            tracing::debug!("{error}");
            return tried(false);
        }
    }
    if peers.iter().any(|peer| answers(*peer)) {
        return tried(false);
    }
    if let Err(error) = ethtool::set_tx_checksum(mark::VXLAN, false) {
        tracing::warn!("{error}");
        return tried(false);
    }
    if peers.iter().any(|peer| answers(*peer)) {
        let shared = Offload(Arc::new(Mutex::new(tried(true))));
        tracing::warn!("{}", shared.told().unwrap_or_default());
        return tried(true);
    }
    if let Err(error) = ethtool::set_tx_checksum(mark::VXLAN, true) {
        tracing::warn!("{error}");
    }
    Verdict::Unclear { since: Instant::now() }
}

fn answers(peer: IpAddr) -> bool {
    match TcpStream::connect_timeout(&SocketAddr::new(peer, PORT), PATIENCE) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::ConnectionRefused,
    }
}
