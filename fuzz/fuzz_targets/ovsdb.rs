//! Answers of an Open vSwitch database.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let third = data.len() / 3;
    weft_cni::fuzzing::ovsdb_answers(&[&data[..third], &data[third..]]);
});
