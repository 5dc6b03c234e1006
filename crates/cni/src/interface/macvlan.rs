//! The `macvlan` plugin: an interface with a hardware address of its own on one of the node.

use serde::Deserialize;
use weft_kernel::{Details, Link, LinkKind, MacvlanMode};
use weft_model::Mac;

use crate::interface::single::{self, Sides, Ways};
use crate::interface::{check, pod};
use crate::ipam;
use crate::protocol::args::Command;
use crate::protocol::config::invalid;
use crate::protocol::error::CniError;
use crate::protocol::plugin::{Answer, Call};

const KIND: &str = "macvlan";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Keys {
    master: Option<String>,
    mode: Option<String>,
    mtu: Option<i64>,
    mac: Option<String>,
    link_in_container: Option<bool>,
    bcqueuelen: Option<u32>,
}

pub(crate) fn plugin(call: &Call, answer: Answer<'_>) -> Result<(), CniError> {
    if call.command == Command::Del {
        return single::del(call, KIND);
    }
    let keys: Keys = call.keys()?;
    let mode = mode(keys.mode.as_deref())?;
    let ipam = single::optional_ipam(call)?;
    match call.command {
        Command::Add => {
            let mac = mac(call, &keys)?;
            let ways = Ways { neighbourhood: pod::ANNOUNCE, ..Ways::default() };
            let undo = |netns: &_| drop(single::remove(call, netns, KIND));
            single::add(call, &ipam, None, ways, |sides| make(call, &keys, mode, mac, sides), undo, answer)
        }
        Command::Check => match single::check(call, &ipam, Some(KIND))? {
            Some(link) if link.details != Details::Macvlan(Some(mode)) => {
                Err(check::differs(format!("{} has another mode: {:?}", link.name, link.details)))
            }
            _ => Ok(()),
        },
        Command::Gc => ipam::gc(call, &ipam),
        _ => ipam::status(call, &ipam),
    }
}

fn make(
    call: &Call,
    keys: &Keys,
    mode: MacvlanMode,
    mac: Option<Mac>,
    sides: &mut Sides,
) -> Result<Link, CniError> {
    let in_container = keys.link_in_container == Some(true);
    let parent = single::master(sides.of_parent(in_container), keys.master.as_deref())?;
    let bc_queue_len = keys.bcqueuelen.filter(|len| *len > 0);
    let kind = LinkKind::Macvlan { parent: parent.index, mode, bc_queue_len };
    single::make_on(call, sides, in_container, kind, single::mtu(keys.mtu, &parent)?, mac)
}

fn mac(call: &Call, keys: &Keys) -> Result<Option<Mac>, CniError> {
    match (pod::mac(call)?, &keys.mac) {
        (None, Some(text)) if !text.is_empty() => pod::parse_mac("mac", text).map(Some),
        (asked, _) => Ok(asked),
    }
}

fn mode(key: Option<&str>) -> Result<MacvlanMode, CniError> {
    match key.unwrap_or_default() {
        "" | "bridge" => Ok(MacvlanMode::Bridge),
        "private" => Ok(MacvlanMode::Private),
        "vepa" => Ok(MacvlanMode::Vepa),
        "passthru" => Ok(MacvlanMode::Passthru),
        other => Err(invalid(&format!("mode: {other:?} is none of bridge, private, vepa and passthru"))),
    }
}
