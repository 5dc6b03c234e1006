//! YAML and JSON documents → manifests, or an error that names the place.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = weft_lab::manifest::parse_text("fuzz.yaml", text);
    }
});
