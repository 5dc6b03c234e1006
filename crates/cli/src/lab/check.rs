use std::net::SocketAddr;

use weft_lab::check::{CheckOptions, CheckReport, Mismatch, PathReport, World, check};
use weft_lab::enter::{Entered, enter};
use weft_lab::state::LabState;

use super::neighbours;
use crate::args::{CheckArgs, Output};
use crate::output::Progress;
use crate::{daemons, exit, output};

/// Mismatches that are listed for one cause; JSON has all.
const LISTED: usize = 3;

pub(super) fn run(options: &CheckArgs) -> anyhow::Result<u8> {
    let state = LabState::open(&options.lab.name)?;
    let table = neighbours::Table::open();
    if let Entered::Outside(code) = enter(&state)? {
        // A lab whose loopback has no room does not even answer.
        if code != exit::DONE {
            table.and_then(|mut table| table.advice()).inspect(|advice| output::note(advice));
        }
        return Ok(code);
    }
    let report = daemons::runtime()?.block_on(async {
        let api = super::client(&state.kubeconfig_inside()).await?;
        let (nodes, pods) = tokio::try_join!(api.list("/api/v1/nodes"), api.list("/api/v1/pods"))?;
        let mut world = World::new(&nodes, &pods, state.dir());
        // A cluster that was given may have no pools.
        if let Ok(blocks) = api.list("/apis/weft.dev/v1/ipblocks").await {
            world.add_blocks(&blocks);
        }
        let services = api.list("/api/v1/services").await?;
        let slices = api.list("/apis/discovery.k8s.io/v1/endpointslices").await?;
        world.add_services(&services, &slices);
        if let Some(info) = state.info()? {
            world.relayed = info.config.proxy == "userspace";
            world.add_outside(&info.config, state.dir());
        }
        let chosen = CheckOptions { sample: options.sample, seed: options.seed, sizes: options.sizes };
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
    if report.pairs == 0 && report.skipped.is_empty() {
        return "Nothing to check: the lab has no pods. weft lab apply -f examples/shop\n".into();
    }
    let mut text = report.matrix(colour);
    for skipped in &report.skipped {
        text += &format!("not checked: {}: {}\n", skipped.name, skipped.why);
    }
    text += &mismatches(&report.mismatches);
    text += &paths(&report.paths);
    let sampled = if report.sampled {
        format!(" (a sample of {}, seed {seed})", report.all_pairs)
    } else {
        String::new()
    };
    let retries = match report.retries {
        0 => String::new(),
        count => format!(", {count} tried twice"),
    };
    let services = match report.services {
        0 => String::new(),
        count => format!(", {} of {count} connections to Services", report.services_matching),
    };
    text += &format!(
        "\n{} of {} pairs{sampled}{services} as they should be; {} probes{retries}, {:.1} s\n",
        report.matching, report.pairs, report.probes, report.seconds
    );
    text
}

/// What paths between nodes take, a line each.
fn paths(all: &[PathReport]) -> String {
    let width = all.iter().map(|path| path.from.len() + path.to.len()).max().unwrap_or(0) + 3;
    let mut text = String::new();
    for path in all {
        let between = format!("{} → {}", path.from, path.to);
        text += &format!(
            "\n{between:width$}  {}: {} of {} bytes whole, {} segments sent again",
            path.address, path.path_mtu, path.link_mtu, path.retransmits
        );
        for what in &path.failed {
            text += &format!("\n  did not arrive: {what}");
        }
    }
    if text.is_empty() { text } else { text + "\n" }
}

/// Each cause once, with some of the probes that it explains.
fn mismatches(all: &[Mismatch]) -> String {
    let mut causes: Vec<(&str, Vec<&Mismatch>)> = Vec::new();
    for mismatch in all {
        match causes.iter_mut().find(|(why, _)| *why == mismatch.why) {
            Some((_, found)) => found.push(mismatch),
            None => causes.push((&mismatch.why, vec![mismatch])),
        }
    }
    let mut text = String::new();
    for (why, found) in causes {
        let probes = if found.len() == 1 { "probe" } else { "probes" };
        text += &format!("\n{} {probes}: {why}\n", found.len());
        for mismatch in found.iter().take(LISTED) {
            let to = match (mismatch.address, mismatch.port) {
                (Some(ip), Some(port)) => format!(" {}", SocketAddr::new(ip, port)),
                (Some(ip), None) => format!(" {ip}"),
                (None, _) => String::new(),
            };
            text += &format!(
                "  {} → {} {}{to}\n    expected: {}\n    observed: {}\n",
                mismatch.from,
                mismatch.to,
                mismatch.proto.name(),
                mismatch.expected,
                mismatch.observed
            );
        }
        if found.len() > LISTED {
            text += &format!("  … and {} more: -o json has all\n", found.len() - LISTED);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use weft_lab::oracle::Proto;

    use super::*;

    #[test]
    fn a_cause_is_told_once_with_examples() {
        let mismatch = |to: &str, why: &str| Mismatch {
            from: "default/a".into(),
            to: to.into(),
            proto: Proto::Tcp,
            address: "fd00:244::2".parse().ok(),
            port: Some(80),
            expected: "an answer".into(),
            observed: "no answer".into(),
            why: why.into(),
        };
        let mut all: Vec<Mismatch> = (0..5).map(|i| mismatch(&format!("x/{i}"), "refused")).collect();
        all.push(mismatch("y/0", "not ready"));
        let expected = "
5 probes: refused
  default/a → x/0 tcp [fd00:244::2]:80
    expected: an answer
    observed: no answer
  default/a → x/1 tcp [fd00:244::2]:80
    expected: an answer
    observed: no answer
  default/a → x/2 tcp [fd00:244::2]:80
    expected: an answer
    observed: no answer
  … and 2 more: -o json has all

1 probe: not ready
  default/a → y/0 tcp [fd00:244::2]:80
    expected: an answer
    observed: no answer
";
        assert_eq!(mismatches(&all), expected);
    }

    #[test]
    fn the_last_line_says_how_many_match_and_whether_it_was_a_sample() {
        let mut report = CheckReport::default();
        (report.pairs, report.matching, report.probes, report.retries) = (12, 11, 36, 1);
        let last = |report: &CheckReport| text(report, 7, false).lines().last().map(str::to_owned);
        assert_eq!(
            last(&report).as_deref(),
            Some("11 of 12 pairs as they should be; 36 probes, 1 tried twice, 0.0 s")
        );
        assert!(last(&CheckReport::default()).unwrap().starts_with("Nothing to check"));
        (report.sampled, report.all_pairs) = (true, 99);
        assert!(last(&report).unwrap().starts_with("11 of 12 pairs (a sample of 99, seed 7)"));
    }
}
