//! Request bodies in Kubernetes' protobuf → objects.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = weft_apiserver::decode_protobuf(data);
    let _ = weft_apiserver::decode_protobuf(&[b"k8s\0", data].concat());
});
