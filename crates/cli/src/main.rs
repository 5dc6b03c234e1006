//! The executable `weft`: arguments, output, exit codes.
#![forbid(unsafe_code)]

mod apiserver_args;
mod args;
mod bgp;
mod cni;
mod cni_args;
mod controller_args;
mod daemons;
mod docs;
mod etcd_args;
mod exit;
mod flannel;
mod ipam;
mod ipam_args;
mod lab;
mod listing;
mod network;
mod objects;
mod output;
mod proxy_args;
mod service;
mod trace;
mod why;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Command};

/// No runtime is started here: entering a lab's namespaces needs a process with one thread.
/// The API server's writer spent most of its time in the C library's allocator, which searches and merges free
/// chunks again and again where millions of small trees come and go.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Lab(command) => lab::run(command),
        Command::Trace(options) => trace::run(&options),
        Command::Ipam(command) => ipam::run(command),
        Command::Service(command) => service::run(command),
        Command::Why(options) => why::run(&options),
        Command::Agent(options) => daemons::agent(*options),
        Command::Network(command) => network::run(command),
        Command::Bgp(command) => bgp::run(command),
        Command::RouteReflector(options) => bgp::route_reflector(&options),
        Command::Cni(command) => cni::run(*command),
        Command::Controller(options) => daemons::controller(options),
        Command::Apiserver(options) => daemons::apiserver(*options),
        Command::LabDaemon { state } => daemons::lab_daemon(&state),
        Command::Completion { shell } => docs::completion(shell),
        Command::Man { folder } => docs::man(&folder),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::complain(&format!("{error:#}"));
            ExitCode::from(exit::code_of(&error))
        }
    }
}
