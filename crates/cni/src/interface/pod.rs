//! The container's interface, as all interface plugins have it: what the configuration wants of
//! it, its addresses and routes in the kernel, and its place in the result.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use weft_kernel::{Address, LinkSet, Netlink, Netns, Op, Route, sysctl};
use weft_model::Mac;

use crate::protocol::config::invalid;
use crate::protocol::error::{CniError, code};
use crate::protocol::plugin::Call;
use crate::protocol::result::{CniResult, Interface, Route as ResultRoute};

/// The least MTU of IPv4 and of IPv6 in bytes, and the largest of any link.
const LEAST_V4: i64 = 68;
const LEAST_V6: u32 = 1280;
const LARGEST: i64 = 65535;
/// Time that the search for duplicates of an address has.
const PROBING: Duration = Duration::from_secs(10);

/// The key `mtu`: absent and 0 are the kernel's default.
pub(crate) fn mtu(key: Option<i64>) -> Result<Option<u32>, CniError> {
    match key.unwrap_or(0) {
        0 => Ok(None),
        mtu if (LEAST_V4..=LARGEST).contains(&mtu) => Ok(u32::try_from(mtu).ok()),
        mtu => Err(invalid(&format!("mtu: {mtu} is not between {LEAST_V4} and {LARGEST}"))),
    }
}

/// IPv6 needs a larger MTU than IPv4.
pub(crate) fn check_mtu(mtu: Option<u32>, has_v6: bool) -> Result<(), CniError> {
    match mtu.filter(|mtu| has_v6 && *mtu < LEAST_V6) {
        Some(mtu) => Err(invalid(&format!("mtu: {mtu} is too small for IPv6: use {LEAST_V6} or more"))),
        None => Ok(()),
    }
}

/// The hardware address that the runtime asks for: `runtimeConfig.mac`, then `args.cni.mac`, then
/// `MAC` of CNI_ARGS.
pub(crate) fn mac(call: &Call) -> Result<Option<Mac>, CniError> {
    let runtime = call.conf.runtime_config.as_ref().and_then(|config| config.mac.as_ref());
    let legacy = call.conf.args.as_ref().and_then(|args| args.cni.as_ref()?.mac.as_ref());
    let given = [runtime, legacy, call.args.extra.mac.as_ref()];
    given.into_iter().flatten().find(|text| !text.is_empty()).map(|text| parse_mac("mac", text)).transpose()
}

/// The address of one interface, under `key` of the configuration.
pub(crate) fn parse_mac(key: &str, text: &str) -> Result<Mac, CniError> {
    let mac: Mac = text.parse().map_err(|error| invalid(&format!("{key}: {text:?} is {error}")))?;
    if mac.0[0] & 1 == 1 || mac == Mac::default() {
        return Err(invalid(&format!("{key}: {mac} is no address of one interface")));
    }
    Ok(mac)
}

/// An interface name in the configuration, under `key`.
pub(crate) fn link_name<'a>(key: &str, name: &'a str) -> Result<&'a str, CniError> {
    let odd = |c: char| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control();
    if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.contains(odd) {
        return Err(invalid(&format!("{key}: {name:?} is no interface name of at most 15 bytes")));
    }
    Ok(name)
}

/// CNI_IFNAME is none that every namespace has.
pub(crate) fn refuse_lo(call: &Call) -> Result<(), CniError> {
    if call.args.ifname != "lo" {
        return Ok(());
    }
    let message = "environment variable CNI_IFNAME: \"lo\" is in every namespace: choose another name";
    Err(CniError::new(code::INVALID_ENVIRONMENT, message))
}

/// The error for an interface that was in the container before.
pub(crate) fn present(call: &Call) -> CniError {
    let message = format!(
        "environment variable CNI_IFNAME: {:?} is in the container already: delete it first",
        call.args.ifname
    );
    CniError::new(code::INVALID_ENVIRONMENT, message)
}

/// `0a:58` and the four bytes of an IPv4 address, as kubenet has it; of an IPv6 address its
/// last four. Made from the address, so that neighbours' caches stay right when it is given again.
pub(crate) fn mac_of(ip: IpAddr) -> Mac {
    let [a, b, c, d] = match ip {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(ip) => (ip.to_bits() as u32).to_be_bytes(),
    };
    Mac([0x0a, 0x58, a, b, c, d])
}

/// How the container's interface deals with its neighbours.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Neighbourhood {
    /// Tells them of its IPv4 addresses when it comes up (`arp_notify`).
    pub(crate) arp_notify: bool,
    /// Parameters of IPv6 on it, with their values.
    pub(crate) v6: &'static [(&'static str, &'static str)],
}

/// Neighbours learn at once of an address that another container may have had before.
pub(crate) const ANNOUNCE: Neighbourhood = Neighbourhood { arp_notify: true, v6: &[("ndisc_notify", "1")] };

impl Neighbourhood {
    /// The change by which the link `index` comes up.
    pub(crate) fn up(self, index: u32) -> Op {
        let arp_notify = self.arp_notify.then_some(true);
        Op::LinkSet(LinkSet { index, up: Some(true), arp_notify, ..LinkSet::default() })
    }
}

/// The link `index` comes up with the addresses and routes of `result`, in one batch.
/// `detects_duplicates`: IPv6 addresses are probed before they are used.
pub(crate) fn configure(
    call: &Call,
    netns: &Netns,
    pod: &mut Netlink,
    index: u32,
    result: &CniResult,
    neighbourhood: Neighbourhood,
    detects_duplicates: bool,
) -> Result<(), CniError> {
    prepare(call, netns, result, neighbourhood)?;
    let mut ops = vec![neighbourhood.up(index)];
    for ip in &result.ips {
        ops.push(address(index, ip.address, detects_duplicates));
    }
    for route in &result.routes {
        // Another network of the container may have a route to the same place.
        ops.push(Op::RouteAppend(kernel_route(route, index, result)?));
    }
    apply(pod, &ops)?;
    if detects_duplicates && result.ips.iter().any(|ip| ip.address.addr().is_ipv6()) {
        wait_unique(pod, index)?;
    }
    Ok(())
}

/// Waits until the kernel has looked for duplicates of the link's addresses, and found none.
fn wait_unique(pod: &mut Netlink, index: u32) -> Result<(), CniError> {
    let end = Instant::now() + PROBING;
    loop {
        let addresses = pod.addresses()?.into_iter().filter(|address| address.ifindex == index);
        let addresses: Vec<Address> = addresses.collect();
        if let Some(taken) = addresses.iter().find(|address| address.duplicate) {
            let message = format!("{} is in use on the network already (enabledad)", taken.net.addr());
            return Err(CniError::new(code::TRY_AGAIN, message));
        }
        match addresses.iter().find(|address| address.tentative) {
            None => return Ok(()),
            Some(slow) if Instant::now() > end => {
                let message = format!("the search for duplicates of {} does not end", slow.net.addr());
                return Err(CniError::new(code::TRY_AGAIN, message));
            }
            Some(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// All of it, or the first error.
pub(crate) fn apply(netlink: &mut Netlink, ops: &[Op]) -> Result<(), CniError> {
    for done in netlink.batch(ops) {
        done?;
    }
    Ok(())
}

/// The link `index` gets an address.
pub(crate) fn address(index: u32, net: IpNet, detects_duplicates: bool) -> Op {
    Op::AddrAdd(Address { no_dad: !detects_duplicates, broadcast: true, ..Address::new(index, net) })
}

/// The parameters of IPv6 before the container's interface comes up, as far as the kernel has them.
/// A runtime may have switched IPv6 off in a container of which it did not know that it would
/// get an IPv6 address; and the addresses shall outlive the link being set down.
pub(crate) fn prepare(
    call: &Call,
    netns: &Netns,
    result: &CniResult,
    neighbourhood: Neighbourhood,
) -> Result<(), CniError> {
    let name = &call.args.ifname;
    let has_v6 = result.ips.iter().any(|ip| ip.address.addr().is_ipv6());
    if !has_v6 && neighbourhood.v6.is_empty() {
        return Ok(());
    }
    let _inside = netns.guard()?;
    for (key, value) in neighbourhood.v6 {
        sysctl::set(&format!("net/ipv6/conf/{name}/{key}"), value).ok();
    }
    if !has_v6 {
        return Ok(());
    }
    for link in ["lo", name.as_str()] {
        sysctl::ensure(&format!("net/ipv6/conf/{link}/disable_ipv6"), "0").ok();
    }
    Ok(sysctl::set(&format!("net/ipv6/conf/{name}/keep_addr_on_down"), "1")?)
}

/// The route of a result in the kernel's terms; without a gateway of its own it takes that of
/// the first address of its family.
pub(crate) fn kernel_route(route: &ResultRoute, index: u32, result: &CniResult) -> Result<Route, CniError> {
    let same = |ip: &IpAddr| ip.is_ipv4() == route.dst.addr().is_ipv4();
    let gateway = || result.ips.iter().filter(|ip| same(&ip.address.addr())).find_map(|ip| ip.gateway);
    let mut wanted = Route::new(route.dst);
    wanted.via = route.gw.or_else(gateway);
    wanted.oif = Some(index);
    wanted.mtu = route.mtu;
    wanted.advmss = route.advmss;
    wanted.metric = route.priority.unwrap_or_default();
    wanted.table = route.table.unwrap_or(weft_kernel::TABLE_MAIN);
    wanted.scope = route.scope.unwrap_or(wanted.scope);
    Ok(wanted)
}

/// The route to everything in the family of `ip`.
pub(crate) fn default_of(ip: &IpAddr) -> IpNet {
    match ip {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

/// The network namespace as a result names it.
pub(crate) fn sandbox(call: &Call) -> Option<String> {
    call.args.netns.as_ref().map(|path| path.to_string_lossy().into_owned())
}

/// `interfaces` become those of the result, the last of them the container's, which has all the
/// addresses; DNS settings of the configuration and the runtime go before those of the IPAM plugin.
pub(crate) fn describe(call: &Call, interfaces: Vec<Interface>, result: &mut CniResult) {
    let last = interfaces.len().saturating_sub(1);
    let pod = interfaces.iter().position(|interface| interface.sandbox.is_some()).unwrap_or(last);
    result.interfaces = interfaces;
    for ip in &mut result.ips {
        ip.interface = Some(pod);
    }
    if let Some(dns) = call.conf.dns.as_ref().filter(|dns| !dns.is_empty()) {
        result.dns = dns.clone();
    }
    if let Some(dns) = call.conf.runtime_config.as_ref().and_then(|config| config.dns.clone()) {
        let fields = [
            (&mut result.dns.nameservers, dns.servers),
            (&mut result.dns.search, dns.searches),
            (&mut result.dns.options, dns.options),
        ];
        for (field, given) in fields {
            if let Some(given) = given {
                *field = given;
            }
        }
    }
}
