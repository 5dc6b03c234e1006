use weft_lab::apply::{Outcome, Report, apply};
use weft_lab::manifest::{self, Manifest};
use weft_store::Api;

use super::Running;
use crate::args::{ApplyArgs, Output};
use crate::output::Progress;
use crate::{daemons, exit, output};

pub(super) fn run(options: &ApplyArgs) -> anyhow::Result<u8> {
    let manifests = manifest::read(&options.filename)?;
    let lab = Running::open(&options.lab.name)?;
    let json = options.output == Output::Json;
    let report = daemons::runtime()?.block_on(async {
        let api = lab.api().await?;
        anyhow::Ok(write(&api, &manifests, !json).await)
    })?;
    if json {
        output::line(&serde_json::to_string_pretty(&report)?);
    }
    Ok(code(&report))
}

/// Applies manifests; with `each`, every object's line is printed as it is done.
pub(super) async fn write(api: &Api, manifests: &[Manifest], each: bool) -> Report {
    let mut progress = Progress::new();
    let mut done = 0;
    let report = apply(api, manifests, &mut |applied| {
        done += 1;
        if each {
            output::line(&applied.to_string());
        } else if matches!(applied.outcome, Outcome::Failed(_)) {
            output::complain(&applied.to_string());
        } else {
            progress.say(|| format!("applying: {done} of {} objects", manifests.len()));
        }
    })
    .await;
    drop(progress);
    if report.failed() > 0 {
        output::complain(&format!(
            "{} of {} objects could not be written",
            report.failed(),
            report.objects.len()
        ));
    }
    report
}

pub(super) fn code(report: &Report) -> u8 {
    if report.failed() == 0 { exit::DONE } else { exit::FAILED }
}
