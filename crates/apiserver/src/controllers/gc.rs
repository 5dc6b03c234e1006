//! What goes because something else went: owners, nodes, namespaces.

use serde_json::Value;

use super::action::Action;
use super::object;
use super::world::{Key, World};

/// The deletion that an object is due, if any.
pub(super) fn plan(world: &World, key: &Key, object: &Value) -> Vec<Action> {
    let uid = || object::uid(object).to_owned();
    if &*key.kind == "namespaces" && object::terminating(object) {
        return vec![Action::Empty { namespace: key.name.clone(), uid: uid() }];
    }
    if &*key.kind == "pods" && object::node_of(object).is_some_and(|node| world.lost_nodes.contains(node)) {
        return vec![Action::Delete { key: key.clone(), uid: uid(), grace: Some(0) }];
    }
    if object::terminating(object) {
        return Vec::new();
    }
    match absent_owners(world, key, object) {
        Some(owners) => vec![Action::Collect { key: key.clone(), uid: uid(), owners }],
        None => Vec::new(),
    }
}

/// The owners, when there are some and none is known to exist. An owner of a kind that is not
/// watched may exist.
fn absent_owners(world: &World, key: &Key, object: &Value) -> Option<Vec<(Key, String)>> {
    let mut absent = Vec::new();
    for owner in object::owners(object) {
        let text = |field: &str| owner[field].as_str().unwrap_or_default().to_owned();
        let uid = text("uid");
        let kind = world.kinds.get(&(text("apiVersion"), text("kind")))?;
        if world.has_uid(&uid) {
            return None;
        }
        // An owner is in the same namespace, or in none; which, the lookup settles by the kind.
        absent.push((Key { kind: kind.clone(), namespace: key.namespace.clone(), name: text("name") }, uid));
    }
    (!absent.is_empty()).then_some(absent)
}
