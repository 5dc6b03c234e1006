//! A prevResult of any version → the result it says → the same in every other version.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_cni::protocol::result::CniResult;
use weft_cni::protocol::version::Version;

fuzz_target!(|data: &[u8]| {
    let Ok(value) = serde_json::from_slice(data) else { return };
    for from in Version::ALL {
        if let Ok(result) = CniResult::from_value(&value, from) {
            for to in Version::ALL {
                let _ = result.to_value(to);
            }
        }
    }
});
