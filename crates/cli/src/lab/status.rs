use std::time::{Duration, Instant};

use weft_lab::status::{Status, collect, render, summary};
use weft_store::Api;

use super::Running;
use crate::args::{StatusArgs, StatusOutput};
use crate::output::Progress;
use crate::{daemons, exit, output};

/// The time between two looks while waiting.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) fn run(options: &StatusArgs) -> anyhow::Result<u8> {
    let lab = Running::open(&options.lab.name)?;
    let status = daemons::runtime()?.block_on(async {
        let api = lab.api().await?;
        if options.wait {
            wait(&lab, &api, options.timeout).await?;
        }
        anyhow::Ok(collect(&api, &lab.config, lab.state.dir(), true).await?)
    })?;
    let colour = output::colour(&std::io::stdout());
    match options.output {
        StatusOutput::Text => output::print(&render(&status, false, colour)),
        StatusOutput::Wide => output::print(&render(&status, true, colour)),
        StatusOutput::Json => output::line(&serde_json::to_string_pretty(&status)?),
        StatusOutput::Yaml => output::print(&serde_saphyr::to_string(&status)?),
    }
    Ok(if status.ready || !options.wait { exit::DONE } else { exit::FALSE })
}

/// How long only what waiting does not change must be left, before waiting ends: an agent that
/// just started may refuse peers that it does not know well yet.
const SETTLED: Duration = Duration::from_secs(2);

/// Waits until all is ready, nothing is left that waiting would change, or the time is over;
/// how it then is.
pub(super) async fn wait(lab: &Running, api: &Api, patience: Duration) -> anyhow::Result<Status> {
    let mut progress = Progress::new();
    let deadline = Instant::now() + patience;
    let mut unsettled = Instant::now();
    loop {
        let looked = Instant::now();
        let status = collect(api, &lab.config, lab.state.dir(), false).await?;
        if status.not_ready.iter().any(|entry| !entry.settled) {
            unsettled = Instant::now();
        }
        if status.ready || unsettled.elapsed() >= SETTLED || Instant::now() >= deadline {
            return Ok(status);
        }
        progress.say(|| format!("waiting: {}", summary(&status)));
        // A look at a large lab takes longer than the pause: leave the lab time to work.
        tokio::time::sleep(PAUSE.max(looked.elapsed() * 2)).await;
    }
}
