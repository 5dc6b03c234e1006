//! `weft bgp`: asks a speaker of this machine.

mod peers;
mod reflector;
mod routes;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use ipnet::IpNet;
use serde::de::DeserializeOwned;
use weft_bgp::speaker::control::{self, Question};

use crate::args::StatusOutput;
use crate::{exit, output};

pub(crate) use reflector::{ReflectorArgs, run as route_reflector};

/// Where the agent's speaker answers.
const AGENT: &str = "/var/lib/weft/agent/bgp.sock";

#[derive(Debug, Subcommand)]
pub(crate) enum BgpCommand {
    /// The sessions of this node's speaker
    #[command(
        alias = "status",
        after_help = "Exits with 1 where a session is not established.\n\nExamples:\n  weft bgp peers\n  weft bgp peers -o wide\n  weft lab exec node/node1 -- weft bgp peers"
    )]
    Peers(SpeakerArgs),
    /// The paths that it knows
    #[command(
        after_help = "In front of a prefix: > the best path, = one that packets take too, s one of a neighbour that is gone and may come again.\n\nExamples:\n  weft bgp routes\n  weft bgp routes 10.244.0.0/16 --neighbour rack1\n  weft bgp routes -o json | jq length"
    )]
    Routes(RoutesArgs),
    /// Why a path won: each path to a prefix, and the step of the decision by which another is better
    #[command(
        after_help = "Exits with 1 where there is no path.\n\nExample:\n  weft bgp explain 10.244.3.0/24"
    )]
    Explain {
        /// The prefix, exactly
        prefix: IpNet,
        #[command(flatten)]
        speaker: SpeakerArgs,
    },
    /// End a session; it begins again at once, also where too many prefixes had ended it
    #[command(after_help = "Example:\n  weft bgp reset rack1 --message 'new filters'")]
    Reset {
        /// The neighbour's name
        neighbour: String,
        /// What its people are told (RFC 9003)
        #[arg(long, default_value = "")]
        message: String,
        #[command(flatten)]
        speaker: SpeakerArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SpeakerArgs {
    /// The socket of the speaker
    #[arg(long, default_value = AGENT, env = "WEFT_BGP_SOCKET")]
    socket: PathBuf,
    #[arg(short, long, value_enum, default_value_t = StatusOutput::Text)]
    output: StatusOutput,
}

#[derive(Debug, Args)]
pub(crate) struct RoutesArgs {
    /// Inside of this prefix alone
    within: Option<IpNet>,
    /// From this neighbour alone
    #[arg(long)]
    neighbour: Option<String>,
    /// So many at most; 0: all
    #[arg(long, default_value_t = 0)]
    limit: usize,
    #[command(flatten)]
    speaker: SpeakerArgs,
}

pub(crate) fn run(command: BgpCommand) -> anyhow::Result<u8> {
    match command {
        BgpCommand::Peers(speaker) => peers::run(&speaker),
        BgpCommand::Routes(options) => routes::list(options),
        BgpCommand::Explain { prefix, speaker } => routes::explain(prefix, &speaker),
        BgpCommand::Reset { neighbour, message, speaker } => {
            let question = Question::Reset { neighbour: neighbour.clone(), text: message };
            if !ask(&speaker, &question)? {
                output::complain(&format!("there is no neighbour {neighbour}: weft bgp peers lists them"));
                return Ok(exit::FALSE);
            }
            Ok(exit::DONE)
        }
    }
}

fn ask<T: DeserializeOwned>(speaker: &SpeakerArgs, question: &Question) -> anyhow::Result<T> {
    let at = speaker.socket.display();
    control::ask(&speaker.socket, question).with_context(|| {
        format!("cannot ask a BGP speaker at {at}: does one run here, and are you its user?")
    })
}
