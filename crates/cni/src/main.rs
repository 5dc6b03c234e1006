//! `weft-cni`: the CNI plugins. A link to it with a plugin's name is that plugin; under its own
//! name it is the one that the configuration's `type` names.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let name = std::env::args_os().next();
    weft_cni::run(name.as_deref(), &|key| std::env::var_os(key), std::io::stdin(), std::io::stdout())
}
