//! The addresses and node ports that other Services have.

use std::net::IpAddr;

use crate::storage::{Claim, View};

/// What all but one Service have.
pub(super) struct Taken<'a> {
    view: &'a View<'a>,
    own: Option<String>,
}

impl<'a> Taken<'a> {
    /// What all but the Service under this key have.
    pub(super) fn new(view: &'a View<'a>, own: Option<String>) -> Self {
        Self { view, own }
    }

    /// Whether another Service has the address.
    pub(super) fn has_address(&self, address: IpAddr) -> bool {
        self.view.claimed(Claim::Address(address), self.own.as_deref())
    }

    /// Whether another Service has the node port.
    pub(super) fn has_port(&self, port: i64) -> bool {
        self.view.claimed(Claim::Port(port), self.own.as_deref())
    }
}
