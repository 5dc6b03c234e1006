//! The `ipvlan` plugin: an interface with the hardware address of one of the node.

use serde::Deserialize;
use weft_kernel::{Details, IpvlanMode, IpvlanReach, Link, LinkKind};

use crate::interface::single::{self, Sides, Ways};
use crate::interface::{check, pod};
use crate::ipam::{self, Ipam};
use crate::protocol::args::Command;
use crate::protocol::config::invalid;
use crate::protocol::error::CniError;
use crate::protocol::plugin::{Answer, Call};
use crate::protocol::result::CniResult;

const KIND: &str = "ipvlan";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Keys {
    master: Option<String>,
    mode: Option<String>,
    mtu: Option<i64>,
    link_in_container: Option<bool>,
}

pub(crate) fn plugin(call: &Call, answer: Answer<'_>) -> Result<(), CniError> {
    if call.command == Command::Del {
        return single::del(call, KIND);
    }
    let mut keys: Keys = call.keys()?;
    let mode = mode(keys.mode.as_deref())?;
    let ipam = single::optional_ipam(call)?;
    match call.command {
        Command::Add => {
            let before = call.prev_result()?;
            if let (None, Some(before)) = (keys.master.as_deref().filter(|m| !m.is_empty()), &before) {
                keys.master = Some(chained_master(before)?);
            }
            let base = addresses_of(&ipam, before)?;
            let ways = Ways { neighbourhood: pod::ANNOUNCE, ..Ways::default() };
            let undo = |netns: &_| drop(single::remove(call, netns, KIND));
            single::add(call, &ipam, base, ways, |sides| make(call, &keys, mode, sides), undo, answer)
        }
        Command::Check => match single::check(call, &ipam, Some(KIND))? {
            Some(link) if !matches!(link.details, Details::Ipvlan(Some(now), _) if now == mode) => {
                Err(check::differs(format!("{} has another mode: {:?}", link.name, link.details)))
            }
            _ => Ok(()),
        },
        Command::Gc => ipam::gc(call, &ipam),
        _ => ipam::status(call, &ipam),
    }
}

/// In a chain without IPAM plugin the addresses are those of the plugin before.
fn addresses_of(ipam: &Ipam, before: Option<CniResult>) -> Result<Option<CniResult>, CniError> {
    match (ipam, before) {
        (Ipam::None, Some(before)) if !before.ips.is_empty() => Ok(Some(before)),
        (Ipam::None, _) => Err(invalid("ipam.type is missing, and no plugin before gave an address")),
        _ => Ok(None),
    }
}

/// Without `master` it is the only interface of the plugin before.
fn chained_master(before: &CniResult) -> Result<String, CniError> {
    match before.interfaces.as_slice() {
        [one] if !one.name.is_empty() => Ok(one.name.clone()),
        _ => Err(invalid("master is missing, and prevResult does not have just one named interface")),
    }
}

fn make(call: &Call, keys: &Keys, mode: IpvlanMode, sides: &mut Sides) -> Result<Link, CniError> {
    let in_container = keys.link_in_container == Some(true);
    let parent = single::master(sides.of_parent(in_container), keys.master.as_deref())?;
    let kind = LinkKind::Ipvlan { parent: parent.index, mode, reach: IpvlanReach::Bridge };
    single::make_on(call, sides, in_container, kind, single::mtu(keys.mtu, &parent)?, None)
}

fn mode(key: Option<&str>) -> Result<IpvlanMode, CniError> {
    match key.unwrap_or_default() {
        "" | "l2" => Ok(IpvlanMode::L2),
        "l3" => Ok(IpvlanMode::L3),
        "l3s" => Ok(IpvlanMode::L3s),
        other => Err(invalid(&format!("mode: {other:?} is none of l2, l3 and l3s"))),
    }
}
