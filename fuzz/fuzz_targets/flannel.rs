//! A Node object's annotations of flannel → what they announce, or what makes no sense of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_fabric::flannel;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(node) = weft_store::decode_node(text) else { return };
    match flannel::read(&node.name, &node.flannel) {
        Ok(_) => {}
        Err(problem) => assert!(problem.to_string().len() < 2048, "a short sentence"),
    }
});
