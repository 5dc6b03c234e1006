//! The servers over one store, as their Leases tell.

use std::net::SocketAddr;

use super::world::{Key, LEASES, World};

/// Where the Leases are.
pub(crate) const NAMESPACE: &str = "kube-system";
/// Start of their names.
pub(crate) const PREFIX: &str = "weft-apiserver-";
/// The annotation with a server's addresses: `ADDRESS:PORT`, with commas.
pub(crate) const ADDRESSES: &str = "weft.dev/addresses";

/// Whether this is a server's Lease.
pub(super) fn is_one(key: &Key) -> bool {
    &*key.kind == LEASES && &*key.namespace == NAMESPACE && key.name.starts_with(PREFIX)
}

/// Where all of them are reached.
pub(super) fn addresses(world: &World) -> impl Iterator<Item = SocketAddr> {
    let leases = world.keys(LEASES).filter(|key| is_one(key)).filter_map(|key| Some((key, world.get(key)?)));
    let told = leases.filter_map(|(_, lease)| lease["metadata"]["annotations"][ADDRESSES].as_str());
    told.flat_map(|addresses| addresses.split(',')).filter_map(|address| address.parse().ok())
}
