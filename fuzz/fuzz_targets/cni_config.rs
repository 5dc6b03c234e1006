//! Standard input and environment of a CNI call → a validated request, or an error object.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_cni::protocol::args::{Command, ExtraArgs};
use weft_cni::protocol::config;

fuzz_target!(|data: &[u8]| {
    for command in [Command::Add, Command::Del, Command::Check] {
        if let Ok(conf) = config::parse(data, command) {
            let _ = config::version(&conf, command);
            let _ = conf.network();
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = ExtraArgs::parse(text);
    }
});
