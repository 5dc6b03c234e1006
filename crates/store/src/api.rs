use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use http::{Method, Request};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use tokio::time::timeout;

use crate::Error;
use crate::page::{self, Page};
use crate::watch::Watch;

/// Objects asked for in one page of a list.
const PAGE_LIMIT: usize = 500;
/// The longest answer that is read, in bytes; beyond it the answer is refused.
const ANSWER_LIMIT: usize = 256 << 20;

/// How long to wait for the API before a connection counts as lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For an answer's head, and then for each further piece of it.
    pub answer: Duration,
    /// How long one watch runs before it is renewed. A watch that is silent for
    /// this and three seconds more has lost its connection, with or without a reset.
    pub watch: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Patience { connect: seconds(5), answer: seconds(20), watch: seconds(25) }
    }
}

/// A client of the Kubernetes API that speaks in API paths (`/api/v1/namespaces/default/pods/x`)
/// and JSON. It retries nothing; cloning it shares its connections.
#[derive(Clone)]
pub struct Api {
    inner: Arc<Inner>,
}

struct Inner {
    kubeconfig: PathBuf,
    patience: Patience,
    client: RwLock<Client>,
    /// Counts how often all connections were given up.
    given_up: tokio::sync::watch::Sender<u64>,
}

impl Api {
    /// A client for the current context of the kubeconfig at `path`, or where that is empty for the
    /// ServiceAccount of the pod that this process is in. Nothing is sent yet.
    /// Must be called within a Tokio runtime.
    pub async fn from_kubeconfig(path: &Path) -> Result<Self, Error> {
        Self::with_patience(path, Patience::default()).await
    }

    /// The same with waiting times of one's own.
    pub async fn with_patience(path: &Path, patience: Patience) -> Result<Self, Error> {
        let client = RwLock::new(connect(path, patience).await?);
        let given_up = tokio::sync::watch::Sender::new(0);
        Ok(Api { inner: Arc::new(Inner { kubeconfig: path.to_owned(), patience, client, given_up }) })
    }

    /// Reads the kubeconfig again and drops every open connection: for a token that
    /// expired, or connections that fell silent.
    pub async fn reload(&self) -> Result<(), Error> {
        let fresh = connect(&self.inner.kubeconfig, self.inner.patience).await?;
        *self.inner.client.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = fresh;
        Ok(())
    }

    /// Gives every connection up and ends all running watches: the address of this host from which they
    /// were made is gone, and nothing would ever come by them.
    pub async fn reconnect(&self) -> Result<(), Error> {
        self.reload().await?;
        self.inner.given_up.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Reads one object.
    pub async fn get(&self, path: &str) -> Result<Value, Error> {
        self.exchange(Method::GET, path, None).await
    }

    /// Reads a whole list, page by page, as one List object.
    pub async fn list(&self, path: &str) -> Result<Value, Error> {
        let mut token = None;
        let mut items = Vec::new();
        loop {
            let mut list = self.get(&page::path(path, PAGE_LIMIT, token.as_deref())).await?;
            if let Some(Value::Array(more)) = list.get_mut("items").map(Value::take) {
                items.extend(more);
            }
            token = list.pointer("/metadata/continue").and_then(Value::as_str).map(str::to_owned);
            if token.as_deref().unwrap_or_default().is_empty() {
                list["items"] = Value::Array(items);
                return Ok(list);
            }
        }
    }

    /// Reads one page of a list: at most `limit` objects (0 for all), from where the
    /// `token` of the page before says.
    pub async fn list_page(&self, path: &str, limit: usize, token: Option<&str>) -> Result<Page, Error> {
        let path = page::path(path, limit, token);
        let body = self.raw(Method::GET, &path, None).await?;
        Page::parse(&body).map_err(|e| malformed(&Method::GET, &path, e))
    }

    /// Creates an object; `path` is the collection's.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value, Error> {
        self.exchange(Method::POST, path, Some(("application/json", object))).await
    }

    /// Replaces an object; fails with a conflict when its resourceVersion is given and old.
    pub async fn replace(&self, path: &str, object: &Value) -> Result<Value, Error> {
        self.exchange(Method::PUT, path, Some(("application/json", object))).await
    }

    /// Applies a JSON merge patch (RFC 7396).
    pub async fn merge_patch(&self, path: &str, patch: &Value) -> Result<Value, Error> {
        self.exchange(Method::PATCH, path, Some(("application/merge-patch+json", patch))).await
    }

    /// Applies a JSON patch (RFC 6902).
    pub async fn json_patch(&self, path: &str, patch: &Value) -> Result<Value, Error> {
        self.exchange(Method::PATCH, path, Some(("application/json-patch+json", patch))).await
    }

    /// Applies a JSON merge patch to the status of the object at `path`.
    pub async fn patch_status(&self, path: &str, patch: &Value) -> Result<Value, Error> {
        self.merge_patch(&format!("{path}/status"), patch).await
    }

    /// Deletes an object.
    pub async fn delete(&self, path: &str) -> Result<Value, Error> {
        self.exchange(Method::DELETE, path, None).await
    }

    /// Deletes an object with DeleteOptions (grace period, preconditions, propagation).
    pub async fn delete_with(&self, path: &str, options: &Value) -> Result<Value, Error> {
        self.exchange(Method::DELETE, path, Some(("application/json", options))).await
    }

    /// Asks for an answer of any length, which is read in pieces.
    pub async fn download(&self, path: &str) -> Result<Download, Error> {
        let response = self.send(Method::GET, path, None).await?;
        let request = format!("GET {path}");
        Ok(Download { request, body: response.into_body(), patience: self.inner.patience.answer })
    }

    /// Watches a collection for what comes after `resource_version`, bookmarks included.
    pub async fn watch(&self, path: &str, resource_version: &str) -> Result<Watch, Error> {
        let Patience { answer, watch, .. } = self.inner.patience;
        let seconds = watch.as_secs().max(1);
        // From before the request: what is given up while it is on its way ends it too.
        let given_up = self.inner.given_up.subscribe();
        let joint = if path.contains('?') { '&' } else { '?' };
        let path = format!(
            "{path}{joint}watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={}",
            page::escape(resource_version)
        );
        let response = self.send(Method::GET, &path, None).await?;
        // A quarter of the answer's patience is what a slow server may be late by.
        let silence = watch + answer.min(Duration::from_secs(12)) / 4;
        Ok(Watch::new(format!("GET {path}"), response.into_body(), silence, given_up))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Value, Error> {
        let answer = self.raw(method.clone(), path, body).await?;
        serde_json::from_slice(&answer).map_err(|e| malformed(&method, path, e))
    }

    async fn raw(&self, method: Method, path: &str, body: Option<(&str, &Value)>) -> Result<Bytes, Error> {
        let response = self.send(method.clone(), path, body).await?;
        collect(&format!("{method} {path}"), response.into_body(), self.inner.patience.answer).await
    }

    /// Sends a request and returns the response's head; a refusal becomes an error.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<http::Response<Body>, Error> {
        let name = format!("{method} {path}");
        let mut request =
            Request::builder().method(method.clone()).uri(path).header(ACCEPT, "application/json");
        let mut bytes = Vec::new();
        if let Some((kind, value)) = body {
            request = request.header(CONTENT_TYPE, kind);
            bytes = serde_json::to_vec(value).map_err(|e| malformed(&method, path, e))?;
        }
        let request = request.body(Body::from(bytes)).map_err(|e| malformed(&method, path, e))?;
        let client = self.inner.client.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        let patience = self.inner.patience.answer;
        let response = match timeout(patience, client.send(request)).await {
            Ok(sent) => sent.map_err(|e| unreachable(&name, broken(&e)))?,
            Err(_) => return Err(silent(&name, patience)),
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let (code, wait) = (response.status().as_u16(), retry_after(response.headers()));
        let body = collect(&name, response.into_body(), patience).await.unwrap_or_default();
        Err(Error::refusal(&name, code, &body, wait))
    }
}

async fn connect(path: &Path, patience: Patience) -> Result<Client, Error> {
    let in_pod = path.as_os_str().is_empty();
    let refuse = |reason: String| match in_pod {
        true => Error::ServiceAccount { reason },
        false => Error::Kubeconfig { path: path.to_owned(), reason },
    };
    let mut config = if in_pod {
        Config::incluster().map_err(|e| refuse(causes(&e)))?
    } else {
        let file = Kubeconfig::read_from(path).map_err(|e| refuse(causes(&e)))?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        config.map_err(|e| refuse(causes(&e)))?
    };
    config.connect_timeout = Some(patience.connect);
    config.write_timeout = Some(patience.answer);
    config.default_retry = false;
    Client::try_from(config).map_err(|e| refuse(causes(&e)))
}

/// An answer that is being read.
pub struct Download {
    request: String,
    body: Body,
    patience: Duration,
}

impl Download {
    /// The next piece; None at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let frame = match timeout(self.patience, self.body.frame()).await {
                Err(_) => return Err(silent(&self.request, self.patience)),
                Ok(None) => return Ok(None),
                Ok(Some(frame)) => frame.map_err(|e| unreachable(&self.request, causes(&e)))?,
            };
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }
}

async fn collect(request: &str, body: Body, patience: Duration) -> Result<Bytes, Error> {
    let mut answer = Download { request: request.to_owned(), body, patience };
    let mut all = BytesMut::new();
    while let Some(data) = answer.next().await? {
        if all.len() + data.len() > ANSWER_LIMIT {
            let reason = format!("it is longer than {} MiB", ANSWER_LIMIT >> 20);
            return Err(Error::Malformed { request: request.to_owned(), reason });
        }
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

fn malformed(method: &Method, path: &str, error: impl ToString) -> Error {
    Error::Malformed { request: format!("{method} {path}"), reason: error.to_string() }
}

pub(crate) fn unreachable(request: &str, reason: String) -> Error {
    Error::Unreachable { request: request.to_owned(), reason }
}

pub(crate) fn silent(request: &str, patience: Duration) -> Error {
    unreachable(request, format!("it said nothing for {} s", patience.as_secs_f32()))
}

/// What happened to a connection, without kube's own word for it.
fn broken(error: &kube::Error) -> String {
    match error {
        kube::Error::Service(cause) => causes(&**cause),
        other => causes(other),
    }
}

/// An error and what caused it, without the repetitions that wrapped errors bring.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}
