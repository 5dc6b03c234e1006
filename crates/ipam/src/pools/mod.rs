//! Pools of addresses, and the blocks of them that nodes claim. Pure: views and time come in, files
//! and writes go out.
//!
//! - [`catalogue`]: the pools of a cluster, which of them count, and for whom.
//! - [`Keeper`]: one node's part: what it claims, asks to borrow, lends and gives back.
//! - [`file`]: what the node may give to pods, as its agent tells it to `weft-cni`.
//! - [`choose`]: the addresses of one pod out of that.
//! - [`sweep`]: what is not as it should be.
//!
//! # Why no address is given twice
//!
//! A block belongs to the node that created its object, whose name follows from the CIDR: the API
//! server lets one create succeed. Every later change compares the object's version. Within a node,
//! `weft-cni` takes addresses only out of the file's spans, under the lock of the allocation
//! directory; the agent takes a span out of the file under the same lock, and only one without an
//! allocation, *before* it asks the API to give the block back, to lend an address, or to return one.
//! What it has withheld so it does not hand out again before it sees that the change did not happen.

pub mod catalogue;
pub mod choose;
pub mod file;
pub mod keeper;
mod room;
pub mod sweep;
mod walk;

#[cfg(test)]
mod simulation;

pub use catalogue::{Catalogue, Choice};
pub use keeper::{Change, Input, Keeper, Plan, Write};
pub use room::size as usable;

use serde_json::{Value, json};
use weft_model::pools::IpBlock;

/// The object of a block (weft.dev/v1 IPBlock).
pub fn object(block: &IpBlock) -> Value {
    let mut metadata = json!({"name": &*block.name});
    if !block.version.is_empty() {
        metadata["resourceVersion"] = json!(&*block.version);
        metadata["uid"] = json!(&*block.uid);
    }
    let mut spec = json!({"cidr": block.cidr, "pool": &*block.pool});
    if let Some(node) = &block.node {
        spec["node"] = json!(&**node);
    }
    if block.nat_outgoing {
        spec["natOutgoing"] = json!(true);
    }
    if !block.borrowed.is_empty() {
        spec["borrowed"] = json!(block.borrowed);
    }
    if !block.asked.is_empty() {
        let words = |asks: &std::collections::BTreeSet<weft_model::pools::Ask>| {
            asks.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        spec["asked"] =
            block.asked.iter().map(|(node, asks)| (node.to_string(), json!(words(asks)))).collect();
    }
    if !block.release.is_empty() {
        spec["release"] = json!(block.release);
    }
    json!({"apiVersion": "weft.dev/v1", "kind": "IPBlock", "metadata": metadata, "spec": spec})
}
