//! What makes an event bad.

use serde_json::{Value, json};

use crate::strategy::field::{Errors, Path};
use crate::strategy::format;
use crate::strategy::value::{text, unset};

/// Checks a new event, or a changed one.
pub(super) fn check(event: &Value, old: Option<&Value>, errors: &mut Errors) {
    let about = &event["involvedObject"]["namespace"];
    let own = text(&event["metadata"]["namespace"]);
    let newer = !unset(&event["eventTime"]);
    // An event about what is in no namespace is in the default one, or the system's.
    let fits = match text(about) {
        "" => own == "default" || (newer && own == "kube-system"),
        about => newer || about == own,
    };
    if !fits {
        let at = Path::new("involvedObject").field("namespace");
        errors.invalid(&at, &json!(text(about)), "does not match event.namespace");
    }
    if newer && old.is_none() {
        check_newer(event, errors);
    }
}

/// An event with a time of its own says more than the older ones did.
fn check_newer(event: &Value, errors: &mut Errors) {
    let controller = &event["reportingComponent"];
    if unset(controller) {
        errors.required(&Path::new("reportingController"), "");
    } else {
        let broken = format::label_key(text(controller));
        errors.all(&Path::new("reportingController"), controller, broken);
    }
    for field in ["reportingInstance", "action", "reason"] {
        if unset(&event[field]) {
            errors.required(&Path::new(field), "");
        } else if text(&event[field]).len() > 128 {
            errors.invalid(&Path::new(field), &json!(""), "can have at most 128 characters");
        }
    }
    if text(&event["message"]).len() > 1024 {
        errors.invalid(&Path::new("message"), &json!(""), "can have at most 1024 characters");
    }
}
