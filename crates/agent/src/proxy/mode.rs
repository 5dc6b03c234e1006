//! The ways in which Services can be served.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::Serialize;
use weft_kernel::nft::{Family, Nft, NftEvent, Table};
use weft_service::iptables::{self, Iptables};
use weft_service::nftables::{self, Nftables};
use weft_service::userspace::Userspace;
use weft_service::{Changed, Error, ServicePlan};

/// How Services are served on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyMode {
    /// By maps of nftables.
    #[default]
    Nftables,
    /// By kube-proxy's chains in iptables.
    Iptables,
    /// By this process, connection by connection.
    Userspace,
    /// Not at all: another program does.
    None,
}

impl ProxyMode {
    const ALL: [(&'static str, ProxyMode); 4] = [
        ("nftables", ProxyMode::Nftables),
        ("iptables", ProxyMode::Iptables),
        ("userspace", ProxyMode::Userspace),
        ("none", ProxyMode::None),
    ];
}

impl FromStr for ProxyMode {
    type Err = String;

    fn from_str(text: &str) -> Result<ProxyMode, String> {
        let found = ProxyMode::ALL.iter().find(|(name, _)| *name == text);
        let names = ProxyMode::ALL.map(|(name, _)| name).join(", ");
        found.map(|(_, mode)| *mode).ok_or_else(|| format!("{text:?} is no proxy mode: use one of {names}"))
    }
}

impl fmt::Display for ProxyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = ProxyMode::ALL.iter().find(|(_, mode)| mode == self);
        f.write_str(found.map(|(name, _)| *name).unwrap_or_default())
    }
}

/// How a node's agent serves Services.
#[derive(Clone, Debug, Default)]
pub struct ProxyConfig {
    /// In which way.
    pub mode: ProxyMode,
    /// Where node ports are served; empty: at the node's InternalIPs.
    pub node_port_addresses: Vec<IpNet>,
    /// Where externalIPs may be; empty: anywhere.
    pub external_ips: Vec<IpNet>,
    /// Where the agent tells whether Services are served (kube-proxy's `/healthz`).
    pub healthz: Option<SocketAddr>,
    /// Whether clients of a removed endpoint are reset.
    pub reset_removed: bool,
}

/// Removes what an agent of another mode left: two sets of rules would not agree.
pub(super) fn remove_others(mode: ProxyMode) -> Result<(), Error> {
    let mut nft = Nft::open()?;
    for family in [Family::Ip, Family::Ip6] {
        let ours = nft.has_chain(&Table::new(family, "filter"), iptables::CLUSTER_IPS)?;
        if mode != ProxyMode::Iptables && ours {
            Iptables::open()?.remove()?;
        }
        // The userspace mode has this table too.
        let table = nft.has_chain(&Table::new(family, nftables::TABLE), "prerouting")?;
        if mode == ProxyMode::Iptables && table {
            Nftables::open()?.remove()?;
        }
    }
    Ok(())
}

/// The way that was chosen, at work.
pub(super) enum Backend {
    Nftables(Box<Nftables>),
    Iptables(Box<Iptables>),
    Userspace(Box<Userspace>),
}

impl Backend {
    /// Opens it in the calling thread's network namespace; changes nothing yet.
    pub(super) fn open(mode: ProxyMode) -> Result<Backend, Error> {
        match mode {
            // Where nobody is to serve this is not asked for.
            ProxyMode::Nftables | ProxyMode::None => Ok(Backend::Nftables(Box::new(Nftables::open()?))),
            ProxyMode::Iptables => Ok(Backend::Iptables(Box::new(Iptables::open()?))),
            ProxyMode::Userspace => Ok(Backend::Userspace(Box::new(Userspace::open()?))),
        }
    }

    /// Makes the kernel as planned; `changed` is all that changed since this last succeeded. Says how many
    /// objects were written.
    pub(super) fn apply(&mut self, plan: &ServicePlan, changed: &Changed) -> Result<usize, Error> {
        match self {
            Backend::Nftables(backend) => backend.apply(plan, changed),
            Backend::Iptables(backend) => backend.apply(plan, changed),
            Backend::Userspace(backend) => backend.apply(plan, changed),
        }
    }

    /// Says whether the event tells that something else changed what is ours.
    pub(super) fn notice(&mut self, event: &NftEvent) -> bool {
        match self {
            Backend::Nftables(backend) => backend.notice(event),
            Backend::Iptables(backend) => backend.notice(event),
            Backend::Userspace(backend) => backend.notice(event),
        }
    }

    /// Whether the kernel's flows lead to endpoints, and not to this process.
    pub(super) fn leads_to_endpoints(&self) -> bool {
        !matches!(self, Backend::Userspace(_))
    }

    /// Has the next apply look at what there is.
    pub(super) fn distrust(&mut self) {
        match self {
            Backend::Nftables(backend) => backend.distrust(),
            Backend::Iptables(backend) => backend.distrust(),
            Backend::Userspace(backend) => backend.distrust(),
        }
    }
}
