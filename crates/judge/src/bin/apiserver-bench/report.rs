//! What was measured, as lines while it runs and as a table for docs/performance.md at the end.

/// The rows of the table.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<[String; 3]>,
}

/// What was measured of each server, by its name.
pub(crate) type Measured = [(&'static str, Vec<f64>)];

impl Report {
    /// Tells what was measured of each server and how they compare. `aim` is what it should be.
    pub(crate) fn tell(&mut self, what: &str, aim: &str, unit: &str, measured: &Measured) {
        let mut parts = Vec::new();
        for (name, values) in measured {
            let (low, high) = (quantile(values, 0.0), quantile(values, 1.0));
            let range = if values.len() > 1 {
                format!(" ({}-{}, {} runs)", short(low), short(high), values.len())
            } else {
                String::new()
            };
            parts.push(format!("{name} {} {unit}{range}", short(median(values))));
        }
        if let [(_, ours), (_, theirs)] = measured {
            parts.push(format!("ratio {}", short(median(ours) / median(theirs))));
        }
        self.say(what, aim, &parts.join("; "));
    }

    /// Tells anything else.
    pub(crate) fn say(&mut self, what: &str, aim: &str, measured: &str) {
        println!("{what}: {measured}");
        self.rows.push([what, aim, measured].map(str::to_owned));
    }

    /// Prints the table.
    pub(crate) fn table(&self) {
        println!("\n| what | aim | measured | command |\n|---|---|---|---|");
        for [what, aim, measured] in &self.rows {
            println!("| {what} | {aim} | {measured} | `bench/apiserver.sh` |");
        }
    }
}

/// Three digits that count.
fn short(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The median of what was measured.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The smallest value that a share of all do not exceed; not a number for none.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}
