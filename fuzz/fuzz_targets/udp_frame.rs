//! A frame of the udp tunnel's device → datagrams and ICMP errors.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| weft_fabric::udp::fuzz::frame(data));
