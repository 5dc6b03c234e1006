//! What is to be told at once: prefixes by attributes, so that as few UPDATEs as can be say it.

use std::collections::HashMap;
use std::sync::Arc;

use super::PeerId;
use crate::message::{self, Attributes, Negotiated, Nlri};
use crate::{Family, PerFamily};

/// What the group was told of a path.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) attributes: Arc<Attributes>,
    pub(super) source: PeerId,
    /// 0 where only the best path is told.
    pub(super) number: u32,
}

/// What is to be told at once.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) announced: Vec<(Arc<Attributes>, PeerId, Family, Vec<Nlri>)>,
    places: HashMap<(usize, PeerId, Family), usize>,
    pub(super) withdrawn: PerFamily<Vec<Nlri>>,
    /// Those to whom the new source was told another one before.
    pub(super) withdrawn_from: Vec<(PeerId, Nlri)>,
}

impl Batch {
    pub(super) fn announce(&mut self, told: &Told, nlri: Nlri) {
        let family = Family::of(&nlri.prefix);
        let key = (Arc::as_ptr(&told.attributes).addr(), told.source, family);
        let last = self.announced.last_mut().filter(|(attributes, source, of, _)| {
            Arc::ptr_eq(attributes, &told.attributes) && (*source, *of) == (told.source, family)
        });
        if let Some((.., routes)) = last {
            return routes.push(nlri);
        }
        let place = *self.places.entry(key).or_insert_with(|| {
            self.announced.push((told.attributes.clone(), told.source, family, Vec::new()));
            self.announced.len() - 1
        });
        if let Some((.., routes)) = self.announced.get_mut(place) {
            routes.push(nlri);
        }
    }
}

/// Announces routes; where their attributes fit into no message, nobody is to have them.
pub(super) fn tell(
    out: &mut Vec<u8>,
    terms: &Negotiated,
    attributes: &Attributes,
    family: Family,
    routes: &[Nlri],
) {
    if message::announce(out, terms, attributes, family, routes.iter().copied()).is_err() {
        message::withdraw(out, terms, family, routes.iter().copied());
    }
}
