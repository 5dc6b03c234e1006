//! What a peer is told of a route: whether, and with which attributes.

use std::sync::Arc;

use ipnet::IpNet;

use super::Config;
use super::peer::Peer;
use crate::message::{Attributes, Community, ExtendedCommunity, Negotiated, NextHop, Relation};
use crate::policy::Policy;
use crate::{Family, PerFamily};

/// What makes peers alike: they are told the same, in the same bytes.
#[derive(Clone, Debug)]
pub(super) struct Kind {
    pub(super) terms: Negotiated,
    client: bool,
    policy: Option<Arc<Policy>>,
    next_hop: PerFamily<Option<NextHop>>,
    next_hop_self: bool,
    keep_next_hop: bool,
}

/// Where a route comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    /// How its peer stands to us; `None`: our own.
    pub(super) relation: Option<Relation>,
    /// Its peer is a client of ours.
    pub(super) client: bool,
    /// Its peer's identifier.
    pub(super) id: std::net::Ipv4Addr,
}

impl Kind {
    pub(super) fn new(peer: &Peer, terms: &Negotiated) -> Kind {
        Kind {
            terms: terms.clone(),
            client: peer.client,
            policy: peer.export.clone(),
            next_hop: peer.next_hop,
            next_hop_self: peer.next_hop_self,
            keep_next_hop: peer.keep_next_hop,
        }
    }

    /// Whether peers of both kinds are told the same in the same bytes.
    pub(super) fn is_like(&self, other: &Kind) -> bool {
        let (a, b) = (&self.terms, &other.terms);
        let policies = match (&self.policy, &other.policy) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
            _ => false,
        };
        let long_lived = |terms: &Negotiated| PerFamily::from_fn(|family| terms.long_lived[family].is_some());
        policies
            && (self.client, self.next_hop, self.next_hop_self, self.keep_next_hop)
                == (other.client, other.next_hop, other.next_hop_self, other.keep_next_hop)
            && (a.relation, a.families, a.four_octet_as, a.extended_next_hop, a.extended_messages)
                == (b.relation, b.families, b.four_octet_as, b.extended_next_hop, b.extended_messages)
            && (a.add_path_out, long_lived(a)) == (b.add_path_out, long_lived(b))
    }

    /// Whether routes of the same attributes may be told with different ones.
    pub(super) fn asks_for_prefix(&self) -> bool {
        self.policy.as_ref().is_some_and(|policy| policy.asks_for_prefix())
    }

    /// What such a peer is told of a route, if anything.
    pub(super) fn export(
        &self,
        config: &Config,
        prefix: &IpNet,
        source: Source,
        attributes: &Attributes,
    ) -> Option<Attributes> {
        let family = Family::of(prefix);
        let to = self.terms.relation;
        if !self.terms.families[family] || !self.may_know(source, attributes, family) {
            return None;
        }
        let policy = match &self.policy {
            // RFC 8212.
            None if to == Relation::External => return None,
            policy => policy.as_deref(),
        };
        let mut told = attributes.clone();
        if to == Relation::External && source.relation.is_some() {
            // What others think of it is of no concern to third ones.
            told.med = None;
        }
        if let Some(policy) = policy {
            told = policy.apply(prefix, &told)?.into_owned();
        }
        // A next hop that policy has set stays.
        let set = told.next_hop != attributes.next_hop;
        match to {
            Relation::External => self.outside(config, &mut told),
            Relation::Confederation => told.as_path = told.as_path.prepend_member(config.asn),
            Relation::Internal => inside(config, source, &mut told),
        }
        if to != Relation::External {
            told.local_pref = told.local_pref.or(Some(super::LOCAL_PREF));
        }
        let own = match source.relation {
            None => self.next_hop_self || told.next_hop.address().is_unspecified(),
            Some(relation) => self.next_hop_self && relation == Relation::External,
        };
        let kept = self.keep_next_hop && source.relation.is_some();
        if !set && !kept && (to == Relation::External || own) {
            told.next_hop = self.next_hop[family].unwrap_or(told.next_hop);
        }
        let fits = match (family, told.next_hop) {
            (Family::Ipv4, NextHop::V4(_)) => true,
            (Family::Ipv4, _) => self.terms.extended_next_hop,
            (Family::Ipv6, next_hop) => !matches!(next_hop, NextHop::V4(_)),
        };
        (fits && told.next_hop.is_possible()).then_some(told)
    }

    /// Whether such a peer may know of it: RFC 4456 6, RFC 1997, RFC 9494 4.3.
    fn may_know(&self, source: Source, attributes: &Attributes, family: Family) -> bool {
        let to = self.terms.relation;
        let reflected = source.relation == Some(Relation::Internal) && to == Relation::Internal;
        if reflected && !self.client && !source.client {
            return false;
        }
        let has = |community| attributes.has(community);
        let barred = has(Community::NO_ADVERTISE)
            || has(Community::NO_EXPORT) && to == Relation::External
            || has(Community::NO_EXPORT_SUBCONFED) && to != Relation::Internal
            || has(Community::LLGR_STALE) && self.terms.long_lived[family].is_none();
        !barred
    }

    fn outside(&self, config: &Config, told: &mut Attributes) {
        let asn = config.confederation.unwrap_or(config.asn);
        told.as_path = told.as_path.without_confederation().prepend(asn, 1);
        told.local_pref = None;
        told.originator = None;
        told.cluster_list = Box::default();
        if !told.extended_communities.iter().all(ExtendedCommunity::is_transitive) {
            let transitive =
                told.extended_communities.iter().copied().filter(ExtendedCommunity::is_transitive);
            told.extended_communities = transitive.collect();
        }
    }
}

/// Marks a route that is reflected (RFC 4456 8).
fn inside(config: &Config, source: Source, told: &mut Attributes) {
    if source.relation == Some(Relation::Internal) {
        told.originator = told.originator.or(Some(source.id));
        told.cluster_list = [config.cluster()].into_iter().chain(told.cluster_list.iter().copied()).collect();
    }
}
