//! The `vlan` plugin: the packets of one VLAN (802.1Q) of an interface of the node.

use serde::Deserialize;
use weft_kernel::{Details, Link, LinkKind};

use crate::interface::check;
use crate::interface::single::{self, Sides, Ways};
use crate::ipam;
use crate::protocol::args::Command;
use crate::protocol::config::invalid;
use crate::protocol::error::CniError;
use crate::protocol::plugin::{Answer, Call};

const KIND: &str = "vlan";
/// The largest VLAN identifier.
const LARGEST: i64 = 4094;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Keys {
    master: Option<String>,
    vlan_id: Option<i64>,
    mtu: Option<i64>,
    link_in_container: Option<bool>,
}

pub(crate) fn plugin(call: &Call, answer: Answer<'_>) -> Result<(), CniError> {
    if call.command == Command::Del {
        return single::del(call, KIND);
    }
    let keys: Keys = call.keys()?;
    let id = id(&keys)?;
    let ipam = single::required_ipam(call)?;
    match call.command {
        Command::Add => {
            if keys.master.as_deref().unwrap_or_default().is_empty() {
                return Err(invalid("master is missing: name the interface that the VLAN is on"));
            }
            let undo = |netns: &_| drop(single::remove(call, netns, KIND));
            let make = |sides: &mut Sides| make(call, &keys, id, sides);
            single::add(call, &ipam, None, Ways::default(), make, undo, answer)
        }
        Command::Check => {
            let Some(link) = single::check(call, &ipam, Some(KIND))? else { return Ok(()) };
            if link.details != Details::Vlan(id) {
                return Err(check::differs(format!("{} is not VLAN {id}: {:?}", link.name, link.details)));
            }
            match keys.mtu.filter(|mtu| *mtu != 0 && *mtu != i64::from(link.mtu)) {
                Some(mtu) => {
                    Err(check::differs(format!("{} has the MTU {}, not {mtu}", link.name, link.mtu)))
                }
                None => Ok(()),
            }
        }
        Command::Gc => ipam::gc(call, &ipam),
        _ => ipam::status(call, &ipam),
    }
}

fn make(call: &Call, keys: &Keys, id: u16, sides: &mut Sides) -> Result<Link, CniError> {
    let in_container = keys.link_in_container == Some(true);
    let parent = single::master(sides.of_parent(in_container), keys.master.as_deref())?;
    let kind = LinkKind::Vlan { parent: parent.index, id };
    single::make_on(call, sides, in_container, kind, single::mtu(keys.mtu, &parent)?, None)
}

fn id(keys: &Keys) -> Result<u16, CniError> {
    let id = keys.vlan_id.unwrap_or(0);
    let valid = u16::try_from(id).ok().filter(|_| id <= LARGEST);
    valid.ok_or_else(|| invalid(&format!("vlanId: {id} is not between 0 and {LARGEST}")))
}
