//! `weft cni list`.

use serde::Serialize;
use weft_cni::runtime::{Attached, Runtime};

use crate::args::StatusOutput;
use crate::cni_args::ListArgs;
use crate::{exit, output};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    network: String,
    container_id: String,
    ifname: String,
    addresses: Vec<String>,
    netns: String,
    /// The namespace is there no more.
    gone: bool,
}

pub(super) fn run(options: &ListArgs) -> anyhow::Result<u8> {
    let runtime = Runtime::new(Vec::new(), &options.cache_dir);
    let wanted = |a: &Attached| options.network.as_ref().is_none_or(|name| *name == a.network_name);
    let rows: Vec<Row> = runtime.attachments()?.into_iter().filter(wanted).map(row).collect();
    match options.output {
        StatusOutput::Json => output::line(&serde_json::to_string_pretty(&rows)?),
        StatusOutput::Yaml => output::print(&serde_saphyr::to_string(&rows)?),
        StatusOutput::Text => output::print(&table(&rows, false)),
        StatusOutput::Wide => output::print(&table(&rows, true)),
    }
    Ok(exit::DONE)
}

fn row(attached: Attached) -> Row {
    let gone = attached.is_gone();
    let ips = attached.result.as_ref().map(weft_cni::runtime::addresses).unwrap_or_default();
    let netns = attached.netns().map(|path| path.display().to_string()).unwrap_or_default();
    Row {
        network: attached.network_name,
        container_id: attached.container_id,
        ifname: attached.if_name,
        addresses: ips,
        netns,
        gone,
    }
}

/// Container IDs are cut as runtimes cut them, unless `wide`.
fn table(rows: &[Row], wide: bool) -> String {
    let short = |id: &str| if wide { id.to_owned() } else { id.chars().take(20).collect() };
    let mut lines = vec![["NETWORK", "CONTAINER", "INTERFACE", "ADDRESSES", "NETNS"].map(str::to_owned)];
    lines.extend(rows.iter().map(|row| {
        let netns = match (row.gone, wide) {
            (true, _) => "gone".to_owned(),
            (false, true) => row.netns.clone(),
            (false, false) => row.netns.rsplit('/').next().unwrap_or_default().to_owned(),
        };
        [row.network.clone(), short(&row.container_id), row.ifname.clone(), row.addresses.join(","), netns]
    }));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    let text = |line: &[String; 5]| {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    lines.iter().map(text).collect()
}
