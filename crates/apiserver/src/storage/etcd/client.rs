//! Calls to etcd: to the server that answered last, and to the next one when it does not answer.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use http::uri::PathAndQuery;
use prost::Message;
use tonic::client::Grpc;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::messages::{
    CompactionRequest, CompactionResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse, WatchCreate,
    WatchRequest, WatchResponse,
};
use crate::storage::error::StorageError;

/// For a connection, and for an answer to one call.
const PATIENCE: Duration = Duration::from_secs(3);
/// A silent connection is asked for a sign of life so often.
const PING: Duration = Duration::from_secs(5);
/// Bytes of one answer: a page of objects, or a part of a watch's.
const LARGEST: usize = 256 * 1024 * 1024;

/// Which etcd, and how to be let in.
#[derive(Debug, Clone)]
pub struct EtcdConfig {
    /// URLs of the servers of one cluster.
    pub servers: Vec<String>,
    /// Start of the keys of everything that is stored.
    pub prefix: String,
    /// The authority that signed the servers' certificates.
    pub ca_file: Option<PathBuf>,
    /// The client's own certificate.
    pub cert_file: Option<PathBuf>,
    /// The key of the client's certificate.
    pub key_file: Option<PathBuf>,
}

impl EtcdConfig {
    /// These servers, without TLS files, and the prefix `/weft`.
    pub fn new(servers: Vec<String>) -> Self {
        Self { servers, prefix: "/weft".into(), ca_file: None, cert_file: None, key_file: None }
    }
}

/// Connections to the servers; made when they are needed.
pub(super) struct Client {
    servers: Vec<Channel>,
    names: String,
    /// Index of the server that is asked first.
    first: AtomicUsize,
}

impl Client {
    pub(super) fn new(config: &EtcdConfig) -> Result<Self, StorageError> {
        let names = config.servers.join(",");
        let failed = |cause: String| StorageError::Store { path: names.clone(), op: "be reached", cause };
        let tls = tls(config).map_err(failed)?;
        let channel = |url: &String| {
            let endpoint = Endpoint::from_shared(url.clone()).map_err(|e| format!("{url}: {e}"))?;
            let endpoint = endpoint
                .connect_timeout(PATIENCE)
                .http2_keep_alive_interval(PING)
                .keep_alive_timeout(PATIENCE)
                .keep_alive_while_idle(true)
                .tcp_nodelay(true);
            let endpoint = match &tls {
                Some(tls) if url.starts_with("https:") => {
                    endpoint.tls_config(tls.clone()).map_err(|e| format!("{url}: {e}"))?
                }
                _ => endpoint,
            };
            Ok(endpoint.connect_lazy())
        };
        let servers = config.servers.iter().map(channel).collect::<Result<Vec<_>, _>>().map_err(failed)?;
        if servers.is_empty() {
            return Err(failed("no server is given".to_owned()));
        }
        Ok(Self { servers, names, first: AtomicUsize::new(0) })
    }

    /// The servers' URLs, for messages.
    pub(super) fn names(&self) -> &str {
        &self.names
    }

    fn grpc(&self, turn: usize) -> Grpc<Channel> {
        let index = (self.first.load(Ordering::Relaxed) + turn) % self.servers.len();
        Grpc::new(self.servers[index].clone()).max_decoding_message_size(LARGEST)
    }

    async fn call<Q, A>(&self, turn: usize, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut grpc = self.grpc(turn);
        let answer = async {
            grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
            let codec = ProstCodec::<Q, A>::default();
            grpc.unary(Request::new(request), PathAndQuery::from_static(path), codec).await
        };
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_) => Err(Status::unavailable(format!("no answer within {} s", PATIENCE.as_secs()))),
        }
    }

    /// Keys and values, from any server that answers.
    pub(super) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        let mut last = Status::unavailable("no server");
        for turn in 0..self.servers.len() {
            match self.call(turn, "/etcdserverpb.KV/Range", request.clone()).await {
                Err(status) if status.code() == Code::Unavailable => last = status,
                other => {
                    if turn > 0 {
                        self.first.fetch_add(turn, Ordering::Relaxed);
                    }
                    return other;
                }
            }
        }
        Err(last)
    }

    /// A transaction. When there is no answer, it is done or not: it is not sent twice.
    pub(super) async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        self.call(0, "/etcdserverpb.KV/Txn", request).await
    }

    /// Forgets what was before a revision.
    pub(super) async fn compact(&self, revision: i64) -> Result<(), Status> {
        let request = CompactionRequest { revision };
        self.call::<_, CompactionResponse>(0, "/etcdserverpb.KV/Compact", request).await.map(drop)
    }

    /// A stream of changes.
    pub(super) async fn watch(
        &self,
        create: WatchCreate,
    ) -> Result<impl Stream<Item = Result<WatchResponse, Status>> + Send + use<>, Status> {
        let mut grpc = self.grpc(0);
        let request = WatchRequest { create: Some(create) };
        // The request's stream stays open: its end would end the watch.
        let requests = stream::once(async { request }).chain(stream::pending());
        let answer = async {
            grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
            let codec = ProstCodec::<WatchRequest, WatchResponse>::default();
            let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
            grpc.streaming(Request::new(requests), path, codec).await
        };
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_) => Err(Status::unavailable("no answer to a watch")),
        }
    }
}

fn tls(config: &EtcdConfig) -> Result<Option<ClientTlsConfig>, String> {
    if !config.servers.iter().any(|url| url.starts_with("https:")) {
        return Ok(None);
    }
    let read =
        |path: &Path| std::fs::read(path).map_err(|e| format!("{} cannot be read: {e}", path.display()));
    let mut tls = ClientTlsConfig::new();
    if let Some(ca) = &config.ca_file {
        tls = tls.ca_certificate(Certificate::from_pem(read(ca)?));
    }
    match (&config.cert_file, &config.key_file) {
        (Some(cert), Some(key)) => tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?)),
        (None, None) => {}
        _ => return Err("--etcd-certfile and --etcd-keyfile go together".to_owned()),
    }
    Ok(Some(tls))
}
