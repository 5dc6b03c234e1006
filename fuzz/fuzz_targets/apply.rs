//! Server-side apply of a configuration to an object, both hostile: owners of any form, schemas of any form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use weft_apiserver::apply_by_force;

fn check(schema: Option<&Value>, live: &Value, config: &Value) {
    let Ok(once) = apply_by_force(schema, live, config) else { return };
    let twice = apply_by_force(schema, &once, config).expect("what was applied can be applied again");
    assert_eq!(once, twice);
}

fuzz_target!(|data: &[u8]| {
    let Ok(Value::Array(mut parts)) = serde_json::from_slice(data) else { return };
    parts.resize(3, Value::Null);
    let [live, config, schema] = &parts[..] else { return };
    if !live.is_object() || !config.is_object() {
        return;
    }
    check(None, live, config);
    check(Some(schema), live, config);
});
