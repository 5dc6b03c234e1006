//! A large cluster held by Weft, and the list that each node's agent makes of it.

use std::time::{Duration, Instant};

use weft_judge::Request;

use crate::objects::{fill, node, node_name, running_pod, service};
use crate::server::Kind;
use crate::tell;

const PODS: usize = 150_000;
const NODES: usize = 5_000;
const SERVICES: usize = 10_000;
const SERVICES_PATH: &str = "/api/v1/namespaces/default/services";
const LISTS: usize = 50;

pub(crate) async fn run(kind: &Kind) -> anyhow::Result<()> {
    let server = kind.start().await?;
    let started = Instant::now();
    fill(&server, NODES, |number| vec![Request::json("POST", "/api/v1/nodes", &node(number))]).await?;
    fill(&server, SERVICES, |number| vec![Request::json("POST", SERVICES_PATH, &service(number))]).await?;
    fill(&server, PODS, |number| running_pod(number, NODES)).await?;
    println!(
        "{PODS} pods, {NODES} nodes, {SERVICES} Services written in {:.0} s",
        started.elapsed().as_secs_f64()
    );
    let loaded = server.memory()?;
    tokio::time::sleep(Duration::from_secs(30)).await;
    tell("resident memory after the load", "MiB", &[(kind.name(), vec![loaded])]);
    tell("resident memory 30 s later", "MiB", &[(kind.name(), vec![server.memory()?])]);

    let mut client = server.connect().await?;
    let mut times = Vec::new();
    for turn in 0..LISTS {
        let node = node_name(turn * 97 % NODES);
        let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}");
        let asked = Instant::now();
        let answer = client.send(&Request::new("GET", path)).await?;
        times.push(asked.elapsed().as_secs_f64() * 1000.0);
        let found = answer.value()["items"].as_array().map_or(0, Vec::len);
        anyhow::ensure!(found == PODS / NODES, "{node} has {found} pods");
    }
    tell("list of one node's pods", "ms", &[(kind.name(), times)]);
    Ok(())
}
