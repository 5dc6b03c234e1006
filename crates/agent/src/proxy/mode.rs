//! The ways in which Services can be served.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::Serialize;
use weft_kernel::Event;
use weft_kernel::nft::{Family, Nft, NftEvent, Table};
use weft_service::iptables::{self, Iptables};
use weft_service::ipvs::{self, Ipvs, IpvsConfig, Scheduler};
use weft_service::nftables::{self, Nftables};
use weft_service::userspace::{self, Userspace};
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
    /// By virtual servers (IPVS).
    Ipvs,
    /// By this process, connection by connection.
    Userspace,
    /// Not at all: another program does.
    None,
}

impl ProxyMode {
    const ALL: [(&'static str, ProxyMode); 5] = [
        ("nftables", ProxyMode::Nftables),
        ("iptables", ProxyMode::Iptables),
        ("ipvs", ProxyMode::Ipvs),
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
    /// How virtual servers choose, in the mode `ipvs`.
    pub scheduler: Scheduler,
}

/// Removes what an agent of another mode left, two sets of rules would not agree, and kube-proxy's virtual servers.
/// Says whether all of it is gone: connections of virtual servers are waited for.
pub(super) fn remove_others(mode: ProxyMode) -> Result<bool, Error> {
    let mut nft = Nft::open()?;
    for family in [Family::Ip, Family::Ip6] {
        let ours = nft.has_chain(&Table::new(family, "filter"), iptables::CLUSTER_IPS)?;
        if mode != ProxyMode::Iptables && ours {
            Iptables::open()?.remove()?;
        }
        // The modes userspace and ipvs have this table too, and put theirs in its place.
        let table = nft.has_chain(&Table::new(family, nftables::TABLE), "prerouting")?;
        if mode == ProxyMode::Iptables && table {
            Nftables::open()?.remove()?;
        }
    }
    if mode != ProxyMode::Userspace {
        userspace::remove_routes()?;
    }
    let retired = mode == ProxyMode::Ipvs || ipvs::retire()?;
    Ok(ipvs::kube_proxy::drain()? && retired)
}

/// The way that was chosen, at work.
pub(super) enum Backend {
    Nftables(Box<Nftables>),
    Iptables(Box<Iptables>),
    Ipvs(Box<Ipvs>),
    Userspace(Box<Userspace>),
}

impl Backend {
    /// Opens it in the calling thread's network namespace; changes nothing yet.
    pub(super) fn open(config: &ProxyConfig) -> Result<Backend, Error> {
        match config.mode {
            // Where nobody is to serve this is not asked for.
            ProxyMode::Nftables | ProxyMode::None => Ok(Backend::Nftables(Box::new(Nftables::open()?))),
            ProxyMode::Iptables => Ok(Backend::Iptables(Box::new(Iptables::open()?))),
            ProxyMode::Ipvs => {
                let config = IpvsConfig { scheduler: config.scheduler, reset_removed: config.reset_removed };
                Ok(Backend::Ipvs(Box::new(Ipvs::open(config)?)))
            }
            ProxyMode::Userspace => {
                let mut userspace = Userspace::open()?;
                userspace.reset_removed(config.reset_removed);
                Ok(Backend::Userspace(Box::new(userspace)))
            }
        }
    }

    /// Makes the kernel as planned; `changed` is all that changed since this last succeeded. Says how many
    /// objects were written.
    pub(super) fn apply(&mut self, plan: &ServicePlan, changed: &Changed) -> Result<usize, Error> {
        match self {
            Backend::Nftables(backend) => backend.apply(plan, changed),
            Backend::Iptables(backend) => backend.apply(plan, changed),
            Backend::Ipvs(backend) => backend.apply(plan, changed),
            Backend::Userspace(backend) => backend.apply(plan, changed),
        }
    }

    /// The netlink port by which most of its changes of nftables are made; none where programs make them.
    pub(super) fn port(&self) -> Option<u32> {
        match self {
            Backend::Nftables(backend) => Some(backend.port()),
            Backend::Iptables(_) | Backend::Ipvs(_) | Backend::Userspace(_) => None,
        }
    }

    /// Says whether the event tells that something else changed what is ours.
    pub(super) fn notice(&mut self, event: &NftEvent) -> bool {
        match self {
            Backend::Nftables(backend) => backend.notice(event),
            Backend::Iptables(backend) => backend.notice(event),
            Backend::Ipvs(backend) => backend.notice(event),
            Backend::Userspace(backend) => backend.notice(event),
        }
    }

    /// The same of links and addresses, which only virtual servers mind.
    pub(super) fn notice_link(&mut self, event: &Event) -> bool {
        match self {
            Backend::Ipvs(backend) => backend.notice_link(event),
            Backend::Nftables(_) | Backend::Iptables(_) | Backend::Userspace(_) => false,
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
            Backend::Ipvs(backend) => backend.distrust(),
            Backend::Userspace(backend) => backend.distrust(),
        }
    }
}

#[cfg(test)]
mod tests {
    use weft_kernel::testing::TestNs;
    use weft_kernel::{Op, Route, TABLE_LOCAL};
    use weft_service::userspace::Userspace;

    use super::*;

    #[test]
    fn routes_of_the_userspace_mode_go_with_it_and_no_others() {
        let test = TestNs::new();
        let mut netlink = test.netlink();
        let other = Route {
            oif: Some(1),
            table: TABLE_LOCAL,
            protocol: 99,
            scope: 254,
            kind: 2,
            ..Route::new("192.0.2.7/32".parse().unwrap())
        };
        netlink.apply(&Op::RouteAdd(other.clone())).unwrap();
        let before = netlink.routes().unwrap();
        let key = weft_service::FrontendKey {
            place: weft_service::Place::Address("10.96.0.1".parse().unwrap()),
            protocol: weft_model::service::Protocol::Tcp,
            port: 80,
        };
        let mut plan = ServicePlan::default();
        plan.cluster_ips.insert("10.96.0.1".parse().unwrap(), 1);
        let frontend = weft_service::Frontend {
            service: weft_model::NamespacedName::new("shop", "web"),
            port_name: "http".into(),
            kind: weft_service::Kind::ClusterIp,
            policy: weft_service::Policy::Internal,
            all: weft_service::Choice::Reject,
            local: weft_service::Choice::Reject,
            affinity: None,
            sources: None,
        };
        plan.frontends.insert(key, std::sync::Arc::new(frontend));
        Userspace::open().unwrap().apply(&plan, &Changed { rest: true, ..Changed::default() }).unwrap();
        assert!(remove_others(ProxyMode::Userspace).unwrap());
        assert!(netlink.routes().unwrap().len() > before.len(), "its own stay");
        assert!(remove_others(ProxyMode::Nftables).unwrap());
        assert_eq!(netlink.routes().unwrap(), before);
    }
}
