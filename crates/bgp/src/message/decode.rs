//! The attributes of an UPDATE, each checked as RFC 7606 wants it.

use std::net::Ipv4Addr;

use super::as_path::AsPath;
use super::attributes::{Aggregator, Attributes, NextHop, Origin, Unknown, code, flag};
use super::community::{Community, ExtendedCommunity, LargeCommunity};
use super::fault::{Action, Fault, Faults};
use super::nlri::NlriList;
use super::notification::{Notification, Reason};
use super::open::AS_TRANS;
use super::reach::{self, Reach};
use super::wire::{Reader, exact, pieces};
use super::{Negotiated, Relation};

/// What the attributes of an UPDATE say.
pub(super) struct Section<'a> {
    pub(super) attributes: Attributes,
    /// That of NEXT_HOP.
    pub(super) next_hop: Option<NextHop>,
    pub(super) reach: Option<Reach<'a>>,
    pub(super) unreach: Option<NlriList<'a>>,
    pub(super) seen: Seen,
    pub(super) faults: Faults,
    as4_path: Option<AsPath>,
    as4_aggregator: Option<Aggregator>,
}

/// The types that were there.
#[derive(Clone, Copy, Default)]
pub(super) struct Seen([u128; 2]);

impl Seen {
    /// Whether it is new.
    fn insert(&mut self, code: u8) -> bool {
        let new = !self.has(code);
        let [low, high] = &mut self.0;
        *(if code < 128 { low } else { high }) |= 1 << (code % 128);
        new
    }

    pub(super) fn has(&self, code: u8) -> bool {
        let [low, high] = self.0;
        (if code < 128 { low } else { high }) & 1 << (code % 128) != 0
    }

    /// Whether any is there that tells of routes, not of their end.
    pub(super) fn tells_routes(&self) -> bool {
        let [low, high] = self.0;
        low & !(1 << code::MP_UNREACH) != 0 || high != 0
    }
}

impl<'a> Section<'a> {
    /// Reads all of them. An error is one that ends the session.
    pub(super) fn decode(bytes: &'a [u8], terms: &Negotiated) -> Result<Section<'a>, Notification> {
        let mut section = Section {
            attributes: Attributes::new(NextHop::V4(Ipv4Addr::UNSPECIFIED)),
            next_hop: None,
            reach: None,
            unreach: None,
            seen: Seen::default(),
            faults: Faults::default(),
            as4_path: None,
            as4_aggregator: None,
        };
        let mut rest = Reader(bytes);
        while let Some((&[flags, code], _)) = rest.0.split_first_chunk::<2>() {
            let whole = rest.0;
            let Some(value) = value(&mut rest) else {
                section.faults.add(code, Fault::Overrun, Action::Withdraw);
                rest = Reader(&[]);
                break;
            };
            let whole = whole.get(..whole.len() - rest.0.len()).unwrap_or(whole);
            section.attribute(flags, code, value, whole, terms)?;
        }
        if !rest.is_empty() {
            section.faults.add(0, Fault::Overrun, Action::Withdraw);
        }
        if !terms.four_octet_as {
            section.merge();
        }
        section.attributes.unknown.sort_by_key(|unknown| unknown.code);
        Ok(section)
    }

    fn attribute(
        &mut self,
        flags: u8,
        code: u8,
        value: &'a [u8],
        whole: &[u8],
        terms: &Negotiated,
    ) -> Result<(), Notification> {
        let multiprotocol = matches!(code, code::MP_REACH | code::MP_UNREACH);
        if !self.seen.insert(code) {
            if multiprotocol {
                return Err(Reason::ATTRIBUTE_LIST.into());
            }
            self.faults.add(code, Fault::Duplicate, Action::Discard);
            return Ok(());
        }
        match code {
            code::LOCAL_PREF | code::ORIGINATOR_ID | code::CLUSTER_LIST
                if terms.relation == Relation::External =>
            {
                self.faults.add(code, Fault::Unexpected, Action::Discard);
                return Ok(());
            }
            // Between speakers of four octets these say nothing.
            code::AS4_PATH | code::AS4_AGGREGATOR if terms.four_octet_as => {
                self.faults.add(code, Fault::Unexpected, Action::Discard);
                return Ok(());
            }
            _ => {}
        }
        let Some(expected) = flags_of(code) else { return self.unknown(flags, code, value, whole) };
        if flags & (flag::OPTIONAL | flag::TRANSITIVE) != expected {
            self.faults.add(code, Fault::Flags, Action::Withdraw);
            // The prefixes in these must be known all the same.
            if !multiprotocol {
                return Ok(());
            }
        }
        match code {
            code::MP_REACH => self.reach = Some(reach::decode(value, terms, whole)?),
            code::MP_UNREACH => self.unreach = reach::decode_withdrawn(value, terms, whole)?,
            _ => {
                if let Err((fault, action)) = self.known(code, value, terms) {
                    self.faults.add(code, fault, action);
                }
            }
        }
        Ok(())
    }

    fn known(&mut self, code: u8, value: &[u8], terms: &Negotiated) -> Result<(), (Fault, Action)> {
        const LENGTH: (Fault, Action) = (Fault::Length, Action::Withdraw);
        const USELESS: (Fault, Action) = (Fault::Length, Action::Discard);
        let to = &mut self.attributes;
        let word = || exact(value).map(u32::from_be_bytes).ok_or(LENGTH);
        let address = || exact(value).map(|octets: [u8; 4]| Ipv4Addr::from(octets)).ok_or(LENGTH);
        match code {
            code::ORIGIN => {
                let [origin] = exact(value).ok_or(LENGTH)?;
                let known = [Origin::Igp, Origin::Egp, Origin::Incomplete].into_iter();
                to.origin = known
                    .into_iter()
                    .find(|known| *known as u8 == origin)
                    .ok_or((Fault::Value, Action::Withdraw))?;
            }
            code::AS_PATH => {
                const VALUE: (Fault, Action) = (Fault::Value, Action::Withdraw);
                let path = AsPath::decode(value, terms.four_octet_as).ok_or(VALUE)?;
                let fits = match terms.relation {
                    // Who is outside puts his own AS first, and knows nothing of the inside.
                    Relation::External => !path.is_empty() && !path.has_confederation(),
                    Relation::Confederation => path.begins_in_confederation(),
                    Relation::Internal => true,
                };
                to.as_path = Some(path).filter(|_| fits).ok_or(VALUE)?;
            }
            code::NEXT_HOP => self.next_hop = Some(NextHop::V4(address()?)),
            code::MED => to.med = Some(word()?),
            code::LOCAL_PREF => to.local_pref = Some(word()?),
            code::ATOMIC_AGGREGATE => {
                if !value.is_empty() {
                    return Err(USELESS);
                }
                to.atomic_aggregate = true;
            }
            code::AGGREGATOR => {
                let by = if terms.four_octet_as { aggregator(value) } else { short_aggregator(value) };
                let by = by.ok_or(USELESS)?;
                to.aggregator = Some(by).filter(|by| by.asn != 0);
                to.aggregator.ok_or((Fault::Value, Action::Discard))?;
            }
            code::AS4_PATH => {
                self.as4_path = AsPath::decode(value, true).filter(|path| !path.is_empty());
                self.as4_path.as_ref().ok_or((Fault::Value, Action::Discard))?;
            }
            code::AS4_AGGREGATOR => {
                self.as4_aggregator = aggregator(value).filter(|by| by.asn != 0);
                self.as4_aggregator.ok_or(USELESS)?;
            }
            code::ORIGINATOR_ID => to.originator = Some(address()?),
            code::CLUSTER_LIST => {
                to.cluster_list = pieces(value, |octets: [u8; 4]| Ipv4Addr::from(octets)).ok_or(LENGTH)?;
            }
            code::COMMUNITIES => {
                to.communities =
                    pieces(value, |octets| Community(u32::from_be_bytes(octets))).ok_or(LENGTH)?;
            }
            code::EXTENDED_COMMUNITIES => {
                to.extended_communities = pieces(value, ExtendedCommunity).ok_or(LENGTH)?;
            }
            code::LARGE_COMMUNITIES => to.large_communities = pieces(value, large).ok_or(LENGTH)?,
            _ => {}
        }
        Ok(())
    }

    fn unknown(&mut self, flags: u8, code: u8, value: &[u8], whole: &[u8]) -> Result<(), Notification> {
        if flags & flag::OPTIONAL == 0 {
            return Err(Notification::new(Reason::UNRECOGNISED, whole));
        }
        if flags & flag::TRANSITIVE != 0 {
            let mut unknown = std::mem::take(&mut self.attributes.unknown).into_vec();
            unknown.push(Unknown { code, value: value.into() });
            self.attributes.unknown = unknown.into();
        }
        Ok(())
    }

    /// Puts together what a speaker of two octets tells of four (RFC 6793 4.2.3).
    fn merge(&mut self) {
        let to = &mut self.attributes;
        // An aggregator that has a number of two octets came later, and knew nothing of the others.
        if to.aggregator.is_some_and(|by| by.asn != u32::from(AS_TRANS)) {
            return;
        }
        if to.aggregator.is_some() && self.as4_aggregator.is_some() {
            to.aggregator = self.as4_aggregator;
        }
        if let Some(four) = &self.as4_path {
            to.as_path = to.as_path.merged(four);
        }
    }
}

/// The value of the attribute that `rest` begins with, which is taken off it.
fn value<'a>(rest: &mut Reader<'a>) -> Option<&'a [u8]> {
    let flags = rest.u8()?;
    rest.u8()?;
    let length = if flags & flag::EXTENDED != 0 { rest.u16()? } else { rest.u8()?.into() };
    rest.take(length.into())
}

/// Whether attributes of a type that we know are optional and transitive.
fn flags_of(code: u8) -> Option<u8> {
    Some(match code {
        code::ORIGIN | code::AS_PATH | code::NEXT_HOP | code::LOCAL_PREF | code::ATOMIC_AGGREGATE => {
            flag::TRANSITIVE
        }
        code::MED | code::ORIGINATOR_ID | code::CLUSTER_LIST | code::MP_REACH | code::MP_UNREACH => {
            flag::OPTIONAL
        }
        code::AGGREGATOR
        | code::COMMUNITIES
        | code::EXTENDED_COMMUNITIES
        | code::AS4_PATH
        | code::AS4_AGGREGATOR
        | code::LARGE_COMMUNITIES => flag::OPTIONAL | flag::TRANSITIVE,
        _ => return None,
    })
}

fn aggregator(value: &[u8]) -> Option<Aggregator> {
    let [asn, id] = exact::<8>(value)?.as_chunks::<4>().0.try_into().ok()?;
    Some(Aggregator { asn: u32::from_be_bytes(asn), id: id.into() })
}

fn short_aggregator(value: &[u8]) -> Option<Aggregator> {
    let [a, b, id @ ..] = exact::<6>(value)?;
    Some(Aggregator { asn: u16::from_be_bytes([a, b]).into(), id: id.into() })
}

fn large(octets: [u8; 12]) -> LargeCommunity {
    let mut words = octets.as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word));
    let mut next = || words.next().unwrap_or_default();
    LargeCommunity(next(), next(), next())
}
