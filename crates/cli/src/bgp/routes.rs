//! `weft bgp routes` and `weft bgp explain`.

use ipnet::IpNet;
use weft_bgp::speaker::control::Question;
use weft_bgp::speaker::{Filter, Route};

use super::{RoutesArgs, SpeakerArgs, ask};
use crate::args::StatusOutput;
use crate::listing::print;
use crate::{exit, output};

pub(super) fn list(options: RoutesArgs) -> anyhow::Result<u8> {
    let RoutesArgs { within, neighbour, limit, speaker } = options;
    let filter = Filter { neighbour: neighbour.map(Into::into), within, limit };
    let routes: Vec<Route> = ask(&speaker, &Question::Routes(filter))?;
    show(&speaker, &routes, false)?;
    Ok(exit::DONE)
}

pub(super) fn explain(prefix: IpNet, speaker: &SpeakerArgs) -> anyhow::Result<u8> {
    let routes: Vec<Route> = ask(speaker, &Question::Explain(prefix))?;
    if routes.is_empty() {
        output::complain(&format!("no path to {prefix} is known: weft bgp routes lists all"));
        return Ok(exit::FALSE);
    }
    show(speaker, &routes, true)?;
    Ok(exit::DONE)
}

fn show(speaker: &SpeakerArgs, routes: &[Route], explained: bool) -> anyhow::Result<()> {
    let wide = speaker.output == StatusOutput::Wide || explained;
    let mut head = vec!["", "PREFIX", "NEXT HOP", "NEIGHBOUR", "AS PATH"];
    head.extend(wide.then_some(["PREF", "MED", "ORIGIN", "COMMUNITIES", "BETTER BY"]).into_iter().flatten());
    let rows = routes.iter().map(|route| cells(route, wide)).collect();
    print(speaker.output, routes, &head, rows)
}

fn cells(route: &Route, wide: bool) -> Vec<String> {
    let mark = if route.best {
        ">"
    } else if route.used {
        "="
    } else {
        " "
    };
    let or_none = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let number = |number: Option<u32>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let mut cells = vec![
        format!("{mark}{}", if route.stale { "s" } else { "" }),
        route.prefix.to_string(),
        route.next_hop.to_string(),
        route.neighbour.as_deref().unwrap_or("(our own)").to_owned(),
        or_none(route.as_path.clone()),
    ];
    if wide {
        let communities = [&route.communities[..], &route.large_communities[..]].concat();
        cells.extend([
            number(route.local_pref),
            number(route.med),
            route.origin.clone(),
            or_none(communities.join(" ")),
            route.lost_by.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    cells
}
