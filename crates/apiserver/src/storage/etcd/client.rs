//! Calls to etcd: to the server that answered last, and to the next one when it does not answer.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use http::uri::PathAndQuery;
use prost::Message;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, ConnectError, Request, Status};
use tonic_prost::ProstCodec;

use super::messages::{
    CompactionRequest, CompactionResponse, LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest,
    LeaseRevokeResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, RangeRequest, RangeResponse,
    TxnRequest, TxnResponse, WatchCreate, WatchRequest, WatchResponse,
};
use crate::storage::error::StorageError;

/// For an answer to one call.
const PATIENCE: Duration = Duration::from_secs(3);
/// For a connection; shorter, so that a call that was never sent is known as such.
const CONNECT: Duration = Duration::from_secs(2);
/// A silent connection is asked for a sign of life so often.
const PING: Duration = Duration::from_secs(5);
/// Bytes of one answer: a page of objects, or a part of a watch's.
const LARGEST: usize = 256 * 1024 * 1024;

/// What older changes etcd may forget: kube-apiserver's interval.
const COMPACTION: Duration = Duration::from_secs(300);

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
    /// So often etcd is told to forget what is older than this; zero is never.
    pub compaction_interval: Duration,
}

impl EtcdConfig {
    /// These servers, without TLS files, the prefix `/weft`, and a compaction every five minutes.
    pub fn new(servers: Vec<String>) -> Self {
        let prefix = "/weft".into();
        let compaction_interval = COMPACTION;
        Self { servers, prefix, ca_file: None, cert_file: None, key_file: None, compaction_interval }
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
            if !url.starts_with("http://") && !url.starts_with("https://") {
                return Err(format!("{url} is no URL such as https://10.0.0.1:2379"));
            }
            let endpoint = Endpoint::from_shared(url.clone()).map_err(|e| format!("{url}: {e}"))?;
            let endpoint = endpoint
                .connect_timeout(CONNECT)
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

    /// The servers in the order in which they are asked.
    fn order(&self) -> impl Iterator<Item = usize> + use<> {
        let (first, count) = (self.first.load(Ordering::Relaxed), self.servers.len());
        (0..count).map(move |turn| (first + turn) % count)
    }

    /// A server is asked first from now on.
    fn prefer(&self, index: usize) {
        self.first.store(index % self.servers.len(), Ordering::Relaxed);
    }

    fn grpc(&self, index: usize) -> Grpc<Channel> {
        Grpc::new(self.servers[index].clone()).max_decoding_message_size(LARGEST)
    }

    async fn call<Q, A>(&self, index: usize, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut grpc = self.grpc(index);
        let answer = async {
            grpc.ready().await.map_err(|e| Status::from_error(e.into()))?;
            let codec = ProstCodec::<Q, A>::default();
            grpc.unary(Request::new(request), PathAndQuery::from_static(path), codec).await
        };
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(answer) => answer.map(tonic::Response::into_inner).map_err(|status| explained(&status)),
            Err(_) => Err(Status::unavailable(format!("no answer within {} s", PATIENCE.as_secs()))),
        }
    }

    /// Keys and values, from any server that answers.
    pub(super) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        self.any("/etcdserverpb.KV/Range", request).await
    }

    /// A new lease of so many seconds. One that was granted and not answered ends by itself.
    pub(super) async fn grant(&self, ttl: i64) -> Result<i64, Status> {
        let granted: LeaseGrantResponse =
            self.any("/etcdserverpb.Lease/LeaseGrant", LeaseGrantRequest { ttl }).await?;
        Ok(granted.id)
    }

    /// Ends a lease, and the keys that it holds.
    pub(super) async fn revoke(&self, id: i64) -> Result<(), Status> {
        let path = "/etcdserverpb.Lease/LeaseRevoke";
        self.any::<_, LeaseRevokeResponse>(path, LeaseRevokeRequest { id }).await.map(drop)
    }

    /// Seconds that a lease has left; below 0 where it has ended.
    pub(super) async fn time_to_live(&self, id: i64) -> Result<i64, Status> {
        let request = LeaseTimeToLiveRequest { id };
        let left: LeaseTimeToLiveResponse = self.any("/etcdserverpb.Lease/LeaseTimeToLive", request).await?;
        Ok(left.ttl)
    }

    /// A call that may be made twice, of any server that answers.
    async fn any<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: Message + Clone + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut last = Status::unavailable("no server");
        for index in self.order() {
            match self.call(index, path, request.clone()).await {
                Err(status) if status.code() == Code::Unavailable => last = status,
                other => {
                    self.prefer(index);
                    return other;
                }
            }
        }
        Err(last)
    }

    /// A transaction. When there is no answer, it is done or not: it is not sent twice.
    pub(super) async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        let mut last = Status::unavailable("no server");
        for index in self.order() {
            match self.call(index, "/etcdserverpb.KV/Txn", request.clone()).await {
                Err(status) if was_never_sent(&status) => last = status,
                other => {
                    let away = other.as_ref().is_err_and(|status| status.code() == Code::Unavailable);
                    self.prefer(if away { index + 1 } else { index });
                    return other;
                }
            }
        }
        Err(last)
    }

    /// Forgets what was before a revision.
    pub(super) async fn compact(&self, revision: i64) -> Result<(), Status> {
        let request = CompactionRequest { revision };
        let first = self.first.load(Ordering::Relaxed);
        self.call::<_, CompactionResponse>(first, "/etcdserverpb.KV/Compact", request).await.map(drop)
    }

    /// A stream of changes, from the server that answered last. It ends when that server is cut off from
    /// the others.
    pub(super) async fn watch(
        &self,
        create: WatchCreate,
    ) -> Result<impl Stream<Item = Result<WatchResponse, Status>> + Send + use<>, Status> {
        let mut grpc = self.grpc(self.first.load(Ordering::Relaxed));
        let request = WatchRequest { create: Some(create) };
        // The request's stream stays open: its end would end the watch.
        let requests = stream::once(async { request }).chain(stream::pending());
        let mut requests = Request::new(requests);
        requests.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let answer = async {
            grpc.ready().await.map_err(|e| Status::from_error(e.into()))?;
            let codec = ProstCodec::<WatchRequest, WatchResponse>::default();
            let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
            grpc.streaming(requests, path, codec).await
        };
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(answer) => answer.map(tonic::Response::into_inner).map_err(|status| explained(&status)),
            Err(_) => Err(Status::unavailable("no answer to a watch")),
        }
    }
}

/// Marks a request that no server can have done.
#[derive(Debug, thiserror::Error)]
#[error("the request was never sent")]
struct NeverSent;

/// Whether a request was not sent, because there was no connection.
pub(super) fn was_never_sent(status: &Status) -> bool {
    status.source().is_some_and(|source| source.is::<NeverSent>())
}

/// Whether etcd refuses a request for its size: etcd itself, or its gRPC before it.
pub(super) fn is_too_large(status: &Status) -> bool {
    match status.code() {
        Code::InvalidArgument => status.message().contains("too large"),
        Code::ResourceExhausted => status.message().contains("larger than max"),
        _ => false,
    }
}

/// The same failure, with what caused it in its message.
fn explained(status: &Status) -> Status {
    let (mut text, mut never_sent) = (status.message().to_owned(), false);
    let mut source = status.source();
    while let Some(cause) = source {
        never_sent |= cause.is::<ConnectError>();
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    let mut explained = Status::new(status.code(), text);
    if never_sent {
        explained.set_source(Arc::new(NeverSent));
    }
    explained
}

fn tls(config: &EtcdConfig) -> Result<Option<ClientTlsConfig>, String> {
    if !config.servers.iter().any(|url| url.starts_with("https:")) {
        return Ok(None);
    }
    let read =
        |path: &Path| std::fs::read(path).map_err(|e| format!("{} cannot be read: {e}", path.display()));
    let ca = config.ca_file.as_ref().ok_or("https needs --etcd-cafile, to know the servers by")?;
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?));
    match (&config.cert_file, &config.key_file) {
        (Some(cert), Some(key)) => tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?)),
        (None, None) => {}
        _ => return Err("--etcd-certfile and --etcd-keyfile go together".to_owned()),
    }
    Ok(Some(tls))
}
