//! Captured frames → decoded headers.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = weft_observe::decode::frame(data);
});
