//! `weft lab check`: real ICMP, TCP and UDP for each pair of pods and nodes, and connections from each to every
//! Service, held against the [oracle](crate::oracle).

mod doors;
mod icmp;
mod listener;
mod matrix;
mod probe;
mod report;
mod sample;
mod services;
mod sizes;
mod tidy;
mod why;
mod world;

use std::path::Path;
use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::stream;

pub use report::{CheckReport, Mismatch, Skipped};
pub use sizes::PathReport;
pub use world::{Member, Outsider, World};
pub(crate) use world::{items, not_ready};

use probe::Prober;

/// Above so many pairs, so many are chosen.
pub const SAMPLE: usize = 20_000;
/// Pairs probed at the same time: enough to keep the machine busy, and few enough for the
/// neighbour table that all of its namespaces share.
const PARALLEL: usize = 64;

/// How much is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// How many pairs at most; [`SAMPLE`] where it is not given.
    pub sample: Option<usize>,
    /// The same seed chooses the same pairs.
    pub seed: u64,
    /// Whether to measure what paths between nodes take, too.
    pub sizes: bool,
}

/// How far a check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// Pairs done.
    pub pairs: usize,
    /// Pairs to do.
    pub of: usize,
}

/// Probes the pairs of `world`. Must run inside the lab, on a current-thread runtime: sockets
/// are made in the members' own network namespaces. `state` is the lab's folder, where the
/// agents say what they refused.
pub async fn check(
    world: &World,
    state: &Path,
    options: CheckOptions,
    tell: &mut dyn FnMut(Done),
) -> anyhow::Result<CheckReport> {
    let started = Instant::now();
    raise_open_files();
    let (pairs, all) = sample::pairs(world, options);
    let prober = Prober::open(world)?;
    let of = pairs.len();
    let mut report = CheckReport::new(world, all, of);
    let mut results = stream::iter(pairs)
        .map(|(from, to)| {
            let prober = &prober;
            async move { (from, to, prober.pair(from, to).await) }
        })
        .buffer_unordered(PARALLEL);
    let reasons = why::Reasons::read(world, state);
    while let Some((from, to, found)) = results.next().await {
        report.add(world, &reasons, (from, to), found);
        tell(Done { pairs: report.pairs, of });
    }
    drop(results);
    let (knocks, all_knocks) = sample::knocks(world, options);
    report.sampled |= knocks.len() < all_knocks;
    let of = of + knocks.len();
    let mut results =
        stream::iter(knocks).map(|(from, door)| prober.knock(from, door)).buffer_unordered(PARALLEL);
    while let Some(knocked) = results.next().await {
        report.add_knocked(knocked);
        tell(Done { pairs: report.pairs + report.services, of });
    }
    drop(results);
    if options.sizes {
        report.paths = sizes::measure(world).await?;
    }
    report.finish(started.elapsed());
    Ok(report)
}

/// A check of a thousand pods holds a few thousand sockets.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it cannot be raised, the sockets that cannot be opened say so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

#[cfg(test)]
mod tests;
