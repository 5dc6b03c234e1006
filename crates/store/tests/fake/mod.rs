//! A Kubernetes API server for tests: nodes and pods over real HTTP, and every way to fail.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use weft_store::{Api, Patience, Store, StoreConfig, Update};

pub(crate) type Answer = Response<BoxBody<Bytes, std::io::Error>>;

/// How one request goes wrong.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// A Status with this code, and Retry-After when given.
    Refuse(u16, Option<u64>),
    /// The request is read and never answered.
    Hang,
    /// A watch answers with its head and then nothing, ever.
    Silence,
    /// An answer's first bytes, and then the connection breaks.
    Torn(String),
    /// These bytes as the whole answer, which then ends cleanly.
    Whole(String),
    /// These chunks, one every few milliseconds, and then a clean end.
    Stutter(Vec<String>),
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) version: u64,
    objects: BTreeMap<(&'static str, String), Value>,
    log: Vec<(u64, &'static str, String)>,
    /// Watches from before this version are gone.
    pub(crate) floor: u64,
    faults: BTreeMap<&'static str, VecDeque<Fault>>,
    /// "list pods", "watch nodes"… in order.
    pub(crate) requests: Vec<&'static str>,
    pub(crate) token: Option<String>,
}

pub(crate) struct Fake {
    pub(crate) state: Arc<Mutex<State>>,
    news: Arc<Notify>,
    pub(crate) address: SocketAddr,
    pub(crate) folder: tempfile::TempDir,
    server: Mutex<JoinSet<()>>,
}

fn collection(path: &str) -> Option<&'static str> {
    ["nodes", "pods"].into_iter().find(|kind| path == format!("/api/v1/{kind}"))
}

pub(crate) fn pod(name: &str, ip: &str) -> Value {
    json!({"kind": "Pod", "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"nodeName": "node1"}, "status": {"phase": "Running", "podIP": ip}})
}

impl Fake {
    /// A server with one node and `pods` pods.
    pub(crate) async fn start(pods: usize) -> Fake {
        let fake = Fake::without_server(pods).await;
        fake.serve().await;
        fake
    }

    /// The same, not listening yet.
    pub(crate) async fn without_server(pods: usize) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Fake {
            state: Arc::default(),
            news: Arc::default(),
            address: listener.local_addr().unwrap(),
            folder: tempfile::tempdir().unwrap(),
            server: Mutex::default(),
        };
        fake.write_kubeconfig("right");
        fake.put("nodes", json!({"metadata": {"name": "node1"}, "spec": {"podCIDR": "10.244.0.0/24"}}));
        for i in 0..pods {
            fake.put("pods", pod(&format!("base-{i}"), &format!("10.244.{}.{}", i / 250, i % 250)));
        }
        fake
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    pub(crate) fn write_kubeconfig(&self, token: &str) {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: \"http://{}\"}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\nusers: [{{name: u, user: {{token: {token}}}}}]\n",
            self.address
        );
        std::fs::write(self.kubeconfig(), text).unwrap();
    }

    pub(crate) async fn api(&self) -> Api {
        let patience = Patience {
            connect: Duration::from_secs(2),
            answer: Duration::from_secs(2),
            watch: Duration::from_secs(1),
        };
        Api::with_patience(&self.kubeconfig(), patience).await.unwrap()
    }

    pub(crate) async fn store(&self, cache: Option<&Path>) -> Store {
        let config = StoreConfig {
            cache: cache.map(Path::to_owned),
            cache_every: Duration::from_millis(50),
            ..StoreConfig::default()
        };
        Store::start(self.api().await, config)
    }

    /// Begins to listen.
    pub(crate) async fn serve(&self) {
        let listener = loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let (state, news) = (self.state.clone(), self.news.clone());
        self.server.lock().unwrap().spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (state, news) = (state.clone(), news.clone());
                connections.spawn(async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (state, news) = (state.clone(), news.clone());
                        async move { Ok::<_, Infallible>(answer(state, news, &request).await) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
                });
            }
        });
    }

    /// Stops listening and breaks every connection.
    pub(crate) async fn stop(&self) {
        let mut server = std::mem::take(&mut *self.server.lock().unwrap());
        server.shutdown().await;
    }

    pub(crate) fn fault(&self, request: &'static str, fault: Fault) {
        self.lock().faults.entry(request).or_default().push_back(fault);
    }

    pub(crate) fn count(&self, request: &str) -> usize {
        self.lock().requests.iter().filter(|r| **r == request).count()
    }

    /// Breaks the running watches in an orderly way: they end, as when their time is over.
    pub(crate) fn end_watches(&self) {
        self.news.notify_waiters();
    }

    pub(crate) fn put(&self, kind: &'static str, mut object: Value) {
        let mut state = self.lock();
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let event = if state.objects.contains_key(&(kind, name.clone())) { "MODIFIED" } else { "ADDED" };
        state.log.push((version, kind, json!({"type": event, "object": object}).to_string() + "\n"));
        state.objects.insert((kind, name), object);
        drop(state);
        self.news.notify_waiters();
    }

    pub(crate) fn remove(&self, kind: &'static str, name: &str) {
        let mut state = self.lock();
        state.version += 1;
        let version = state.version;
        let mut object = state.objects.remove(&(kind, name.to_owned())).unwrap();
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        state.log.push((version, kind, json!({"type": "DELETED", "object": object}).to_string() + "\n"));
        drop(state);
        self.news.notify_waiters();
    }
}

async fn answer(state: Arc<Mutex<State>>, news: Arc<Notify>, request: &Request<Incoming>) -> Answer {
    let Some(kind) = collection(request.uri().path()) else { return refuse(404, None) };
    let query: BTreeMap<&str, &str> =
        request.uri().query().unwrap_or("").split('&').filter_map(|part| part.split_once('=')).collect();
    let watch = query.contains_key("watch");
    let name = match (watch, kind) {
        (true, "nodes") => "watch nodes",
        (true, _) => "watch pods",
        (false, "nodes") => "list nodes",
        (false, _) => "list pods",
    };
    let fault = {
        let mut state = state.lock().unwrap();
        state.requests.push(name);
        let given = request.headers().get("authorization").and_then(|v| v.to_str().ok()).map(str::to_owned);
        if state.token.as_ref().is_some_and(|token| given != Some(format!("Bearer {token}"))) {
            return refuse(401, None);
        }
        state.faults.get_mut(name).and_then(VecDeque::pop_front)
    };
    if let Some(fault) = fault {
        return failing(fault).await;
    }
    if watch {
        let from = query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
        return watching(state, news, kind, from);
    }
    list(&state.lock().unwrap(), kind, &query)
}

fn list(state: &State, kind: &'static str, query: &BTreeMap<&str, &str>) -> Answer {
    let limit: usize =
        query.get("limit").and_then(|v| v.parse().ok()).filter(|v| *v > 0).unwrap_or(usize::MAX);
    let from: usize = query.get("continue").and_then(|v| v.parse().ok()).unwrap_or(0);
    let all: Vec<&Value> =
        state.objects.iter().filter(|((k, _), _)| *k == kind).map(|(_, object)| object).collect();
    let page: Vec<_> = all.iter().skip(from).take(limit).collect();
    let rest = from + page.len();
    let token = if rest < all.len() { rest.to_string() } else { String::new() };
    let text = json!({"kind": "List", "items": page,
        "metadata": {"resourceVersion": state.version.to_string(), "continue": token}});
    chunks(vec![Ok(text.to_string())])
}

fn watching(state: Arc<Mutex<State>>, news: Arc<Notify>, kind: &'static str, from: u64) -> Answer {
    if from < state.lock().unwrap().floor {
        return refuse(410, None);
    }
    let (tx, rx) = mpsc::channel(16);
    tokio::spawn(async move {
        let mut sent = from;
        let until = tokio::time::Instant::now() + Duration::from_secs(1);
        loop {
            let notified = news.notified();
            let lines: String = {
                let state = state.lock().unwrap();
                let new = state.log.iter().filter(|(v, k, _)| *v > sent && *k == kind);
                let lines = new.map(|(_, _, line)| line.as_str()).collect();
                sent = state.version;
                lines
            };
            if !lines.is_empty() && tx.send(Ok(lines)).await.is_err() {
                return;
            }
            if tokio::time::timeout_at(until, notified).await.is_err() {
                let bookmark = json!({"type": "BOOKMARK",
                    "object": {"metadata": {"resourceVersion": sent.to_string()}}});
                let _ = tx.send(Ok(format!("{bookmark}\n"))).await;
                return;
            }
        }
    });
    streamed(rx)
}

async fn failing(fault: Fault) -> Answer {
    match fault {
        Fault::Refuse(code, wait) => refuse(code, wait),
        Fault::Hang => std::future::pending().await,
        Fault::Silence => {
            let (tx, rx) = mpsc::channel(1);
            tokio::spawn(async move {
                tx.closed().await;
            });
            streamed(rx)
        }
        Fault::Torn(text) => chunks(vec![Ok(text), Err(())]),
        Fault::Whole(text) => chunks(vec![Ok(text)]),
        Fault::Stutter(parts) => {
            let (tx, rx) = mpsc::channel(1);
            tokio::spawn(async move {
                for part in parts {
                    let _ = tx.send(Ok(part)).await;
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
            });
            streamed(rx)
        }
    }
}

fn refuse(code: u16, wait: Option<u64>) -> Answer {
    let reason = if code == 410 { "Expired" } else { "Test" };
    let status = json!({"kind": "Status", "code": code, "reason": reason, "message": "as the test wants"});
    let mut answer = chunks(vec![Ok(status.to_string())]);
    *answer.status_mut() = StatusCode::from_u16(code).unwrap();
    if let Some(wait) = wait {
        answer.headers_mut().insert("retry-after", wait.into());
    }
    answer
}

fn chunks(parts: Vec<Result<String, ()>>) -> Answer {
    let (tx, rx) = mpsc::channel(parts.len().max(1));
    for part in parts {
        tx.try_send(part).unwrap();
    }
    streamed(rx)
}

fn streamed(rx: mpsc::Receiver<Result<String, ()>>) -> Answer {
    let frames = stream::unfold(rx, |mut rx| async {
        let part = rx.recv().await?;
        // Lets what was sent before reach the wire before the connection breaks.
        if part.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let frame =
            part.map(|text| Frame::data(Bytes::from(text))).map_err(|()| std::io::Error::other("torn"));
        Some((frame, rx))
    });
    Response::new(BodyExt::boxed(StreamBody::new(frames)))
}

/// Takes updates until `enough`, checking after each that every base pod is still there.
pub(crate) async fn follow(store: &mut Store, bases: usize, enough: impl Fn(&Update) -> bool) -> Vec<Update> {
    let mut seen = Vec::new();
    loop {
        let next = tokio::time::timeout(Duration::from_secs(20), store.changed()).await;
        let update =
            next.unwrap_or_else(|_| panic!("nothing new; the last of {} was {:?}", seen.len(), seen.last()));
        let present = update.cluster.pods.keys().filter(|key| key.name.starts_with("base-")).count();
        assert_eq!(present, bases, "no base pod may ever be missing");
        assert_eq!(update.cluster.nodes.len(), 1);
        let done = enough(&update);
        seen.push(update);
        if done {
            return seen;
        }
    }
}

pub(crate) fn has(update: &Update, name: &str) -> bool {
    update.cluster.pods.contains_key(&weft_model::PodKey::new("default", name))
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
