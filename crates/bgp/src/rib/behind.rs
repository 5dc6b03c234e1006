//! A member of a group that is not in step with the others: what is current is put together for it alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::PeerId;
use super::batch::{Batch, Told, tell};
use super::few::Few;
use super::table::Table;
use crate::message::{self, Message, Negotiated, Nlri, RefreshKind, Relation};
use crate::{Family, PerFamily};

/// So many prefixes are looked at for one answer to a member that is behind.
pub(super) const STRIDE: usize = 2048;
/// What a member that is behind has to hear.
#[derive(Debug, Default)]
pub(super) struct Behind {
    pub(super) walk: Option<Walk>,
    /// What has changed where the walk has been.
    pub(super) changed: BTreeSet<Nlri>,
}

/// A member that is sent all routes.
#[derive(Debug)]
pub(super) struct Walk {
    /// The number of the next prefix.
    pub(super) next: u32,
    pub(super) families: PerFamily<bool>,
    /// It has asked for them; otherwise they are the first that it hears.
    pub(super) again: bool,
}

/// A step of a walk; its place does not change when it is over.
pub(super) fn step(
    out: &mut Vec<u8>,
    walk: &mut Walk,
    peer: PeerId,
    told: &[Few<Told>],
    terms: &Negotiated,
    table: &Table,
) {
    let marks = |kind| walk.again.then_some(kind).filter(|_| terms.enhanced_refresh);
    let families = Family::ALL.into_iter().filter(|family| walk.families[*family]);
    if let (0, Some(kind)) = (walk.next, marks(RefreshKind::Begin)) {
        families.clone().for_each(|family| message::refresh(out, family, kind));
    }
    let mut batch = Batch::default();
    let from = walk.next as usize;
    let now = told.get(from..).unwrap_or_default();
    for (number, told) in now.iter().enumerate().take(STRIDE) {
        let Some(slot) = table.slot((from + number) as u32) else { continue };
        if walk.families[Family::of(&slot.prefix)] {
            for told in told.as_slice().iter().filter(|told| told.source != peer) {
                batch.announce(told, Nlri { prefix: slot.prefix, path: told.number });
            }
        }
    }
    for (attributes, _, family, routes) in &batch.announced {
        tell(out, terms, attributes, *family, routes);
    }
    walk.next += now.len().min(STRIDE) as u32;
    if now.is_empty() {
        for family in families {
            match marks(RefreshKind::End) {
                Some(kind) => message::refresh(out, family, kind),
                None if walk.again => {}
                None => message::end_of_rib(out, family),
            }
        }
    }
}

/// Tells a member what is current of these.
pub(super) fn catch_up(
    out: &mut Vec<u8>,
    now: &BTreeSet<Nlri>,
    peer: PeerId,
    told: &[Few<Told>],
    terms: &Negotiated,
    table: &Table,
) {
    let mut batch = Batch::default();
    for nlri in now {
        let told = table.find(&nlri.prefix).and_then(|number| told.get(number as usize));
        let told = told.and_then(|told| told.as_slice().iter().find(|told| told.number == nlri.path));
        match told.filter(|told| told.source != peer) {
            Some(told) => batch.announce(told, *nlri),
            None => batch.withdrawn[Family::of(&nlri.prefix)].push(*nlri),
        }
    }
    for family in Family::ALL {
        message::withdraw(out, terms, family, batch.withdrawn[family].iter().copied());
    }
    for (attributes, _, family, routes) in &batch.announced {
        tell(out, terms, attributes, *family, routes);
    }
}

/// The prefixes that messages of our own are about.
pub(super) fn prefixes(messages: &[Arc<[u8]>], terms: &Negotiated) -> BTreeSet<Nlri> {
    // As who is sent them reads them; what they say of the routes does not matter.
    let terms = Negotiated { add_path_in: terms.add_path_out, relation: Relation::Internal, ..terms.clone() };
    let mut prefixes = BTreeSet::new();
    for bytes in messages {
        let mut rest = &bytes[..];
        while let Ok(Some(frame)) = message::frame(rest, terms.extended_messages) {
            rest = rest.get(frame.length()..).unwrap_or_default();
            if let Ok(Message::Update(update)) = Message::decode(&frame, Some(&terms)) {
                prefixes.extend(update.withdrawn().flat_map(|list| list.iter()));
                prefixes.extend(update.into_announced().flat_map(|(_, list)| list.iter()));
            }
        }
    }
    prefixes
}
