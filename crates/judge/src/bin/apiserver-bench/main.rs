//! The load that `bench/apiserver.sh` puts on Weft's API server, and on the real one where it is there.
//! usage: apiserver-bench WEFT PART...   with WEFT the executable, and parts start, memory, creates, watch, scale
//! The real one is used where WEFT_KUBERNETES names the folder that scripts/kubernetes.sh prints.
#![forbid(unsafe_code)]

mod creates;
mod memory;
mod objects;
mod scale;
mod server;
mod start;
mod watch;

use std::path::PathBuf;

use anyhow::{Context, bail};
use server::{Kind, Server};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let weft = PathBuf::from(arguments.next().context("the path of weft is missing")?);
    let kinds: Vec<Kind> = std::iter::once(Kind::Weft(weft)).chain(Kind::kubernetes()).collect();
    let parts: Vec<String> = arguments.collect();
    // The processes end with the thread that started them: this one.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for part in &parts {
        println!("== {part}");
        match part.as_str() {
            "start" => runtime.block_on(start::run(&kinds))?,
            "memory" => runtime.block_on(memory::run(&kinds))?,
            "creates" => runtime.block_on(creates::run(&kinds))?,
            "watch" => runtime.block_on(watch::run(&kinds))?,
            "scale" => runtime.block_on(scale::run(&kinds[0]))?,
            other => bail!("unknown part {other:?}"),
        }
    }
    Ok(())
}

/// The median of what was measured.
fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The smallest value that a share of all do not exceed; not a number for none.
fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Prints what was measured of each server, and how they compare.
fn tell(what: &str, unit: &str, measured: &[(&'static str, Vec<f64>)]) {
    for (name, values) in measured {
        let (low, high) = (quantile(values, 0.0), quantile(values, 1.0));
        println!(
            "{what}: {name} median {:.2} {unit} ({low:.2}-{high:.2}, {} runs)",
            median(values),
            values.len()
        );
    }
    if let [(_, ours), (_, theirs)] = measured {
        println!("{what}: ratio {:.4}", median(ours) / median(theirs));
    }
}

/// Starts each server anew, `rounds` times in turn, and measures something of it.
async fn in_turn<F>(
    kinds: &[Kind],
    rounds: usize,
    measure: F,
) -> anyhow::Result<Vec<(&'static str, Vec<f64>)>>
where
    F: AsyncFn(&Server) -> anyhow::Result<f64>,
{
    let mut measured: Vec<(&'static str, Vec<f64>)> =
        kinds.iter().map(|kind| (kind.name(), Vec::new())).collect();
    for _ in 0..rounds {
        for (kind, (_, values)) in kinds.iter().zip(&mut measured) {
            let server = kind.start().await?;
            values.push(measure(&server).await?);
        }
    }
    Ok(measured)
}
