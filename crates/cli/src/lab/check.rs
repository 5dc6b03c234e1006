use weft_lab::check::{CheckOptions, CheckReport, World, check};
use weft_lab::enter::{Entered, enter};
use weft_lab::state::LabState;

use crate::args::{CheckArgs, Output};
use crate::output::Progress;
use crate::{daemons, exit, output};

/// Mismatches that are listed; JSON has all.
const LISTED: usize = 40;

pub(super) fn run(options: &CheckArgs) -> anyhow::Result<u8> {
    let state = LabState::open(&options.lab.name)?;
    if let Entered::Outside(code) = enter(&state)? {
        return Ok(code);
    }
    let report = daemons::runtime()?.block_on(async {
        let api = super::client(&state.kubeconfig_inside()).await?;
        let (nodes, pods) = tokio::try_join!(api.list("/api/v1/nodes"), api.list("/api/v1/pods"))?;
        let world = World::new(&nodes, &pods, state.dir());
        let chosen = CheckOptions { sample: options.sample, seed: options.seed };
        let mut progress = Progress::new();
        check(&world, state.dir(), chosen, &mut |done| {
            progress.say(|| format!("checked {} of {} pairs", done.pairs, done.of));
        })
        .await
    })?;
    match options.output {
        Output::Json => output::line(&serde_json::to_string_pretty(&report)?),
        Output::Text => output::print(&text(&report, options.seed, output::colour(&std::io::stdout()))),
    }
    Ok(if report.all_match() { exit::DONE } else { exit::FALSE })
}

fn text(report: &CheckReport, seed: u64, colour: bool) -> String {
    let mut text = report.matrix(colour);
    for skipped in &report.skipped {
        text += &format!("not checked: {}: {}\n", skipped.name, skipped.why);
    }
    for mismatch in report.mismatches.iter().take(LISTED) {
        let port = mismatch.port.map_or(String::new(), |port| format!(" {port}"));
        text += &format!(
            "\n{} → {} {}{port}\n  expected: {}\n  observed: {}\n  why:      {}\n",
            mismatch.from,
            mismatch.to,
            mismatch.proto.name(),
            mismatch.expected,
            mismatch.observed,
            mismatch.why
        );
    }
    if report.mismatches.len() > LISTED {
        text += &format!("\n… and {} more: -o json has all\n", report.mismatches.len() - LISTED);
    }
    let sampled = if report.sampled {
        format!(" (a sample of {}, seed {seed})", report.all_pairs)
    } else {
        String::new()
    };
    let retries = match report.retries {
        0 => String::new(),
        count => format!(", {count} tried twice"),
    };
    text += &format!(
        "\n{} of {} pairs{sampled} as they should be; {} probes{retries}, {:.1} s\n",
        report.matching, report.pairs, report.probes, report.seconds
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_says_how_many_match_and_whether_it_was_a_sample() {
        let report =
            CheckReport { pairs: 12, matching: 11, probes: 36, retries: 1, ..CheckReport::default() };
        let last = |report: &CheckReport| text(report, 7, false).lines().last().map(str::to_owned);
        assert_eq!(
            last(&report).as_deref(),
            Some("11 of 12 pairs as they should be; 36 probes, 1 tried twice, 0.0 s")
        );
        let report = CheckReport { sampled: true, all_pairs: 99, ..CheckReport::default() };
        assert!(last(&report).unwrap().starts_with("0 of 0 pairs (a sample of 99, seed 7)"));
    }
}
