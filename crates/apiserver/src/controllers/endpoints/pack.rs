//! Endpoints into slices: what is in a slice stays there, and a change touches as few slices as it can.

use std::collections::HashMap;

use serde_json::Value;

use super::endpoint::Endpoint;

/// Endpoints in one slice at most.
pub(super) const ROOM: usize = 100;

/// What a slice's endpoints become.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) endpoints: Value,
    /// When the first of the pods changed of which this tells.
    pub(super) since: Option<String>,
}

/// A slice that stays.
pub(super) struct Kept<'a> {
    pub(super) old: &'a Value,
    /// None when its endpoints are as they should be.
    pub(super) endpoints: Option<Change>,
}

/// The slices of one family and port set.
pub(super) struct Packed<'a> {
    pub(super) kept: Vec<Kept<'a>>,
    pub(super) dropped: Vec<&'a Value>,
    pub(super) new: Vec<Change>,
}

struct Draft<'a> {
    old: &'a Value,
    endpoints: Vec<Endpoint>,
    changed: bool,
    since: Option<String>,
}

impl Draft<'_> {
    fn room(&self) -> usize {
        ROOM.saturating_sub(self.endpoints.len())
    }

    fn add(&mut self, more: impl Iterator<Item = Endpoint>) {
        for endpoint in more {
            self.changed = true;
            earliest(&mut self.since, endpoint.since.as_ref());
            self.endpoints.push(endpoint);
        }
    }
}

fn earliest(since: &mut Option<String>, other: Option<&String>) {
    if let Some(other) = other
        && since.as_ref().is_none_or(|since| other < since)
    {
        *since = Some(other.clone());
    }
}

/// Puts the endpoints into the existing slices, and into new ones where these have no room.
pub(super) fn pack<'a>(existing: &[&'a Value], endpoints: Vec<Endpoint>) -> Packed<'a> {
    let empty = endpoints.is_empty();
    let mut order: Vec<String> = Vec::with_capacity(endpoints.len());
    let mut wanted: HashMap<String, Endpoint> = HashMap::with_capacity(endpoints.len());
    for endpoint in endpoints {
        order.push(endpoint.uid.clone());
        wanted.insert(endpoint.uid.clone(), endpoint);
    }
    let mut drafts: Vec<Draft<'_>> = existing.iter().map(|slice| keep(slice, &mut wanted)).collect();
    let mut added: Vec<Endpoint> = order.iter().filter_map(|uid| wanted.remove(uid)).collect();
    fill(&mut drafts, &mut added);
    let mut packed = Packed { kept: Vec::new(), dropped: Vec::new(), new: Vec::new() };
    for draft in drafts {
        let spare = !packed.kept.is_empty() || !empty;
        if draft.endpoints.is_empty() && spare {
            packed.dropped.push(draft.old);
            continue;
        }
        let endpoints = draft.changed.then(|| change(draft.endpoints, draft.since));
        packed.kept.push(Kept { old: draft.old, endpoints });
    }
    let mut added = added.into_iter().peekable();
    while added.peek().is_some() || (packed.kept.is_empty() && packed.new.is_empty()) {
        let endpoints: Vec<Endpoint> = added.by_ref().take(ROOM).collect();
        let mut since = None;
        endpoints.iter().for_each(|endpoint| earliest(&mut since, endpoint.since.as_ref()));
        packed.new.push(change(endpoints, since));
    }
    packed
}

/// A slice with those of its endpoints that are still wanted, as they are now.
fn keep<'a>(old: &'a Value, wanted: &mut HashMap<String, Endpoint>) -> Draft<'a> {
    let mut draft = Draft { old, endpoints: Vec::new(), changed: false, since: None };
    for present in super::object::list(&old["endpoints"]) {
        let uid = present["targetRef"]["uid"].as_str().unwrap_or_default();
        let endpoint = if draft.endpoints.len() < ROOM { wanted.remove(uid) } else { None };
        let Some(endpoint) = endpoint else {
            draft.changed = true;
            continue;
        };
        if endpoint.value != *present {
            draft.changed = true;
            earliest(&mut draft.since, endpoint.since.as_ref());
        }
        draft.endpoints.push(endpoint);
    }
    draft
}

/// Adds to slices that change anyway first, the fullest first; then to as few others as hold the rest.
fn fill(drafts: &mut [Draft<'_>], added: &mut Vec<Endpoint>) {
    let mut changing: Vec<&mut Draft<'_>> = drafts.iter_mut().filter(|draft| draft.changed).collect();
    changing.sort_by_key(|draft| draft.room());
    for draft in changing {
        let part = draft.room().min(added.len());
        draft.add(added.drain(..part));
    }
    // A full slice's worth is better made new than spread over others.
    while !added.is_empty() && added.len() < ROOM {
        let with_room = drafts.iter_mut().filter(|draft| draft.room() > 0);
        let wanted = added.len();
        let Some(draft) =
            with_room.min_by_key(|draft| (draft.room() < wanted, draft.room().abs_diff(wanted)))
        else {
            return;
        };
        let part = draft.room().min(wanted);
        draft.add(added.drain(..part));
    }
}

fn change(endpoints: Vec<Endpoint>, since: Option<String>) -> Change {
    Change { endpoints: endpoints.into_iter().map(|endpoint| endpoint.value).collect(), since }
}
