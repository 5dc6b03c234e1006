//! How an agent serves Services.

use anyhow::Context as _;
use clap::Args;
use weft_agent::{AnnounceOn, ProxyConfig, ProxyMode};

/// How Services are served; where kube-proxy has the option, its name.
#[derive(Debug, Args)]
#[command(next_help_heading = "Services")]
pub(crate) struct ProxyArgs {
    /// How Services are served: nftables, iptables, ipvs, userspace, or none where another program does
    #[arg(long, default_value = "nftables", value_name = "MODE")]
    pub(crate) proxy: ProxyMode,
    /// How virtual servers of the mode ipvs choose: rr, wrr, lc, wlc, dh, sh, sed, nq, mh or lblc
    #[arg(long, value_name = "NAME", default_value = "rr")]
    pub(crate) ipvs_scheduler: weft_service::ipvs::Scheduler,
    /// Where node ports are served, as CIDRs of the node's addresses [default: its InternalIPs]
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub(crate) nodeport_addresses: Vec<ipnet::IpNet>,
    /// Where externalIPs may be; others are refused [default: anywhere]
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub(crate) external_ips: Vec<ipnet::IpNet>,
    /// Where to answer whether Services are served; an empty text turns it off
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:10256")]
    pub(crate) healthz_bind_address: String,
    /// Reset the connections of clients whose endpoint was removed
    #[arg(long)]
    pub(crate) reset_removed_endpoints: bool,
    /// Where addresses of type LoadBalancer are announced by ARP and NDP: on the link that has the node's
    /// address unless --proxy none (auto), on a link of this name, or none
    #[arg(long, value_name = "LINK", default_value_t = AnnounceOn::Auto)]
    pub(crate) announce: AnnounceOn,
}

impl ProxyArgs {
    pub(crate) fn config(self) -> anyhow::Result<ProxyConfig> {
        let healthz = match &*self.healthz_bind_address {
            "" => None,
            text => Some(text.parse().with_context(|| {
                format!("--healthz-bind-address {text:?} is no address with a port, as 0.0.0.0:10256")
            })?),
        };
        Ok(ProxyConfig {
            mode: self.proxy,
            node_port_addresses: self.nodeport_addresses,
            external_ips: self.external_ips,
            healthz,
            reset_removed: self.reset_removed_endpoints,
            scheduler: self.ipvs_scheduler,
        })
    }
}
