//! Lines of a watch → events, and their objects → the model.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_store::Event;

fuzz_target!(|data: &[u8]| {
    for line in data.split(|byte| *byte == b'\n') {
        if let Ok(event) = serde_json::from_slice::<Event>(line) {
            let _ = event.value();
            let _ = weft_store::decode_pod(event.object.get());
        }
    }
});
