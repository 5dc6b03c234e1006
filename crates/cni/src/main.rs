//! `weft-cni`: the CNI plugins. A link to it with a plugin's name is that plugin; under its own
//! name it is the one that the configuration's `type` names. `dhcp daemon` is the daemon that
//! holds the leases.

#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

use weft_cni::protocol::input::Input;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next();
    let is_dhcp =
        name.as_ref().is_some_and(|name| Path::new(name).file_name().is_some_and(|file| file == "dhcp"));
    if is_dhcp && arguments.next().is_some_and(|argument| argument == "daemon") {
        return weft_cni::dhcp_daemon(arguments.map(|argument| argument.to_string_lossy().into_owned()));
    }
    let input = Input(std::io::stdin());
    weft_cni::run(name.as_deref(), &|key| std::env::var_os(key), input, std::io::stdout())
}
