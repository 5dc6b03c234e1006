//! What `ptp` and `routed` have in common: the node itself is the other end of the veth pair, so the
//! container needs an address and packets are routed.

use std::cell::Cell;

use serde::Deserialize;
use weft_kernel::{Link, Netlink};

use crate::interface::rules::{self, Rules};
use crate::interface::veth::{self, Pair, Sides};
use crate::interface::{bridge, check, pod};
use crate::ipam::{self, Evidence, Ipam};
use crate::protocol::args::Command;
use crate::protocol::config::invalid;
use crate::protocol::error::CniError;
use crate::protocol::plugin::{Answer, Call};
use crate::protocol::result::{CniResult, Interface};
use crate::sandbox;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Keys {
    mtu: Option<i64>,
}

/// Where one of the two differs from the other.
pub(crate) struct Ways {
    /// The pair, before its addresses are known.
    pub(crate) pair: fn(&Call, Option<u32>) -> Result<Pair, CniError>,
    /// The result out of what the IPAM plugin gave. Pure.
    pub(crate) plan: fn(CniResult) -> Result<CniResult, CniError>,
    /// Programs both ends of the new pair: the node's end, the index of the container's.
    pub(crate) connect: fn(&mut Sides, &Link, u32, &CniResult) -> Result<(), CniError>,
    /// CHECK of the node's side.
    pub(crate) check: fn(&Call, &CniResult) -> Result<(), CniError>,
}

/// A call of the plugin.
pub(crate) fn serve(call: &Call, ways: &Ways, answer: Answer<'_>) -> Result<(), CniError> {
    if call.command == Command::Del {
        return rules::del(call);
    }
    let ipam = Ipam::of(call)?;
    match call.command {
        Command::Add => add(call, ways, &ipam, answer),
        Command::Check => {
            let made = call.required_prev_result()?;
            ipam::check(call, &ipam)?;
            let mut pod = Netlink::open_in(&sandbox::of(call)?)?;
            let inside = check::link(&mut pod, &call.args.ifname, Some("veth"), &made)?;
            check::addresses_and_routes(&mut pod, &inside, &made)?;
            (ways.check)(call, &made)
        }
        Command::Gc => {
            ipam::gc(call, &ipam)?;
            rules::gc(call)
        }
        _ => ipam::status(call, &ipam),
    }
}

fn add(call: &Call, ways: &Ways, ipam: &Ipam, answer: Answer<'_>) -> Result<(), CniError> {
    pod::refuse_lo(call)?;
    let mtu = pod::mtu(call.keys::<Keys>()?.mtu)?;
    if matches!(ipam, Ipam::None) {
        return Err(invalid("ipam: a container without a bridge needs an address: name an IPAM plugin"));
    }
    pod::check_mtu(mtu, ipam.gives_v6())?;
    let (rules, pair) = (Rules::of(call)?, (ways.pair)(call, mtu)?);
    let mut sides = Sides::open(call)?;
    let made = Cell::new(false);
    let detach = || rules::undo(call, &made);
    let attach = |addresses| attach(call, ways, rules, pair, &made, &mut sides, addresses);
    ipam::add(call, ipam, Evidence::HostLink, attach, detach, answer)
}

fn attach(
    call: &Call,
    ways: &Ways,
    rules: Rules,
    mut pair: Pair,
    made: &Cell<bool>,
    sides: &mut Sides,
    addresses: CniResult,
) -> Result<CniResult, CniError> {
    // What is masqueraded depends on the network that the IPAM plugin gave the address out of.
    let networks = addresses.clone();
    let mut result = (ways.plan)(addresses)?;
    pair.pod_mac = pair.pod_mac.or_else(|| result.ips.first().map(|ip| pod::mac_of(ip.address.addr())));
    bridge::forward(&mut sides.host, &result)?;
    let (link, peer) = pair.make(call, made, sides)?;
    pod::prepare(call, &sides.netns, &result, pod::Neighbourhood::default())?;
    (ways.connect)(sides, &link, peer, &result)?;
    rules.masquerade(call, &networks)?;
    veth::wait_carrier(&mut sides.host, &link)?;
    let inside = veth::inside(call, sides, peer, &link, pair.pod_mac)?;
    pod::describe(call, vec![Interface::of(&link, None), inside], &mut result);
    Ok(result)
}
