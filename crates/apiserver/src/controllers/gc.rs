//! What goes because something else went: owners, nodes, namespaces; and what waits for its dependents.

use serde_json::Value;

use super::action::Action;
use super::object;
use super::world::{Key, World};
use crate::strategy::{FOREGROUND, ORPHAN, has_finalizer};

/// The deletion that an object is due, or what its own deletion waits for, if any.
pub(super) fn plan(world: &World, key: &Key, object: &Value) -> Vec<Action> {
    let uid = || object::uid(object).to_owned();
    if &*key.kind == "namespaces" && object::terminating(object) {
        return vec![Action::Empty { namespace: key.name.to_string(), uid: uid() }];
    }
    if &*key.kind == "pods" && object::node_of(object).is_some_and(|node| world.lost_nodes.contains(node)) {
        return vec![Action::Delete { key: key.clone(), uid: uid(), grace: Some(0) }];
    }
    if object::terminating(object) { release(world, key, object) } else { follow(world, key, object) }
}

/// Lets a deleted object go when its dependents are as its deletion wanted them.
fn release(world: &World, key: &Key, object: &Value) -> Vec<Action> {
    let uid = object::uid(object);
    let done = |finalizer| vec![Action::Release { key: key.clone(), uid: uid.to_owned(), finalizer }];
    if has_finalizer(object, ORPHAN) {
        let disown = |(dependent, value): (&Key, &std::sync::Arc<Value>)| Action::Disown {
            key: dependent.clone(),
            uid: object::uid(value).to_owned(),
            owners: vec![(key.clone(), uid.to_owned())],
        };
        let left: Vec<Action> = world.dependents(uid).map(disown).collect();
        return if left.is_empty() { done(ORPHAN) } else { left };
    }
    if has_finalizer(object, FOREGROUND) {
        let blocks = |owner: &Value| owner["uid"] == uid && owner["blockOwnerDeletion"] == true;
        let blocked = world.dependents(uid).any(|(_, dependent)| object::owners(dependent).any(blocks));
        return if blocked { Vec::new() } else { done(FOREGROUND) };
    }
    Vec::new()
}

/// How an object stands to its owners.
#[derive(Default)]
struct Owners {
    /// Known not to exist.
    absent: Vec<(Key, String)>,
    /// Being deleted, after their dependents.
    waiting: Vec<(Key, String)>,
    /// There, or of a kind that is not watched.
    solid: bool,
}

/// The deletion of an object whose owners went, or wait for it to go.
fn follow(world: &World, key: &Key, object: &Value) -> Vec<Action> {
    let owners = owners(world, key, object);
    let (key, uid) = (key.clone(), object::uid(object).to_owned());
    match owners {
        Owners { solid: true, mut absent, waiting } => {
            absent.extend(waiting);
            if absent.is_empty() { Vec::new() } else { vec![Action::Disown { key, uid, owners: absent }] }
        }
        Owners { waiting, .. } if !waiting.is_empty() => {
            let foreground = world.dependents(&uid).next().is_some();
            vec![Action::Cascade { key, uid, foreground }]
        }
        Owners { absent, .. } if !absent.is_empty() => vec![Action::Collect { key, uid, owners: absent }],
        _ => Vec::new(),
    }
}

fn owners(world: &World, key: &Key, object: &Value) -> Owners {
    let mut found = Owners::default();
    for owner in object::owners(object) {
        let text = |field: &str| owner[field].as_str().unwrap_or_default().to_owned();
        let uid = text("uid");
        let Some(kind) = world.kinds.get(&(text("apiVersion"), text("kind"))) else {
            found.solid = true;
            continue;
        };
        // An owner is in the same namespace, or in none; which, the lookup settles by the kind.
        let place = Key { kind: kind.clone(), namespace: key.namespace.clone(), name: text("name").into() };
        match world.by_uid(&uid) {
            None => found.absent.push((place, uid)),
            Some(owner) if object::terminating(owner) && has_finalizer(owner, FOREGROUND) => {
                found.waiting.push((place, uid));
            }
            Some(_) => found.solid = true,
        }
    }
    found
}
