//! Server-side apply of a configuration to an object, both hostile: owners of any form, schemas of any form.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use weft_apiserver::{Resource, apply_by_force, kinds};

fn check(r: &Resource, live: &Value, config: &Value) {
    let Ok(once) = apply_by_force(r, live, config, "fuzz") else { return };
    let twice = apply_by_force(r, &once, config, "fuzz").expect("what was applied can be applied again");
    assert_eq!(once, twice);
}

fuzz_target!(|data: &[u8]| {
    let Ok(Value::Array(mut parts)) = serde_json::from_slice(data) else { return };
    parts.resize(3, Value::Null);
    let [live, config, schema] = &parts[..] else { return };
    if !live.is_object() || !config.is_object() {
        return;
    }
    check(&kinds::DEPLOYMENTS, live, config);
    let custom = Resource { schema: Some(Arc::new(schema.clone())), ..kinds::DEPLOYMENTS.clone() };
    check(&custom, live, config);
});
