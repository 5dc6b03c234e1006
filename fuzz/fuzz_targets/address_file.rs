//! An address file of host-local → the attachment that owns it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_ipam::host_local::owner_of;

fuzz_target!(|data: &[u8]| {
    if let Some((container_id, _)) = owner_of(data) {
        assert!(!container_id.is_empty());
    }
});
