//! Datagrams of the routing socket and of nftables → events.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    weft_kernel::decode_events(data).for_each(drop);
    weft_kernel::nft::decode_traces(data).for_each(drop);
});
