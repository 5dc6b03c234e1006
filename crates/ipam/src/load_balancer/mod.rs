//! Which Service of type LoadBalancer has which address. Pure: the objects come in, statuses go out.
//!
//! - [`plan()`]: what every Service and every pool should have in its status.
//! - [`service_patch`], [`pool_patch`]: the writes that bring an object to that, as JSON merge patches.
//!
//! # Why no address is given twice
//!
//! The Services' statuses are the record, and the only one: a plan is made of what they say, so a planner that
//! died has forgotten nothing. One plan gives an address at most once, and gives none that any status has: one
//! that a Service gives up is given again by the plan that no longer sees it there. One planner runs at a time,
//! and every write compares the version of the Service that it was planned for. Where two Services have one
//! address all the same (somebody wrote it, or changed ports that were shared), the older Service keeps it.

mod catalogue;
mod choose;
mod plan;
mod write;

pub use plan::{Input, Outcome, Plan, PoolStatus, plan};
pub use write::{Patch, pool_patch, service_patch};

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
