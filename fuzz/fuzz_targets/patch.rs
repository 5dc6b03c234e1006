//! Patches of every type, on an object that is as hostile.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use weft_apiserver::Patch;

fuzz_target!(|data: &[u8]| {
    let Ok(Value::Array(mut pair)) = serde_json::from_slice(data) else { return };
    let (Some(patch), Some(object)) = (pair.pop(), pair.pop()) else { return };
    if let Ok(operations) = serde_json::from_value(patch.clone()) {
        let _ = Patch::Json(operations).apply(&mut object.clone());
    }
    let _ = Patch::Strategic(patch.clone()).apply(&mut object.clone());
    let _ = Patch::Merge(patch).apply(&mut object.clone());
});
