//! A network configuration of any plugin → what each plugin makes of it before it does anything.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // Files that a configuration names are read: no special ones here.
    if !data.windows(11).any(|part| part == b"\"resolvConf") {
        let _ = weft_cni::validate::validate(data, &[]);
    }
});
