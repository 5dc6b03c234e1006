//! From nothing to the first answer.

use std::time::Instant;

use crate::report::Report;
use crate::server::Kind;

const ROUNDS: usize = 5;

pub(crate) async fn run(kinds: &[Kind], report: &mut Report) -> anyhow::Result<()> {
    let mut measured: Vec<(&'static str, Vec<f64>)> =
        kinds.iter().map(|kind| (kind.name(), Vec::new())).collect();
    for _ in 0..ROUNDS {
        for (kind, (_, values)) in kinds.iter().zip(&mut measured) {
            let started = Instant::now();
            drop(kind.start().await?);
            values.push(started.elapsed().as_secs_f64() * 1000.0);
        }
    }
    report.tell("API server, no data: start to first answer", "a twentieth", "ms", &measured);
    Ok(())
}
