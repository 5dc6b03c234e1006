//! Which sandboxes the container runtime has, by the Container Runtime Interface
//! (`runtime.v1.RuntimeService` of Kubernetes' cri-api).

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tonic::Request;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic_prost::ProstCodec;

/// How long the runtime may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
const LIST: &str = "/runtime.v1.RuntimeService/ListPodSandbox";

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

/// The IDs of all sandboxes of the first runtime whose socket is there; none without one. A
/// runtime that does not answer is an error: its sandboxes may be alive.
pub(super) async fn sandboxes(sockets: &[PathBuf]) -> Result<Option<HashSet<String>>> {
    let Some(socket) = sockets.iter().find(|socket| socket.exists()) else { return Ok(None) };
    let answer = tokio::time::timeout(PATIENCE, list(socket)).await;
    let answer = answer.context("it did not answer").and_then(|answer| answer);
    let ids = answer.with_context(|| format!("ask the container runtime at {}", socket.display()))?;
    Ok(ids)
}

async fn list(socket: &Path) -> Result<Option<HashSet<String>>> {
    let mut grpc = Grpc::new(connect(socket.to_owned()).await?);
    grpc.ready().await.context("connect")?;
    let codec = ProstCodec::<ListPodSandboxRequest, ListPodSandboxResponse>::default();
    let request = Request::new(ListPodSandboxRequest {});
    match grpc.unary(request, PathAndQuery::from_static(LIST), codec).await {
        Ok(answer) => Ok(Some(answer.into_inner().items.into_iter().map(|sandbox| sandbox.id).collect())),
        // A containerd without its CRI plugin has no sandboxes.
        Err(status) if status.code() == tonic::Code::Unimplemented => Ok(None),
        Err(status) => Err(anyhow::anyhow!("{}", status.message())),
    }
}

async fn connect(socket: PathBuf) -> Result<Channel> {
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // The name is the HTTP/2 authority; the socket decides where it goes.
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await.context("connect")
}
