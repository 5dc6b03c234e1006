//! The history on disk: for each change what was there before it.
//!
//! That is enough to tell every event again: what an object was after one change is what it was before
//! the next one, or is now. So no object is written twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::storage::log::Event;
use crate::storage::object::Object;

/// One change, as it can be undone.
#[derive(Debug)]
pub(super) struct Undo {
    rv: u64,
    key: Arc<str>,
    previous: Option<Arc<Object>>,
}

impl Undo {
    /// The bytes: the key, a zero byte, the object before the change or nothing.
    pub(super) fn write(key: &str, previous: Option<&Object>) -> Vec<u8> {
        let text = previous.map_or("", |o| o.json());
        [key.as_bytes(), &[0], text.as_bytes()].concat()
    }

    /// Reads what [`Undo::write`] wrote.
    pub(super) fn read(rv: u64, bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| format!("the change {rv} is no text"))?;
        let (key, text) = text.split_once('\0').ok_or_else(|| format!("the change {rv} has no key"))?;
        let previous = match text {
            "" => None,
            text => Some(Arc::new(Object::from_text(key, text)?)),
        };
        Ok(Self { rv, key: key.into(), previous })
    }
}

/// The events of changes, which come in order, given the objects as they are now.
pub(super) fn events(undo: Vec<Undo>, objects: &BTreeMap<Arc<str>, Arc<Object>>) -> Vec<Arc<Event>> {
    let mut later: BTreeMap<Arc<str>, Option<Arc<Object>>> = BTreeMap::new();
    let mut events = Vec::with_capacity(undo.len());
    for Undo { rv, key, previous } in undo.into_iter().rev() {
        let after = later.insert(key.clone(), previous.clone());
        let after = after.unwrap_or_else(|| objects.get(&key).cloned());
        events.extend(Event::new(key, rv, previous, after).map(Arc::new));
    }
    events.reverse();
    events
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::storage::log::EventKind;

    #[test]
    fn events_are_told_again() {
        let object =
            |rv: u64| Arc::new(Object::new("g/k/a", &mut json!({"metadata": {}, "n": rv}), rv).unwrap());
        let undo = |rv, previous: Option<u64>| {
            let previous = previous.map(object);
            Undo::read(rv, &Undo::write("g/k/a", previous.as_deref())).unwrap()
        };
        let changes = || vec![undo(1, None), undo(2, Some(1)), undo(3, Some(2)), undo(4, None)];
        let now = BTreeMap::from([(Arc::from("g/k/a"), object(4))]);
        let told: Vec<_> = events(changes(), &now)
            .iter()
            .map(|e| (e.kind, e.rv, e.object.to_value()["n"].clone()))
            .collect();
        let expected = [
            (EventKind::Added, 1, 1),
            (EventKind::Modified, 2, 2),
            (EventKind::Deleted, 3, 2),
            (EventKind::Added, 4, 4),
        ];
        assert_eq!(told, expected.map(|(kind, rv, n)| (kind, rv, json!(n))));
        assert!(
            Undo::read(1, b"no key").is_err()
                && Undo::read(1, b"k\0{").is_err()
                && Undo::read(1, &[255]).is_err()
        );
    }
}
