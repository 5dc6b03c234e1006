//! How long a change takes to reach its watchers: from the moment that the write is sent.

use std::time::{Duration, Instant};

use weft_judge::{Client, Lines, Request};

use crate::objects::map;
use crate::report::{Report, quantile};
use crate::server::{Kind, Server};

const ROUNDS: usize = 3;
const WATCHERS: usize = 100;
const WRITES: u64 = 200;
const TIME: Duration = Duration::from_secs(15);
/// Connections that the writes are spread over, so that none waits for another.
const WRITERS: u64 = 16;
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MARK: &[u8] = b"\"sent\":\"";

pub(crate) async fn run(kinds: &[Kind], report: &mut Report) -> anyhow::Result<()> {
    let (mut half, mut most) = (Vec::new(), Vec::new());
    for kind in kinds {
        half.push((kind.name(), Vec::new()));
        most.push((kind.name(), Vec::new()));
    }
    for _ in 0..ROUNDS {
        for (place, kind) in kinds.iter().enumerate() {
            let delays = measure(&kind.start().await?).await?;
            half[place].1.push(quantile(&delays, 0.5));
            most[place].1.push(quantile(&delays, 0.99));
        }
    }
    let what = format!("from a write to its {WATCHERS} watchers, {WRITES} writes a second");
    report.tell(&format!("{what}, p50"), "-", "ms", &half);
    report.tell(&format!("{what}, p99"), "no worse, 20 ms", "ms", &most);
    Ok(())
}

async fn measure(server: &Server) -> anyhow::Result<Vec<f64>> {
    let start = Instant::now();
    let mut watches = tokio::task::JoinSet::new();
    let total = WRITES * TIME.as_secs();
    for _ in 0..WATCHERS {
        let request = Request::new("GET", format!("{MAPS}?watch=true&resourceVersion=0&labelSelector=bench"));
        let lines = server.connect().await?.lines(&request).await?;
        anyhow::ensure!(lines.code == 200, "a watch was answered with {}", lines.code);
        watches.spawn(read(lines, start, total));
    }
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..WRITERS {
        writers.spawn(write(server.connect().await?, number, start));
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    let mut delays = Vec::new();
    while let Some(done) = watches.join_next().await {
        delays.extend(done??);
    }
    Ok(delays)
}

async fn write(mut client: Client, number: u64, start: Instant) -> anyhow::Result<()> {
    let begin = tokio::time::Instant::now();
    for turn in (number..WRITES * TIME.as_secs()).step_by(WRITERS as usize) {
        tokio::time::sleep_until(begin + Duration::from_micros(turn * 1_000_000 / WRITES)).await;
        let mut object = map(&format!("w-{turn}"));
        object["metadata"]["labels"] = serde_json::json!({"bench": "y"});
        object["data"]["sent"] = start.elapsed().as_micros().to_string().into();
        let answer = client.send(&Request::json("POST", MAPS, &object)).await?;
        anyhow::ensure!(answer.code == 201, "{}", answer.value());
    }
    Ok(())
}

/// The delays of all writes, in milliseconds.
async fn read(mut lines: Lines, start: Instant, total: u64) -> anyhow::Result<Vec<f64>> {
    let mut delays = Vec::new();
    while delays.len() < usize::try_from(total)? {
        let Some(line) = lines.next().await? else {
            anyhow::bail!("a watch ended after {} events", delays.len())
        };
        let now = start.elapsed().as_micros() as f64;
        let Some(place) = line.windows(MARK.len()).position(|window| window == MARK) else { continue };
        let digits: String = line[place + MARK.len()..]
            .iter()
            .map(|&b| char::from(b))
            .take_while(char::is_ascii_digit)
            .collect();
        delays.push((now - digits.parse::<f64>()?) / 1000.0);
    }
    Ok(delays)
}
