//! Events: one kind in two groups. They are kept as the core group has them.

use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::kinds;
use crate::resource::Resource;

/// What fields are called in the core group, and in events.k8s.io.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// Whether a kind is the events of events.k8s.io.
pub(crate) fn is_newer(r: &Resource) -> bool {
    r.group == "events.k8s.io" && r.plural == "events"
}

/// The kind as which objects of this one are kept.
pub(crate) fn kept_as(r: &Resource) -> &Resource {
    if is_newer(r) { &kinds::EVENTS } else { r }
}

/// An event of events.k8s.io as it is kept.
pub(crate) fn to_core(event: &mut Value) {
    rename(event, |name| NAMES.iter().find(|(_, newer)| *newer == name).map(|(core, _)| *core));
    event["apiVersion"] = json!("v1");
}

/// A kept event as events.k8s.io has it.
pub(crate) fn to_newer(event: &mut Value) {
    rename(event, |name| NAMES.iter().find(|(core, _)| *core == name).map(|(_, newer)| *newer));
    event["apiVersion"] = json!("events.k8s.io/v1");
}

/// Changes a kept event as events.k8s.io has it.
pub(crate) fn changed_as_newer(
    event: &mut Value,
    change: &mut impl FnMut(&mut Value) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    to_newer(event);
    change(event)?;
    to_core(event);
    Ok(())
}

fn rename(event: &mut Value, to: impl Fn(&str) -> Option<&'static str>) {
    let Some(map) = event.as_object_mut() else { return };
    let old: Map<String, Value> = std::mem::take(map);
    map.extend(old.into_iter().map(|(name, value)| (to(&name).map_or(name, str::to_owned), value)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_comes_back_as_it_was() {
        let newer = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
            "regarding": {"kind": "Pod"}, "note": "n", "reportingController": "c", "deprecatedCount": 2});
        let mut event = newer.clone();
        to_core(&mut event);
        assert_eq!(event["involvedObject"]["kind"], "Pod");
        assert_eq!((&event["message"], &event["count"]), (&json!("n"), &json!(2)));
        to_newer(&mut event);
        assert_eq!(event, newer);
    }
}
