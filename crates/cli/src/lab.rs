//! `weft lab …`.

mod apply;
mod check;
mod neighbours;
mod pools;
mod status;
mod up;

use std::path::Path;

use anyhow::Context as _;
use weft_lab::config::LabConfig;
use weft_lab::state::LabState;
use weft_lab::{down, exec};
use weft_store::Api;

use crate::args::{DownArgs, LabCommand};
use crate::{exit, output};

pub(crate) fn run(command: LabCommand) -> anyhow::Result<u8> {
    match command {
        LabCommand::Up(options) => up::run(&options),
        LabCommand::Apply(options) => apply::run(&options),
        LabCommand::Status(options) => status::run(&options),
        LabCommand::Check(options) => check::run(&options),
        LabCommand::Exec(options) => {
            let state = LabState::open(&options.lab.name)?;
            exec::exec(&state, &options.target, &options.command)
        }
        LabCommand::Kubeconfig { lab } => kubeconfig(&lab.name),
        LabCommand::Down(options) => take_down(&options),
    }
}

fn kubeconfig(name: &str) -> anyhow::Result<u8> {
    let state = LabState::open(name)?;
    state.require_alive()?;
    output::line(&state.kubeconfig().display().to_string());
    Ok(exit::DONE)
}

fn take_down(options: &DownArgs) -> anyhow::Result<u8> {
    if !options.all {
        output::line(&down::down(&options.lab.name)?.to_string());
        return Ok(exit::DONE);
    }
    let reports = down::down_all()?;
    reports.iter().for_each(|report| output::line(&report.to_string()));
    if reports.is_empty() {
        output::line("there is no lab: nothing to do");
    }
    Ok(exit::DONE)
}

/// A lab that runs, as seen from the machine.
struct Running {
    state: LabState,
    config: LabConfig,
}

impl Running {
    fn open(name: &str) -> anyhow::Result<Running> {
        let state = LabState::open(name)?;
        let (info, _) = state.require_alive()?;
        Ok(Running { state, config: info.config })
    }

    /// A client of its API; within a runtime.
    async fn api(&self) -> anyhow::Result<Api> {
        client(&self.state.kubeconfig()).await
    }
}

pub(crate) async fn client(kubeconfig: &Path) -> anyhow::Result<Api> {
    Api::from_kubeconfig(kubeconfig).await.context("cannot use the lab's kubeconfig")
}
