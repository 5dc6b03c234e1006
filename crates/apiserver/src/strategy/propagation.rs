//! What becomes of an object's dependents: the finalizers by which the garbage collector knows.

use serde_json::{Value, json};

use crate::options::Propagation;

/// Dependents lose their reference to the object, and then it goes.
pub(crate) const ORPHAN: &str = "orphan";
/// Dependents that block go first, and then the object.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";

/// Sets the finalizers that a deletion asks for; without a wish they stay as they are.
pub(super) fn set_finalizers(meta: &mut Value, wish: Option<Propagation>) {
    let Some(wish) = wish else { return };
    let Some(meta) = meta.as_object_mut() else { return };
    let mut finalizers: Vec<Value> =
        meta.get("finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
    finalizers.retain(|f| f != ORPHAN && f != FOREGROUND);
    match wish {
        Propagation::Orphan => finalizers.push(json!(ORPHAN)),
        Propagation::Foreground => finalizers.push(json!(FOREGROUND)),
        Propagation::Background => {}
    }
    if finalizers.is_empty() {
        meta.remove("finalizers");
    } else {
        meta.insert("finalizers".into(), json!(finalizers));
    }
}

/// Whether an object has a finalizer.
pub(crate) fn has(object: &Value, finalizer: &str) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|list| list.iter().any(|f| f == finalizer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_replaces_the_one_before_it() {
        let after = |before: Value, wish| {
            let mut meta = json!({"finalizers": before});
            set_finalizers(&mut meta, wish);
            meta["finalizers"].clone()
        };
        assert_eq!(after(json!(["a"]), Some(Propagation::Orphan)), json!(["a", "orphan"]));
        assert_eq!(after(json!(["orphan"]), Some(Propagation::Foreground)), json!(["foregroundDeletion"]));
        assert_eq!(after(json!(["orphan"]), Some(Propagation::Background)), Value::Null);
        assert_eq!(after(json!(["orphan"]), None), json!(["orphan"]));
    }
}
