//! The `tap` plugin: an interface whose other end is a program that opens it, as a virtual
//! machine's does.

use serde::Deserialize;
use weft_kernel::{Link, LinkSet, NewTap, Op, add_tap};
use weft_model::Mac;

use crate::interface::pod;
use crate::interface::single::{self, Sides, Ways};
use crate::ipam;
use crate::protocol::args::Command;
use crate::protocol::config::invalid;
use crate::protocol::error::{CniError, code};
use crate::protocol::plugin::{Answer, Call};

/// Tap and tun interfaces are one kind for the kernel.
const KIND: &str = "tun";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Keys {
    multi_queue: Option<bool>,
    mtu: Option<i64>,
    mac: Option<String>,
    owner: Option<u32>,
    group: Option<u32>,
    selinux_context: Option<String>,
    bridge: Option<String>,
}

pub(crate) fn plugin(call: &Call, answer: Answer<'_>) -> Result<(), CniError> {
    if call.command == Command::Del {
        return single::del(call, KIND);
    }
    let keys: Keys = call.keys()?;
    if let Some(context) = keys.selinux_context.as_ref().filter(|context| !context.is_empty()) {
        let message = format!(
            "selinuxContext: {context:?} is not supported: the interface has the context of this plugin"
        );
        return Err(CniError::new(code::UNSUPPORTED_FIELD, message));
    }
    let ipam = single::optional_ipam(call)?;
    match call.command {
        Command::Add => {
            let mac = match (pod::mac(call)?, &keys.mac) {
                (None, Some(text)) if !text.is_empty() => Some(pod::parse_mac("mac", text)?),
                (asked, _) => asked,
            };
            let make = |sides: &mut Sides| make(call, &keys, mac, sides);
            let ways =
                Ways { neighbourhood: pod::Neighbourhood { arp_notify: true, v6: &[] }, ..Ways::default() };
            let undo = |netns: &_| drop(single::remove(call, netns, KIND));
            single::add(call, &ipam, None, ways, make, undo, answer)
        }
        Command::Check => single::check(call, &ipam, Some(KIND)).map(drop),
        Command::Gc => ipam::gc(call, &ipam),
        _ => ipam::status(call, &ipam),
    }
}

fn make(call: &Call, keys: &Keys, mac: Option<Mac>, sides: &mut Sides) -> Result<Link, CniError> {
    let bridge = keys.bridge.as_deref().filter(|name| !name.is_empty());
    let bridge = bridge.map(|name| bridge_index(name, sides)).transpose()?;
    let mtu = pod::mtu(keys.mtu)?;
    let multi_queue = keys.multi_queue == Some(true);
    // The reference gives frames these headers where it has both owner and group, and programs
    // that open the interface count on them.
    let headers = keys.owner.is_some() && keys.group.is_some();
    let tap = NewTap {
        name: call.args.ifname.clone(),
        multi_queue,
        virtio_header: headers,
        packet_info: headers && !multi_queue,
        owner: keys.owner,
        group: keys.group,
    };
    {
        let _inside = sides.netns.guard()?;
        add_tap(&tap)?;
    }
    let link = single::made(call, &mut sides.pod, &call.args.ifname)?;
    let set = LinkSet {
        index: link.index,
        mtu,
        mac,
        master: bridge.map(Some),
        up: Some(true),
        ..LinkSet::default()
    };
    if let Err(error) = sides.pod.apply(&Op::LinkSet(set)) {
        sides.pod.apply(&Op::LinkDel(link.index)).ok();
        return Err(error.into());
    }
    Ok(Link { mac: mac.or(link.mac), ..link })
}

/// The bridge is in the container.
fn bridge_index(name: &str, sides: &mut Sides) -> Result<u32, CniError> {
    let bridge = sides.pod.link(name)?.filter(|link| link.kind.as_deref() == Some("bridge"));
    let absent = || invalid(&format!("bridge: there is no bridge {name:?} in the container"));
    bridge.map(|bridge| bridge.index).ok_or_else(absent)
}
