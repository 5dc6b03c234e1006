//! Resident memory, idle and with objects.

use std::time::Duration;

use crate::objects::{fill, running_pod};
use crate::server::Kind;
use crate::tell;

/// Objects held.
const OBJECTS: usize = 10_000;
/// What was allocated to start or to load is given back meanwhile, or is not.
const SETTLE: Duration = Duration::from_secs(30);

pub(crate) async fn run(kinds: &[Kind]) -> anyhow::Result<()> {
    let (mut idle, mut full) = (Vec::new(), Vec::new());
    for kind in kinds {
        let server = kind.start().await?;
        tokio::time::sleep(SETTLE).await;
        idle.push((kind.name(), vec![server.memory()?]));
        fill(&server, OBJECTS, |number| running_pod(number, 100)).await?;
        tokio::time::sleep(SETTLE).await;
        full.push((kind.name(), vec![server.memory()?]));
    }
    tell("resident memory, idle", "MiB", &idle);
    tell(&format!("resident memory, {OBJECTS} pods"), "MiB", &full);
    Ok(())
}
