//! Durable creates a second.

use std::time::{Duration, Instant};

use weft_judge::{Client, Request};

use crate::in_turn;
use crate::objects::{CLIENTS, map};
use crate::report::Report;
use crate::server::{Kind, Server};

const ROUNDS: usize = 3;
const TIME: Duration = Duration::from_secs(10);

pub(crate) async fn run(kinds: &[Kind], report: &mut Report) -> anyhow::Result<()> {
    let measured = in_turn(kinds, ROUNDS, measure).await?;
    let what = format!("durable creates of ConfigMaps from {CLIENTS} clients");
    report.tell(&what, "3 times", "/s", &measured);
    Ok(())
}

async fn measure(server: &Server) -> anyhow::Result<f64> {
    let mut tasks = tokio::task::JoinSet::new();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(server.connect().await?);
    }
    let started = Instant::now();
    for (number, client) in clients.into_iter().enumerate() {
        tasks.spawn(create(client, number, started + TIME));
    }
    let mut count = 0;
    while let Some(done) = tasks.join_next().await {
        count += done??;
    }
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

async fn create(mut client: Client, number: usize, end: Instant) -> anyhow::Result<usize> {
    let mut count = 0;
    while Instant::now() < end {
        let object = map(&format!("c{number}-{count}"));
        let answer =
            client.send(&Request::json("POST", "/api/v1/namespaces/default/configmaps", &object)).await?;
        anyhow::ensure!(answer.code == 201, "{}", answer.value());
        count += 1;
    }
    Ok(count)
}
