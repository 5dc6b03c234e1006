//! After a restart nothing is decided before the neighbours have told their routes (RFC 4724 4.1).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::message::Negotiated;
use crate::{Family, PerFamily};

/// Whose End-of-RIB is waited for, of which families, and until when.
#[derive(Debug)]
pub(super) struct Hold {
    until: Duration,
    waits: BTreeMap<u32, PerFamily<bool>>,
    /// There are networks of neighbours: nobody knows who of them will come.
    networks: bool,
}

impl Hold {
    pub(super) fn new(peers: impl Iterator<Item = u32>, networks: bool, until: Duration) -> Hold {
        let waits = peers.map(|peer| (peer, PerFamily { ipv4: true, ipv6: true })).collect();
        Hold { until, waits, networks }
    }

    /// A neighbour is up. One that does not say when it is done, or waits itself, is not waited for.
    pub(super) fn up(&mut self, peer: u32, terms: &Negotiated) {
        let tells = terms.graceful_restart.is_some_and(|graceful| !graceful.restarted);
        match self.waits.get_mut(&peer) {
            Some(waits) if tells => *waits = terms.families,
            _ => self.gone(peer),
        }
    }

    pub(super) fn end_of_rib(&mut self, peer: u32, family: Family) {
        if let Some(waits) = self.waits.get_mut(&peer) {
            waits[family] = false;
            if !waits.ipv4 && !waits.ipv6 {
                self.gone(peer);
            }
        }
    }

    pub(super) fn gone(&mut self, peer: u32) {
        self.waits.remove(&peer);
    }

    pub(super) fn wakes(&self) -> Duration {
        if self.waits.is_empty() && !self.networks { Duration::ZERO } else { self.until }
    }
}
