//! One connection to an API server: requests one after the other, answers as bytes or line by line.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Time for any one answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where an API server is, and as whom to call it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its address on this machine.
    pub address: SocketAddr,
    /// The authority that signed its certificate, PEM.
    pub ca_pem: String,
    /// A bearer token.
    pub token: String,
}

/// What is asked.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The HTTP method; `GET` if empty.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Headers beside the authorization.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// A request without a body.
    pub fn new(method: &str, path: impl Into<String>) -> Self {
        Self { method: method.to_owned(), path: path.into(), ..Self::default() }
    }

    /// A request with a JSON body.
    pub fn json(method: &str, path: impl Into<String>, body: &Value) -> Self {
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        Self { headers, body: body.to_string().into_bytes(), ..Self::new(method, path) }
    }
}

/// What was answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status code.
    pub code: u16,
    /// The headers.
    pub headers: http::HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; as a string where it is none.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&self.body).into_owned()))
    }
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    target: Target,
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    /// Connects.
    pub async fn connect(target: &Target) -> anyhow::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(target.ca_pem.as_bytes()).context("no certificate")?)?;
        let config =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_root_certificates(roots)
                .with_no_client_auth();
        let stream = TcpStream::connect(target.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::from(target.address.ip());
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // How a connection ended shows in the requests on it.
        tokio::spawn(connection);
        Ok(Self { target: target.clone(), sender })
    }

    async fn start(&mut self, request: &Request) -> anyhow::Result<http::Response<Incoming>> {
        if self.sender.ready().await.is_err() {
            *self = Self::connect(&self.target).await?;
            self.sender.ready().await?;
        }
        let method = if request.method.is_empty() { "GET" } else { &request.method };
        let mut built = http::Request::builder()
            .method(method)
            .uri(&request.path)
            .header("host", self.target.address.to_string())
            .header("user-agent", "judge")
            .header("authorization", format!("Bearer {}", self.target.token));
        for (name, value) in &request.headers {
            built = built.header(name, value);
        }
        let built = built.body(Full::new(Bytes::from(request.body.clone())))?;
        let answer = tokio::time::timeout(PATIENCE, self.sender.send_request(built)).await;
        Ok(answer.with_context(|| format!("no answer to {method} {}", request.path))??)
    }

    /// Sends a request and reads the whole answer.
    pub async fn send(&mut self, request: &Request) -> anyhow::Result<Answer> {
        let (head, body) = self.start(request).await?.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect()).await;
        let body = body.with_context(|| format!("the answer to {} does not end", request.path))??.to_bytes();
        Ok(Answer { code: head.status.as_u16(), headers: head.headers, body })
    }

    /// Sends a request whose answer comes line by line, and gives the connection to it.
    pub async fn lines(mut self, request: &Request) -> anyhow::Result<Lines> {
        let answer = self.start(request).await?;
        Ok(Lines {
            code: answer.status().as_u16(),
            body: answer.into_body(),
            read: Vec::new(),
            _open: self.sender,
        })
    }
}

/// The lines of an answer, as a watch has them.
#[derive(Debug)]
pub struct Lines {
    /// The HTTP status code.
    pub code: u16,
    body: Incoming,
    read: Vec<u8>,
    _open: SendRequest<Full<Bytes>>,
}

impl Lines {
    /// The next line; None at the end.
    pub async fn next(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        let mut looked_at = 0;
        loop {
            if let Some(end) = self.read[looked_at..].iter().position(|&byte| byte == b'\n') {
                let rest = self.read.split_off(looked_at + end + 1);
                return Ok(Some(std::mem::replace(&mut self.read, rest)));
            }
            looked_at = self.read.len();
            let Some(frame) = self.body.frame().await else {
                let last = std::mem::take(&mut self.read);
                return Ok((!last.is_empty()).then_some(last));
            };
            if let Some(data) = frame?.data_ref() {
                self.read.extend_from_slice(data);
            }
        }
    }
}
