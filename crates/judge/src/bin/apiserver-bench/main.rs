//! The load that `bench/apiserver.sh` puts on Weft's API server, and on the real one where it is there.
//! usage: apiserver-bench WEFT PART...   with WEFT the executable, and parts start, memory, creates, watch, scale
//! The real one is used where WEFT_KUBERNETES names the folder that scripts/kubernetes.sh prints.
#![forbid(unsafe_code)]

mod creates;
mod memory;
mod objects;
mod report;
mod scale;
mod server;
mod start;
mod watch;

use std::path::PathBuf;

use anyhow::{Context, bail};
use report::Report;
use server::{Kind, Server};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let weft = PathBuf::from(arguments.next().context("the path of weft is missing")?);
    let kinds: Vec<Kind> = std::iter::once(Kind::Weft(weft)).chain(Kind::kubernetes()).collect();
    let parts: Vec<String> = arguments.collect();
    // The processes end with the thread that started them: this one.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut report = Report::default();
    for part in &parts {
        println!("== {part}");
        match part.as_str() {
            "start" => runtime.block_on(start::run(&kinds, &mut report))?,
            "memory" => runtime.block_on(memory::run(&kinds, &mut report))?,
            "creates" => runtime.block_on(creates::run(&kinds, &mut report))?,
            "watch" => runtime.block_on(watch::run(&kinds, &mut report))?,
            "scale" => runtime.block_on(scale::run(&kinds[0], &mut report))?,
            other => bail!("unknown part {other:?}"),
        }
    }
    report.table();
    Ok(())
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
