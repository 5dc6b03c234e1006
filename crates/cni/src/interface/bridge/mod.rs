//! The `bridge` plugin: a veth pair joins the container to a bridge of the node.

mod add;
mod check;
mod gateway;
mod plan;
mod vlan;

pub(crate) use crate::interface::bridge::gateway::forward;
use crate::interface::bridge::plan::Plan;
use crate::interface::rules;
use crate::ipam::{self, Ipam};
use crate::protocol::args::Command;
use crate::protocol::error::CniError;
use crate::protocol::plugin::{Answer, Call};

pub(crate) fn plugin(call: &Call, answer: Answer<'_>) -> Result<(), CniError> {
    if call.command == Command::Del {
        return rules::del(call);
    }
    // A bridge without addresses needs no ipam: the reference's users leave it out.
    let ipam = if call.conf.ipam_type().is_empty() { Ipam::None } else { Ipam::of(call)? };
    match call.command {
        Command::Add => {
            call.prev_result()?;
            let plan = Plan::of(call)?;
            plan.check_ipam(&ipam)?;
            add::add(call, &plan, &ipam, answer)
        }
        Command::Check => {
            let made = call.required_prev_result()?;
            ipam::check(call, &ipam)?;
            check::check(call, &Plan::of(call)?, &made)
        }
        Command::Gc => {
            ipam::gc(call, &ipam)?;
            rules::gc(call)
        }
        _ => ipam::status(call, &ipam),
    }
}
