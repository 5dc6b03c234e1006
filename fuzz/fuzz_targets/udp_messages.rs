//! Messages of the udp tunnel's peers → frames of the device, joined where they follow.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| weft_fabric::udp::fuzz::messages(data));
