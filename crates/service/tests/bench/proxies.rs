//! What translates on the node under test.

use std::path::PathBuf;
use std::time::Duration;

use weft_judge::{KubeProxy, Kubernetes, ProxyMode};
use weft_kernel::testing::eventually;
use weft_kernel::xtables::Variant;
use weft_model::service::Protocol;
use weft_service::iptables::Iptables;
use weft_service::ipvs::{Ipvs, IpvsConfig};
use weft_service::nftables::Nftables;
use weft_service::userspace::Userspace;
use weft_service::{Planner, ServiceConfig};

use crate::net::From;
use crate::rows::{Expected, Row};
use crate::scene::{self, By, NODE, PODS};

/// Which proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Proxy {
    /// Weft's iptables backend, with the older variant of iptables or with nf_tables'.
    Iptables { legacy: bool },
    /// Weft's nftables backend.
    Nftables,
    /// Weft's proxy in user space.
    Userspace,
    /// Weft's IPVS backend.
    Ipvs,
    /// The real kube-proxy.
    Kube(ProxyMode),
}

/// One that runs, until it is dropped.
#[derive(Debug)]
pub(crate) enum Running {
    Iptables(#[expect(dead_code, reason = "held while it runs")] Box<Iptables>),
    Nftables(#[expect(dead_code, reason = "held while it runs")] Box<Nftables>),
    Userspace(#[expect(dead_code, reason = "held while it runs")] Box<Userspace>),
    Ipvs(#[expect(dead_code, reason = "held while it runs")] Box<Ipvs>),
    Kube(#[expect(dead_code, reason = "held while it runs")] Box<KubeProxy>),
}

impl Proxy {
    /// What becomes of a row where this proxy is known to differ.
    pub(crate) fn differs_in(self, row: &Row) -> Option<Expected> {
        match (self, row.expected()) {
            // Its chain that refuses those is not asked about what the node itself sends.
            (Proxy::Kube(ProxyMode::Iptables), _) => {
                let leads_in = matches!(row.by, By::External | By::LoadBalancer);
                let unasked = row.spec().endpoints.is_empty() && leads_in && row.from == From::Node;
                unasked.then_some(Expected::Silent)
            }
            // A process cannot hand on an association.
            (Proxy::Userspace, _) if row.protocol == Protocol::Sctp => Some(Expected::Refused),
            // A connection of its own leads to the endpoint, and one from the client is taken before it is known
            // where to.
            (Proxy::Userspace, Expected::Answer { by, .. }) => {
                Some(Expected::Answer { by, keeps_source: false })
            }
            (Proxy::Userspace, Expected::Silent)
                if row.protocol == Protocol::Tcp && row.by != By::ClusterIp =>
            {
                Some(Expected::Reset)
            }
            _ => None,
        }
    }

    /// Starts it with all Services in the calling thread's namespace, and waits until they are written.
    pub(crate) fn start(self) -> Running {
        let (cluster, changes) = scene::cluster();
        let config = ServiceConfig {
            node: NODE.into(),
            cluster_cidrs: PODS.iter().map(|net| net.parse().unwrap()).collect(),
            ..ServiceConfig::default()
        };
        let mut planner = Planner::new(config);
        let changed = planner.update(&cluster, &changes);
        assert!(planner.plan().refused.is_empty(), "{:?}", planner.plan().refused);
        match self {
            Proxy::Iptables { legacy } => {
                let mut iptables = Iptables::with(Variant { legacy, ..Variant::find() });
                iptables.apply(planner.plan(), &changed).unwrap();
                Running::Iptables(Box::new(iptables))
            }
            Proxy::Nftables => {
                let mut nftables = Nftables::open().unwrap();
                nftables.apply(planner.plan(), &changed).unwrap();
                Running::Nftables(Box::new(nftables))
            }
            Proxy::Userspace => {
                let mut userspace = Userspace::open().unwrap();
                userspace.apply(planner.plan(), &changed).unwrap();
                Running::Userspace(Box::new(userspace))
            }
            Proxy::Ipvs => {
                let mut ipvs = Ipvs::open(IpvsConfig::default()).unwrap();
                ipvs.apply(planner.plan(), &changed).unwrap();
                Running::Ipvs(Box::new(ipvs))
            }
            Proxy::Kube(mode) => Running::Kube(Box::new(kube_proxy(mode))),
        }
    }
}

/// The folder of the real kube-proxy.
pub(crate) fn binaries() -> PathBuf {
    Kubernetes::binaries().expect("WEFT_KUBERNETES names the folder that scripts/kubernetes.sh prints")
}

/// Starts kube-proxy in the calling thread's namespace and waits until it has written the last Service.
pub(crate) fn kube_proxy(mode: ProxyMode) -> KubeProxy {
    let addresses: Vec<String> =
        scene::node_addresses().iter().map(|ip| ipnet::IpNet::from(*ip).to_string()).collect();
    let arguments = [
        "--detect-local-mode=ClusterCIDR".to_owned(),
        format!("--cluster-cidr={}", PODS.join(",")),
        format!("--nodeport-addresses={}", addresses.join(",")),
        "--iptables-localhost-nodeports=false".to_owned(),
    ];
    let (cluster, _) = scene::cluster();
    let objects = scene::objects(&cluster);
    let mut proxy = KubeProxy::start(&binaries(), mode, scene::node_object(), objects, &arguments).unwrap();
    let shown: [&[&str]; 2] = match mode {
        ProxyMode::Iptables => [&["iptables-save", "-t", "nat"], &["ip6tables-save", "-t", "nat"]],
        ProxyMode::Nftables => {
            [&["nft", "list", "table", "ip", "kube-proxy"], &["nft", "list", "table", "ip6", "kube-proxy"]]
        }
        ProxyMode::Ipvs => panic!("its rules name no Service"),
    };
    eventually(Duration::from_secs(120), "kube-proxy has written its rules", || {
        proxy.check().unwrap();
        shown.iter().all(|words| {
            let output = std::process::Command::new(words[0]).args(&words[1..]).output().unwrap();
            String::from_utf8_lossy(&output.stdout).contains("bench/guarded")
        })
    });
    proxy
}
