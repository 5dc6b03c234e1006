//! `weft bgp peers`.

use serde::Serialize;
use weft_bgp::speaker::control::Question;
use weft_bgp::speaker::{NeighbourStatus, Status};

use super::{SpeakerArgs, ask};
use crate::args::StatusOutput;
use crate::exit;
use crate::listing::print;

#[derive(Serialize)]
struct Row {
    name: String,
    #[serde(flatten)]
    status: NeighbourStatus,
}

pub(super) fn run(speaker: &SpeakerArgs) -> anyhow::Result<u8> {
    let status: Status = ask(speaker, &Question::Status)?;
    let neighbours = status.neighbours.into_iter();
    let rows: Vec<Row> = neighbours.map(|(name, status)| Row { name: name.to_string(), status }).collect();
    let wide = speaker.output == StatusOutput::Wide;
    let mut head = vec!["NEIGHBOUR", "ADDRESS", "AS", "STATE", "SINCE", "IPV4", "IPV6", "LAST ERROR"];
    head.extend(wide.then_some(["ID", "HOLD", "RESTART", "REFUSED", "MALFORMED"]).into_iter().flatten());
    let cells = rows.iter().map(|row| cells(row, wide)).collect();
    print(speaker.output, &rows, &head, cells)?;
    let all = rows.iter().all(|row| row.status.state == "established");
    Ok(if all { exit::DONE } else { exit::FALSE })
}

fn cells(row: &Row, wide: bool) -> Vec<String> {
    let of = &row.status;
    let terms = of.terms.as_ref();
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let stale = |is: bool| if is { " stale" } else { "" };
    let mut cells = vec![
        row.name.clone(),
        of.address.to_string(),
        or_none(terms.map(|terms| terms.peer_as.to_string())),
        of.state.clone(),
        ago(of.since),
        format!("{}{}", of.received.ipv4, stale(of.stale.ipv4)),
        format!("{}{}", of.received.ipv6, stale(of.stale.ipv6)),
        or_none(of.last_error.clone()),
    ];
    if wide {
        let restart = terms.and_then(|terms| terms.graceful_restart);
        cells.extend([
            or_none(terms.map(|terms| terms.peer_id.to_string())),
            or_none(terms.map(|terms| format!("{}s", terms.hold))),
            or_none(restart.map(|seconds| format!("{seconds}s"))),
            of.refused.values().sum::<u64>().to_string(),
            of.malformed.values().sum::<u64>().to_string(),
        ]);
    }
    cells
}

/// As kubectl prints ages.
fn ago(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::ago;

    #[test]
    fn ages_are_short() {
        assert_eq!([59, 121, 7_300, 200_000].map(ago), ["59s", "2m", "2h", "2d"]);
    }
}
