//! An object of the API → a Node or a Pod of the model, or what makes no sense of it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = weft_store::decode_node(text);
        let _ = weft_store::decode_pod(text);
    }
});
