//! Resident memory, idle and with objects.

use std::time::Duration;

use crate::objects::{fill, running_pod};
use crate::report::Report;
use crate::server::Kind;

/// Objects held.
const OBJECTS: usize = 10_000;
/// What was allocated to start or to load is given back meanwhile, or is not.
const SETTLE: Duration = Duration::from_secs(15);

pub(crate) async fn run(kinds: &[Kind], report: &mut Report) -> anyhow::Result<()> {
    let (mut idle, mut full) = (Vec::new(), Vec::new());
    for kind in kinds {
        let server = kind.start().await?;
        tokio::time::sleep(SETTLE).await;
        idle.push((kind.name(), vec![server.memory()?]));
        fill(&server, OBJECTS, |number| running_pod(number, 100)).await?;
        tokio::time::sleep(SETTLE).await;
        full.push((kind.name(), vec![server.memory()?]));
    }
    report.tell("API server's resident memory, idle", "a tenth", "MiB", &idle);
    report.tell(&format!("the same with {OBJECTS} pods"), "a tenth", "MiB", &full);
    Ok(())
}
