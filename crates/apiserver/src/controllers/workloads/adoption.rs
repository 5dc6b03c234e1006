//! Whose pods are whose by labels: an owner takes what fits its selector and nobody controls, and lets go of
//! what does not fit any more.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::super::action::Action;
use super::super::world::{Key, World};
use super::{object, template};
use crate::label_selector;
use crate::registry::Part;

/// What the kind of a workload is made of.
fn parts_of(kind: &str) -> &'static str {
    if kind == "deployments.apps" { "replicasets.apps" } else { "pods" }
}

/// A workload's selector; that of a ReplicationController has no matchLabels.
pub(super) fn selector(owner: &Value) -> Cow<'_, Value> {
    let selector = &owner["spec"]["selector"];
    match owner["kind"] == "ReplicationController" {
        true => Cow::Owned(json!({"matchLabels": selector})),
        false => Cow::Borrowed(selector),
    }
}

/// Whether an object is what its owner's selector asks for; without a selector all is.
pub(super) fn fits(selector: &Value, part: &Value) -> bool {
    selector.is_null() || label_selector::matches(selector, &part["metadata"]["labels"])
}

/// The writes that take in what fits and nobody controls. They come before anything new is made.
pub(super) fn adopt(world: &World, key: &Key, owner: &Value) -> Vec<Action> {
    let (kind, selector) = (parts_of(&key.kind), selector(owner));
    let nobodys = |part: &&Value| {
        object::controller(part).is_none()
            && !object::terminating(part)
            && !object::finished(part)
            && label_selector::matches(&selector, &part["metadata"]["labels"])
    };
    let take = |part: &Value| {
        let mut owners = part["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
        owners.extend(template::owned_by(owner).as_array().cloned().unwrap_or_default());
        set_owners(kind, part, &Value::Array(owners))
    };
    if kind == "pods" {
        let labels = selector["matchLabels"].as_object();
        return world.labelled(&key.namespace, labels).filter(nobodys).map(take).collect();
    }
    let sets = world.in_namespace(kind, &key.namespace).map(|(_, set)| &**set);
    sets.filter(nobodys).map(take).collect()
}

/// The writes that let go of what does not fit any more.
pub(super) fn release(world: &World, key: &Key, owner: &Value) -> Vec<Action> {
    let (kind, uid, selector) = (parts_of(&key.kind), object::uid(owner), selector(owner));
    let own = world.owned(uid, kind).map(|part| &**part);
    let strangers = own.filter(|part| {
        object::controller(part) == Some(uid) && !object::terminating(part) && !fits(&selector, part)
    });
    strangers
        .map(|part| {
            let left: Value = object::owners(part).filter(|owner| owner["uid"] != uid).cloned().collect();
            set_owners(kind, part, &left)
        })
        .collect()
}

fn set_owners(kind: &str, part: &Value, owners: &Value) -> Action {
    let key = Key::new(kind, object::namespace(part), object::name(part));
    let patch = json!({"metadata": {"uid": object::uid(part), "ownerReferences": owners}});
    Action::Patch { key, part: Part::Whole, patch }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_compared_in_place() {
        let part = |app: &str| json!({"metadata": {"labels": {"app": app}}});
        let labels = json!({"app": "web"});
        let set = json!({"kind": "ReplicaSet", "spec": {"selector": {"matchLabels": labels}}});
        let controller = json!({"kind": "ReplicationController", "spec": {"selector": labels}});
        assert!(matches!(selector(&set), Cow::Borrowed(_)), "nothing is copied");
        for owner in [&set, &controller] {
            let selector = selector(owner);
            assert!(fits(&selector, &part("web")) && !fits(&selector, &part("db")), "{selector}");
        }
        assert!(fits(&selector(&json!({"kind": "Job", "spec": {}})), &part("db")), "no selector");
    }
}
