//! What the daemon of `dhcp` reads besides packets: its callers' streams and its leases on disk.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    weft_cni::fuzzing::dhcp_lease(data);
    let half = data.len() / 2;
    weft_cni::fuzzing::dhcp_stream(&[&data[..half], &data[half..]]);
});
