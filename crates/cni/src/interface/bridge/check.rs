//! CHECK: the container is still joined to the bridge as ADD answered.

use weft_kernel::Netlink;

use crate::interface::bridge::plan::Plan;
use crate::interface::check::{self, differs};
use crate::protocol::error::CniError;
use crate::protocol::plugin::Call;
use crate::protocol::result::CniResult;
use crate::sandbox;

pub(crate) fn check(call: &Call, plan: &Plan, made: &CniResult) -> Result<(), CniError> {
    let Some(path) = &call.args.netns else { return Ok(()) };
    let netns = sandbox::open(path)?;
    let mut host = Netlink::open()?;
    let bridge = check::link(&mut host, &plan.bridge, Some("bridge"), made)?;
    let mut pod = Netlink::open_in(&netns)?;
    let in_pod = check::link(&mut pod, &call.args.ifname, Some("veth"), made)?;
    let peer = in_pod.peer.map(|index| host.link_by_index(index)).transpose()?.flatten();
    match &peer {
        Some(peer) if peer.master == Some(bridge.index) => {
            plan.rules.check(call, &peer.name, in_pod.mac, made)?;
        }
        Some(peer) => return Err(differs(format!("{} is no port of bridge {}", peer.name, bridge.name))),
        None => return Err(differs(format!("{} has no other end on the node", in_pod.name))),
    }
    check::addresses_and_routes(&mut pod, &in_pod, made)
}
