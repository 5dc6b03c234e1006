//! `weft cni validate`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;
use weft_cni::validate::{Report, validate};

use crate::args::Output;
use crate::cni_args::ValidateArgs;
use crate::{exit, output};

#[derive(Serialize)]
struct Judged {
    file: PathBuf,
    #[serde(flatten)]
    report: Report,
}

pub(super) fn run(options: &ValidateArgs) -> anyhow::Result<u8> {
    let path: Vec<PathBuf> = std::env::split_paths(&options.path).collect();
    let mut judged = Vec::new();
    for file in &options.files {
        let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        judged.push(Judged { file: file.clone(), report: validate(&text, &path) });
    }
    match options.output {
        Output::Json => output::line(&serde_json::to_string_pretty(&judged)?),
        Output::Text => judged.iter().for_each(|judged| output::print(&text(&judged.file, &judged.report))),
    }
    let sound = judged.iter().all(|judged| judged.report.mistakes.is_empty());
    Ok(if sound { exit::DONE } else { exit::FALSE })
}

fn text(file: &Path, report: &Report) -> String {
    let mut lines = vec![format!("{}:", file.display())];
    if !report.steps.is_empty() {
        lines.push(format!(
            "network {} (CNI {}): ADD does, and DEL undoes in reverse",
            report.network, report.cni_version
        ));
    }
    for (at, step) in report.steps.iter().enumerate() {
        lines.push(format!("  {}. {} {}", at + 1, step.plugin, step.does));
        lines.extend(step.settings.iter().map(|setting| format!("     - {setting}")));
    }
    lines.extend(report.notes.iter().map(|note| format!("note: {note}")));
    for mistake in &report.mistakes {
        let (position, key) = (mistake.position, &mistake.key);
        let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
        let place = format!("{}:{}:{}", file.display(), position.line, position.column);
        lines.push(format!("{place}: {key}{}", mistake.reason));
    }
    lines.push(match report.mistakes.len() {
        0 => "no mistakes".into(),
        1 => "1 mistake".into(),
        count => format!("{count} mistakes"),
    });
    lines.join("\n") + "\n"
}
