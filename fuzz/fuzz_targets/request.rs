//! Paths and queries: selectors, continue tokens, versions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_apiserver::read_request;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let _ = read_request(path, query);
    for parameter in ["continue", "labelSelector", "fieldSelector"] {
        let _ = read_request("/api/v1/pods", &format!("{parameter}={}", query.replace(['&', '='], "%3d")));
    }
});
