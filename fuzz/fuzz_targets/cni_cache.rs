//! What runtimes and plugins leave on disk of an attachment: libcni's cache, and the record of a
//! container that the agent registers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_cni::protocol::record::Record;
use weft_cni::runtime::{Attached, Network};

fuzz_target!(|data: &[u8]| {
    let _ = Network::parse(data);
    if let Ok(attached) = serde_json::from_slice::<Attached>(data) {
        let _ = attached.network();
        let text = serde_json::to_vec(&attached).expect("what was read can be written");
        assert_eq!(serde_json::from_slice::<Attached>(&text).expect("and read again"), attached);
    }
    if let Ok(record) = serde_json::from_slice::<Record>(data) {
        let text = serde_json::to_vec(&record).expect("what was read can be written");
        assert_eq!(serde_json::from_slice::<Record>(&text).expect("and read again"), record);
    }
});
