//! Lists, for people and for machines.

use serde::Serialize;

use crate::args::StatusOutput;
use crate::output;

/// Prints values for machines, or their rows as a table.
pub(crate) fn print<T: Serialize>(
    how: StatusOutput,
    values: &[T],
    head: &[&str],
    rows: Vec<Vec<String>>,
) -> anyhow::Result<()> {
    match how {
        StatusOutput::Json => output::line(&serde_json::to_string_pretty(values)?),
        StatusOutput::Yaml => output::print(&serde_saphyr::to_string(&values)?),
        StatusOutput::Text | StatusOutput::Wide => {
            let head = head.iter().map(|cell| (*cell).to_owned()).collect();
            output::print(&table(std::iter::once(head).chain(rows).collect()));
        }
    }
    Ok(())
}

pub(crate) fn table(lines: Vec<Vec<String>>) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let cell = |line: &Vec<String>, column: usize| line.get(column).map_or(0, |cell| cell.chars().count());
    let widths: Vec<usize> =
        (0..columns).map(|column| lines.iter().map(|line| cell(line, column)).max().unwrap_or(0)).collect();
    let text = |line: &Vec<String>| {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    lines.iter().map(text).collect()
}
