//! The `dummy` plugin: an interface that has addresses and drops what is sent by it.

use weft_kernel::{LinkKind, NewLink, Op};

use crate::interface::check;
use crate::interface::single::{self, Sides, Ways};
use crate::ipam;
use crate::protocol::args::Command;
use crate::protocol::error::CniError;
use crate::protocol::plugin::{Answer, Call};

const KIND: &str = "dummy";

pub(crate) fn plugin(call: &Call, answer: Answer<'_>) -> Result<(), CniError> {
    if call.command == Command::Del {
        return single::del(call, KIND);
    }
    let ipam = single::required_ipam(call)?;
    match call.command {
        Command::Add => {
            let make = |sides: &mut Sides| {
                sides.pod.apply(&Op::LinkAdd(NewLink::new(&call.args.ifname, LinkKind::Dummy)))?;
                single::made(call, &mut sides.pod, &call.args.ifname)
            };
            let ways = Ways { ipam_dns: true, ..Ways::default() };
            let undo = |netns: &_| drop(single::remove(call, netns, KIND));
            single::add(call, &ipam, None, ways, make, undo, answer)
        }
        Command::Check => match single::check(call, &ipam, Some(KIND))? {
            Some(link) if !link.up => Err(check::differs(format!("{} is down", link.name))),
            _ => Ok(()),
        },
        Command::Gc => ipam::gc(call, &ipam),
        _ => ipam::status(call, &ipam),
    }
}
