//! A pod's life on its node, from being bound to being gone.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use weft_kernel::Netns;

use super::attach::Sandbox;
use super::object::PodObject;
use super::{Host, Shared, status};
use crate::conflist::Conflist;
use crate::places::PodRecord;
use crate::responder::{Identity, Responder};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A network that comes this soon is not worth a status.
const QUIET: Duration = Duration::from_secs(1);
/// A port that was taken may be free again, as when one pod of the host's network follows another.
const RETRY_PORTS: Duration = Duration::from_secs(2);
const NO_NETWORK: &str =
    "the node's network is not ready: there is no CNI configuration yet; see the node's agent";

/// How a pod ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It is to be taken down within the time that it is given, and then removed from the API.
    Deleted(Duration),
    /// It is no longer in the API.
    Gone,
}

type Ending = watch::Receiver<Option<End>>;

/// Lives the pod's life. Returns when nothing of it is left.
pub(super) async fn live(
    shared: Arc<Shared>,
    host: Arc<Host>,
    pod: PodObject,
    mut ending: Ending,
    report: Arc<Notify>,
) {
    if let Some(why) = &pod.unreadable {
        let message = format!("the pod's specification cannot be read: {why}");
        patch_status(&shared, &pod, &status::waiting(&pod, &host.ips, &message), &mut ending).await;
        told(&mut ending).await;
    } else if pod.spec.host_network {
        live_on_host(&shared, &host, &pod, &mut ending, &report).await;
    } else {
        live_in_sandbox(&shared, &host, &pod, &mut ending, &report).await;
    }
    let end = *ending.borrow();
    if matches!(end, Some(End::Deleted(_))) {
        remove(&shared, &pod, &mut ending).await;
    }
}

async fn live_on_host(shared: &Shared, host: &Host, pod: &PodObject, ending: &mut Ending, report: &Notify) {
    if ending.borrow().is_some() {
        return;
    }
    let record = PodRecord::new(pod, &host.name, &host.ips, None);
    if let Err(error) = record.write(&shared.state) {
        tracing::warn!("{}: {error:#}", pod.key());
    }
    serve(shared, host, pod, (&host.netns, &host.ips), ending, report).await;
    let _ = std::fs::remove_file(PodRecord::path(&shared.state, &pod.metadata.uid));
}

async fn live_in_sandbox(
    shared: &Shared,
    host: &Host,
    pod: &PodObject,
    ending: &mut Ending,
    report: &Notify,
) {
    let mut pause = FIRST_PAUSE;
    while ending.borrow().is_none() {
        let Some(conflist) = network(shared, host, pod, ending).await else { return };
        let mut sandbox = match Sandbox::new(shared, host, pod, conflist) {
            Ok(sandbox) => sandbox,
            Err(error) => return tracing::error!("{}: {error:#}", pod.key()),
        };
        let made = {
            let _permit = shared.permits.acquire().await;
            make(&mut sandbox, ending).await
        };
        if let Some(Ok((netns, ips))) = &made {
            serve(shared, host, pod, (netns, ips), ending, report).await;
        }
        if let Some(Err(error)) = made {
            let message = format!("the pod's network cannot be made: {error:#}");
            tracing::warn!("{}: {message}", pod.key());
            patch_status(shared, pod, &status::waiting(pod, &host.ips, &message), ending).await;
            tear_down(shared, pod, &sandbox).await;
            tokio::select! { _ = sleep(pause) => {}, _ = told(ending) => {} }
            pause = (pause * 2).min(LONGEST_PAUSE);
        } else {
            tear_down(shared, pod, &sandbox).await;
        }
    }
}

/// Makes the sandbox; None when the pod ended before that was done.
async fn make(
    sandbox: &mut Sandbox<'_>,
    ending: &mut Ending,
) -> Option<anyhow::Result<(Netns, Vec<IpAddr>)>> {
    let netns = match sandbox.make_netns().await {
        Ok(netns) => netns,
        Err(error) => return Some(Err(error)),
    };
    // Cancelled half-way, a plugin is killed; the teardown takes away what it made.
    tokio::select! {
        ips = sandbox.attach() => Some(ips.map(|ips| (netns, ips))),
        _ = told(ending) => None,
    }
}

/// The node's network, as soon as there is one; None when the pod ends before.
async fn network(
    shared: &Shared,
    host: &Host,
    pod: &PodObject,
    ending: &mut Ending,
) -> Option<Arc<Conflist>> {
    let mut network = host.network.clone();
    let soon = timeout(QUIET, network.wait_for(Option::is_some)).await.is_ok();
    if !soon {
        patch_status(shared, pod, &status::waiting(pod, &host.ips, NO_NETWORK), ending).await;
    }
    tokio::select! {
        network = network.wait_for(Option::is_some) => network.ok()?.clone(),
        _ = told(ending) => None,
    }
}

/// Answers on the pod's ports and reports it running, until it ends.
async fn serve(
    shared: &Shared,
    host: &Host,
    pod: &PodObject,
    (netns, ips): (&Netns, &[IpAddr]),
    ending: &mut Ending,
    report: &Notify,
) {
    let meta = &pod.metadata;
    let identity =
        Identity { pod: meta.name.clone(), namespace: meta.namespace.clone(), node: host.name.clone() };
    let local = if pod.spec.host_network { ips } else { &[] };
    let mut reported = None;
    while ending.borrow().is_none() {
        let (responder, unserved) = Responder::start(netns, identity.clone(), &pod.ports(), local);
        let complete = unserved.failed.is_empty();
        if reported.as_ref() != Some(&unserved) {
            patch_status(shared, pod, &status::running(pod, &host.ips, ips, &unserved), ending).await;
            reported = Some(unserved);
        }
        let again = async { if complete { std::future::pending().await } else { sleep(RETRY_PORTS).await } };
        tokio::select! {
            _ = told(ending) => {}
            () = again => {}
            () = report.notified() => reported = None,
        }
        let end = *ending.borrow();
        if let Some(End::Deleted(given)) = end {
            let gone = ending.wait_for(|end| *end == Some(End::Gone));
            let _ = timeout(given.min(pod.sleeps()), gone).await;
        }
        responder.stop().await;
    }
}

/// Waits until the pod is to end.
async fn told(ending: &mut Ending) {
    // The lab's end means the same.
    let _ = ending.wait_for(Option::is_some).await;
}

/// Tries until nothing is left: an address or a link that stays would be missed by nobody else.
async fn tear_down(shared: &Shared, pod: &PodObject, sandbox: &Sandbox<'_>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let permit = shared.permits.acquire().await;
        let Err(error) = sandbox.tear_down().await else { return };
        drop(permit);
        tracing::warn!("{}: its network cannot be taken away yet: {error:#}", pod.key());
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Reports the pod's status; tries again until it is taken, refused for good, or the pod ends.
async fn patch_status(shared: &Shared, pod: &PodObject, patch: &Value, ending: &mut Ending) {
    let path = pod.path();
    let mut pause = FIRST_PAUSE;
    while let Err(error) = patch_once(shared, pod, &path, patch).await {
        if error.downcast_ref().is_some_and(weft_store::Error::not_found) {
            return;
        }
        tracing::warn!("{}: its status cannot be reported: {error:#}", pod.key());
        tokio::select! { _ = sleep(pause) => {}, _ = told(ending) => return }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn patch_once(shared: &Shared, pod: &PodObject, path: &str, patch: &Value) -> anyhow::Result<()> {
    let mut patch = patch.clone();
    // A pod of the same name that came after is not this one.
    patch["metadata"] = json!({"uid": pod.metadata.uid});
    shared.api.patch_status(path, &patch).await?;
    Ok(())
}

/// Removes the pod from the API: its node has nothing of it any more.
async fn remove(shared: &Shared, pod: &PodObject, ending: &mut Ending) {
    let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": pod.metadata.uid}});
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match shared.api.delete_with(&pod.path(), &options).await {
            Ok(_) => return,
            Err(error) if error.not_found() || error.conflict() => return,
            Err(error) => anyhow::Error::new(error).context("it cannot be removed from the API"),
        };
        tracing::warn!("{}: {error:#}", pod.key());
        let gone = ending.wait_for(|end| *end == Some(End::Gone));
        tokio::select! { _ = sleep(pause) => {}, _ = gone => return }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
