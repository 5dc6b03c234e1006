//! A large cluster held by Weft: its memory, the list that each node's agent makes of it, its EndpointSlices.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};
use weft_judge::{Client, Request};

use crate::objects::{
    done, fill, node, node_name, pod, pod_name, pod_status, replica_set, report_status, service,
};
use crate::report::{Report, quantile};
use crate::server::{Kind, Server};

const NODES: usize = 5_000;
/// Each with a Service, a ReplicaSet and [`PODS`].
const APPS: usize = 10_000;
/// An app's pods.
const PODS: usize = 15;
const NAMESPACES: usize = 100;
/// Connections that load.
const CLIENTS: usize = 128;
const LISTS: usize = 200;
/// Pods that become not ready, and how many a second.
const CHANGES: usize = 2_000;
const CHANGES_PER_SECOND: u32 = 200;
const WITH_CONTROLLERS: [&str; 1] = ["--cluster-cidr=10.0.0.0/8"];
const PATIENCE: Duration = Duration::from_secs(240);
const AIM: &str = "1.5 GiB";

pub(crate) async fn run(kind: &Kind, report: &mut Report) -> anyhow::Result<()> {
    let server = kind.start().await?;
    let started = Instant::now();
    load(&server).await?;
    let size = format!("{} pods, {NODES} nodes, {APPS} Services", APPS * PODS);
    report.say(
        &format!("{size}, {APPS} ReplicaSets written by {CLIENTS} clients"),
        "-",
        &seconds(started.elapsed()),
    );
    report.say("the server's resident memory after that, without controllers", "-", &memory(&server)?);

    let started = Instant::now();
    let server = server.restart(kind, &WITH_CONTROLLERS).await?;
    report.say("start to first answer with these", "-", &seconds(started.elapsed()));
    let mut client = server.connect().await?;
    settled(&mut client, 0).await?;
    report.say(
        &format!("from there until the controllers have written {APPS} right EndpointSlices"),
        "-",
        &seconds(started.elapsed()),
    );
    report.say(&format!("resident memory with {size} and controllers"), AIM, &memory(&server)?);
    lists(&server, "list of one node's pods", report).await?;

    let what = format!("the same while {CHANGES_PER_SECOND} pods a second change");
    let busy = lists(&server, &what, report);
    let started = Instant::now();
    let (changed, listed) = tokio::join!(change(&server), busy);
    changed.and(listed)?;
    let written = started.elapsed();
    settled(&mut client, CHANGES).await?;
    let behind = started.elapsed() - written;
    report.say(
        &format!("EndpointSlices are right after {CHANGES} pods became not ready in {written:.0?}"),
        "-",
        &format!("after {}", seconds(behind)),
    );
    report.say("resident memory after that", AIM, &memory(&server)?);

    let started = Instant::now();
    let server = server.restart(kind, &WITH_CONTROLLERS).await?;
    report.say("start to first answer with all that", "-", &seconds(started.elapsed()));
    let mut client = server.connect().await?;
    settled(&mut client, CHANGES).await?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    report.say("resident memory 20 s later", AIM, &memory(&server)?);
    Ok(())
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn memory(server: &Server) -> anyhow::Result<String> {
    Ok(format!("{:.0} MiB, at most {:.0}", server.memory()?, server.most_memory()?))
}

fn space(app: usize) -> String {
    format!("space-{:02}", app % NAMESPACES)
}

async fn load(server: &Server) -> anyhow::Result<()> {
    fill(server, NAMESPACES, |number| {
        let name = json!({"metadata": {"name": space(number)}});
        vec![Request::json("POST", "/api/v1/namespaces", &name)]
    })
    .await?;
    fill(server, NODES, |number| vec![Request::json("POST", "/api/v1/nodes", &node(number))]).await?;
    let mut tasks = tokio::task::JoinSet::new();
    for first in 0..CLIENTS {
        let client = server.connect().await?;
        tasks.spawn(write_apps(client, first));
    }
    while let Some(end) = tasks.join_next().await {
        end??;
    }
    Ok(())
}

async fn write_apps(mut client: Client, first: usize) -> anyhow::Result<()> {
    for app in (first..APPS).step_by(CLIENTS) {
        let core = format!("/api/v1/namespaces/{}", space(app));
        done(&mut client, &Request::json("POST", format!("{core}/services"), &service(app))).await?;
        let sets = format!("/apis/apps/v1/namespaces/{}/replicasets", space(app));
        let set = done(&mut client, &Request::json("POST", sets, &replica_set(app, PODS))).await?.value();
        for number in 0..PODS {
            let place = app * PODS + number;
            let made = pod(app, number, place % NODES, Some(&set));
            done(&mut client, &Request::json("POST", format!("{core}/pods"), &made)).await?;
            let path = format!("{core}/pods/{}", pod_name(app, number));
            done(&mut client, &report_status(&path, &pod_status(place, true))).await?;
        }
    }
    Ok(())
}

/// The first pod of the first apps becomes not ready.
async fn change(server: &Server) -> anyhow::Result<()> {
    let mut client = server.connect().await?;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / CHANGES_PER_SECOND);
    for app in 0..CHANGES {
        ticks.tick().await;
        let path = format!("/api/v1/namespaces/{}/pods/{}", space(app), pod_name(app, 0));
        done(&mut client, &report_status(&path, &pod_status(app * PODS, false))).await?;
    }
    Ok(())
}

async fn lists(server: &Server, what: &str, report: &mut Report) -> anyhow::Result<()> {
    let mut client = server.connect().await?;
    let mut times = Vec::new();
    for turn in 0..LISTS {
        let node = node_name(turn * 97 % NODES);
        let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}");
        let asked = Instant::now();
        let answer = done(&mut client, &Request::new("GET", path)).await?;
        times.push(asked.elapsed().as_secs_f64() * 1000.0);
        let found = items(&answer.value()).len();
        ensure!(found == APPS * PODS / NODES, "{node} has {found} pods");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let [p50, p99] = [0.5, 0.99].map(|share| quantile(&times, share));
    report.say(what, "50 ms", &format!("p50 {p50:.1} ms, p99 {p99:.1} ms ({LISTS} lists)"));
    Ok(())
}

fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map_or(&[], Vec::as_slice)
}

/// Waits until the slices of every Service have all its pods, of which so many are not ready.
async fn settled(client: &mut Client, not_ready: usize) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let wrong = match count(client).await? {
            slices if slices < APPS => Some(format!("there are {slices} slices")),
            _ => wrong_slices(client, not_ready).await?,
        };
        let Some(wrong) = wrong else { return Ok(()) };
        ensure!(Instant::now() < deadline, "the EndpointSlices are not right: {wrong}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";

async fn count(client: &mut Client) -> anyhow::Result<usize> {
    let list = done(client, &Request::new("GET", format!("{SLICES}?limit=1"))).await?.value();
    let more = list["metadata"]["remainingItemCount"].as_u64().unwrap_or(0);
    Ok(items(&list).len() + usize::try_from(more)?)
}

/// What is wrong with the slices.
async fn wrong_slices(client: &mut Client, not_ready: usize) -> anyhow::Result<Option<String>> {
    let (mut of_service, mut ready): (HashMap<String, usize>, usize) = Default::default();
    let mut next = String::new();
    loop {
        let path = format!("{SLICES}?limit=500&continue={next}");
        let answer = client.send(&Request::new("GET", path)).await?;
        if answer.code == 410 {
            return Ok(Some("they change too fast to be listed".to_owned()));
        }
        let list = answer.value();
        for slice in items(&list) {
            let endpoints = slice["endpoints"].as_array().map_or(&[][..], Vec::as_slice);
            let name = slice["metadata"]["labels"]["kubernetes.io/service-name"].as_str().unwrap_or_default();
            *of_service.entry(name.to_owned()).or_default() += endpoints.len();
            ready += endpoints.iter().filter(|one| one["conditions"]["ready"] == true).count();
        }
        next = list["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        if next.is_empty() {
            break;
        }
    }
    let right = of_service.iter().filter(|(name, count)| name.starts_with("app-") && **count == PODS).count();
    let wanted = APPS * PODS - not_ready;
    Ok((right != APPS || ready != wanted)
        .then(|| format!("{right} Services have their pods, {ready} of which are ready")))
}
