//! One server's side of a case.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use weft_judge::{Answer, Client, Lines, Request, Target};

use crate::case::{Case, Step, published};

/// Time that a server has for the events that a case waits for.
const EVENTS: Duration = Duration::from_secs(10);
/// Time that a server has until it answers with the code that a step waits for.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a server answered to a step, as it came.
#[derive(Debug)]
pub struct Answered {
    pub code: u16,
    /// The object, or the list of a watch's events.
    pub body: Value,
    /// Names that are this server's own, to be shown as `$name`.
    pub own: BTreeMap<String, String>,
}

/// Sends the steps of a case in order, in a namespace of the case's own.
pub async fn run(target: &Target, case: &Case, namespace: &str) -> anyhow::Result<Vec<Answered>> {
    let mut client = Client::connect(target).await?;
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    let made = client.send(&Request::json("POST", "/api/v1/namespaces", &body)).await?;
    anyhow::ensure!(made.code == 201, "namespace {namespace}: {}", made.value());
    let mut own = BTreeMap::from([("ns".to_owned(), namespace.to_owned())]);
    let mut all = Vec::new();
    for (number, step) in case.steps.iter().enumerate() {
        let asked = || format!("step {} ({})", number + 1, step.call);
        let (code, body) = send(target, &mut client, step, &own).await.with_context(asked)?;
        for (name, path) in &step.save {
            let path = path.as_str().context("a saved value is named by its path")?;
            let value = at(&body, path).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
            // What is missing shows as a difference of this step, not of the next one.
            own.insert(name.clone(), value.unwrap_or_default());
        }
        all.push(Answered { code, body, own: own.clone() });
    }
    Ok(all)
}

async fn send(
    target: &Target,
    client: &mut Client,
    step: &Step,
    own: &BTreeMap<String, String>,
) -> anyhow::Result<(u16, Value)> {
    let (method, path) = step.call.split_once(' ').context("a step is METHOD PATH")?;
    let watch = method == "WATCH";
    let mut request = Request::new(if watch { "GET" } else { method }, fill(path, own));
    if let Some(body) = &step.body {
        request.body = fill(&body.to_string(), own).into_bytes();
    } else if let Some(text) = &step.text {
        request.body = fill(text, own).into_bytes();
    } else if let Some(file) = &step.file {
        let path = published().context("the published definitions were not fetched")?.join(file);
        request.body = std::fs::read(&path).with_context(|| path.display().to_string())?;
    }
    if !request.body.is_empty() {
        request
            .headers
            .push(("content-type".into(), media(step.media.as_deref().unwrap_or("application/json"))));
    }
    if let Some(accept) = &step.accept {
        request.headers.push(("accept".into(), accepted(accept)));
    }
    if !watch {
        let answer = send_until(client, &request, step.until).await?;
        return Ok((answer.code, answer.value()));
    }
    let lines = Client::connect(target).await?.lines(&request).await?;
    Ok((lines.code, Value::Array(events(lines, step.events.unwrap_or(usize::MAX)).await?)))
}

/// Sends a request; again while another code is waited for and there is patience.
async fn send_until(client: &mut Client, request: &Request, code: Option<u16>) -> anyhow::Result<Answer> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let answer = client.send(request).await?;
        let good = code.is_none_or(|code| code == answer.code);
        if good || tokio::time::Instant::now() >= deadline {
            return Ok(answer);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The events of a watch, up to a number, to its end, or to the end of patience.
async fn events(mut lines: Lines, count: usize) -> anyhow::Result<Vec<Value>> {
    let mut events = Vec::new();
    let read = async {
        while events.len() < count {
            let Some(line) = lines.next().await? else { break };
            events.push(serde_json::from_slice(&line)?);
        }
        anyhow::Ok(())
    };
    // Too few events are a difference that the comparison shows.
    tokio::time::timeout(EVENTS, read).await.unwrap_or(Ok(()))?;
    Ok(events)
}

/// A text with `$name` replaced by what this server calls it.
fn fill(text: &str, own: &BTreeMap<String, String>) -> String {
    // From the longest name, so that $rv does not eat the start of $rv2.
    let mut names: Vec<_> = own.iter().collect();
    names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    names.into_iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${name}"), value))
}

/// The value at a path with dots; numbers are places in lists.
fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, part| match part.parse::<usize>() {
        Ok(place) if value.is_array() => value.get(place),
        _ => value.get(part),
    })
}

fn media(name: &str) -> String {
    match name {
        "json" => "application/json-patch+json",
        "merge" => "application/merge-patch+json",
        "strategic" => "application/strategic-merge-patch+json",
        "apply" => "application/apply-patch+yaml",
        "yaml" => "application/yaml",
        whole => whole,
    }
    .to_owned()
}

fn accepted(name: &str) -> String {
    let wanted = |kind| format!("application/json;as={kind};g=meta.k8s.io;v=v1");
    match name {
        "table" => wanted("Table"),
        "metadata" => wanted("PartialObjectMetadata"),
        "metadatalist" => wanted("PartialObjectMetadataList"),
        whole => whole.to_owned(),
    }
}
