//! What the container runtime knows of its sandboxes, by the Container Runtime Interface
//! (`runtime.v1.RuntimeService` of Kubernetes' cri-api), and containerd of its other containers.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

/// How long the runtime may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
const LIST: &str = "/runtime.v1.RuntimeService/ListPodSandbox";
const STATUS: &str = "/runtime.v1.RuntimeService/PodSandboxStatus";
const CONTAINER: &str = "/containerd.services.containers.v1.Containers/Get";
/// The header that says which of containerd's namespaces is meant.
const NAMESPACE: &str = "containerd-namespace";

/// Without a filter: all of them.
#[derive(Clone, PartialEq, Message)]
struct ListPodSandboxRequest {}

#[derive(Clone, PartialEq, Message)]
struct ListPodSandboxResponse {
    #[prost(message, repeated, tag = "1")]
    items: Vec<PodSandbox>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandbox {
    #[prost(string, tag = "1")]
    id: String,
}

/// The request for one object by its ID, in both services.
#[derive(Clone, PartialEq, Message)]
struct ById {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxStatusResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<PodSandboxStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxStatus {
    #[prost(map = "string, string", tag = "7")]
    labels: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct GetContainerResponse {
    #[prost(message, optional, tag = "1")]
    container: Option<Container>,
}

#[derive(Clone, PartialEq, Message)]
struct Container {
    #[prost(map = "string, string", tag = "2")]
    labels: HashMap<String, String>,
}

/// The sandboxes that a runtime lists.
#[derive(Clone, Debug, Default)]
pub(super) struct Sandboxes {
    pub(super) ids: HashSet<String>,
    /// How long the runtime has been running; none where its processes are not ours to see.
    pub(super) age: Option<Duration>,
}

/// The first of several runtimes whose socket is there.
#[derive(Debug)]
pub(super) struct Cri {
    sockets: Vec<PathBuf>,
    /// The socket of a runtime that had sandboxes to list: when it is away, they may be alive.
    known: Option<PathBuf>,
}

impl Cri {
    pub(super) fn new(sockets: Vec<PathBuf>) -> Cri {
        Cri { sockets, known: None }
    }

    /// All sandboxes; none where there is no runtime that speaks CRI. One that does not answer, or
    /// did and is away, is an error: its sandboxes may be alive.
    pub(super) async fn sandboxes(&mut self) -> Result<Option<Sandboxes>> {
        let Some(socket) = self.socket() else {
            if let Some(known) = &self.known {
                bail!("the container runtime at {} is away", known.display());
            }
            return Ok(None);
        };
        let asked = async {
            let peer = UnixStream::connect(&socket).await?.peer_cred()?;
            let answer = unary(&socket, LIST, Request::new(ListPodSandboxRequest {})).await?;
            let list: ListPodSandboxResponse = match answer {
                Ok(list) => list,
                // A containerd without its CRI plugin has no sandboxes.
                Err(status) if status.code() == Code::Unimplemented => return Ok(None),
                Err(status) => bail!("{}", status.message()),
            };
            let ids = list.items.into_iter().map(|sandbox| sandbox.id).collect();
            // The kernel says 0 for a process that is not in our namespace of them.
            let age = peer.pid().filter(|pid| *pid > 0).and_then(age);
            Ok(Some(Sandboxes { ids, age }))
        };
        let listed = patiently(&socket, asked).await?;
        if listed.is_some() {
            self.known = Some(socket);
        }
        Ok(listed)
    }

    /// The labels of a sandbox, or of a container that containerd has by the names that ctr and
    /// nerdctl give to CNI; none of what the runtime does not know.
    pub(super) async fn labels(&self, container_id: &str) -> Result<Option<HashMap<String, String>>> {
        let Some(socket) = self.socket() else { return Ok(None) };
        let asked = async {
            let request = Request::new(ById { id: container_id.into() });
            let answer = unary::<_, PodSandboxStatusResponse>(&socket, STATUS, request).await?;
            if let Some(answer) = known(answer)? {
                return Ok(answer.status.map(|status| status.labels));
            }
            // NAMESPACE-CONTAINER, and both may have dashes.
            for (at, _) in container_id.match_indices('-').take(8) {
                let mut request = Request::new(ById { id: container_id[at + 1..].into() });
                let Ok(namespace) = container_id[..at].parse() else { continue };
                request.metadata_mut().insert(NAMESPACE, namespace);
                let answer = unary::<_, GetContainerResponse>(&socket, CONTAINER, request).await?;
                if let Some(answer) = known(answer)? {
                    return Ok(answer.container.map(|container| container.labels));
                }
            }
            Ok(None)
        };
        patiently(&socket, asked).await
    }

    fn socket(&self) -> Option<PathBuf> {
        self.sockets.iter().find(|socket| socket.exists()).cloned()
    }
}

/// How long a process has been running.
fn age(pid: i32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in brackets and may hold anything; the 20th field behind it is the start, in
    // hundredths of a second since boot.
    let started: f64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let up: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(up - started / 100.0).ok()
}

async fn patiently<T>(socket: &Path, asked: impl Future<Output = Result<T>>) -> Result<T> {
    let answer = tokio::time::timeout(PATIENCE, asked).await.context("it did not answer");
    answer.flatten().with_context(|| format!("ask the container runtime at {}", socket.display()))
}

/// None for what the runtime does not have, or no service for.
fn known<T>(answer: Result<T, Status>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => Ok(None),
        Err(status) => bail!("{}", status.message()),
    }
}

async fn unary<T, U>(socket: &Path, path: &'static str, request: Request<T>) -> Result<Result<U, Status>>
where
    T: Message + Default + 'static,
    U: Message + Default + 'static,
{
    let mut grpc = Grpc::new(connect(socket.to_owned()).await?);
    grpc.ready().await.context("connect")?;
    let codec = ProstCodec::<T, U>::default();
    let answer = grpc.unary(request, PathAndQuery::from_static(path), codec).await;
    Ok(answer.map(tonic::Response::into_inner))
}

async fn connect(socket: PathBuf) -> Result<Channel> {
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // The name is the HTTP/2 authority; the socket decides where it goes.
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await.context("connect")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_that_was_there_and_is_away_is_no_answer() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("cri.sock");
        let mut cri = Cri::new(vec![socket.clone()]);
        assert!(runtime.block_on(cri.sandboxes()).unwrap().is_none(), "there never was one");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let refused = runtime.block_on(cri.sandboxes()).unwrap_err();
        assert!(format!("{refused:#}").contains("ask the container runtime at"), "{refused:#}");
        std::fs::remove_file(&socket).unwrap();
        assert!(runtime.block_on(cri.sandboxes()).unwrap().is_none(), "it never answered");
        let own = age(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own < Duration::from_secs(3600), "{own:?}");
        cri.known = Some(socket);
        let away = runtime.block_on(cri.sandboxes()).unwrap_err();
        assert!(away.to_string().contains("is away"), "{away}");
    }
}
