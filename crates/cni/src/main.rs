//! `weft-cni`: the CNI plugins. Under the name `bridge`, `host-local` or `loopback` it is that
//! plugin; under any other it is the one that the configuration's `type` names.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let name = std::env::args_os().next();
    weft_cni::run(name.as_deref(), &|key| std::env::var_os(key), std::io::stdin(), std::io::stdout())
}
