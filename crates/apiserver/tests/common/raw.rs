//! A plain HTTPS client that sends any bytes.

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Running;

/// A status code and a body.
pub type Answer = (u16, String);

pub async fn connect(server: &Running) -> TlsStream<TcpStream> {
    connect_with(server, &[]).await
}

/// A connection that offers these protocols.
pub async fn connect_with(server: &Running, protocols: &[&[u8]]) -> TlsStream<TcpStream> {
    try_connect(server, protocols).await.unwrap()
}

/// A connection that the server may refuse.
pub async fn try_connect(server: &Running, protocols: &[&[u8]]) -> std::io::Result<TlsStream<TcpStream>> {
    let ca = CertificateDer::from_pem_file(server.dir.path().join("data/ca.crt")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    let stream = TcpStream::connect(server.address).await?;
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Sends bytes and reads until the server closes.
pub async fn exchange(server: &Running, request: &[u8]) -> Answer {
    let mut stream = connect(server).await;
    // A server that refuses early closes before it has read all.
    let _ = stream.write_all(request).await;
    let mut bytes = Vec::new();
    let all = stream.read_to_end(&mut bytes);
    let _ = tokio::time::timeout(Duration::from_secs(20), all).await.expect("the server answers");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let code = text.split(' ').nth(1).and_then(|c| c.parse().ok()).unwrap_or(0);
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (code, body)
}

fn head(server: &Running, method: &str, path: &str, media: &str, length: usize) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\nContent-Type: {media}\r\nContent-Length: {length}\r\n\r\n",
        server.token
    )
}

/// A request with the token, and the answer as JSON.
pub async fn send(server: &Running, method: &str, path: &str, media: &str, body: &[u8]) -> (u16, Value) {
    let mut request = head(server, method, path, media, body.len()).into_bytes();
    request.extend_from_slice(body);
    let (code, body) = exchange(server, &request).await;
    (code, serde_json::from_str(&body).unwrap_or(Value::String(body)))
}

pub async fn get(server: &Running, path: &str) -> (u16, Value) {
    send(server, "GET", path, "", b"").await
}

pub async fn post(server: &Running, path: &str, body: &Value) -> (u16, Value) {
    send(server, "POST", path, "application/json", body.to_string().as_bytes()).await
}

fn accepting(server: &Running, path: &str, accept: &str) -> String {
    head(server, "GET", path, "", 0).replacen("Content-Type: ", &format!("Accept: {accept}"), 1)
}

/// A GET that asks for a media type.
pub async fn get_as(server: &Running, path: &str, accept: &str) -> (u16, Value) {
    let (code, body) = exchange(server, accepting(server, path, accept).as_bytes()).await;
    (code, serde_json::from_str(&body).unwrap_or(Value::String(body)))
}

/// A GET, and the answer as it came.
pub async fn text(server: &Running, path: &str) -> Answer {
    exchange(server, accepting(server, path, "application/json").as_bytes()).await
}

/// The lines of a watch, without the chunks' own lines.
pub async fn watch(server: &Running, path: &str) -> tokio::sync::mpsc::UnboundedReceiver<Value> {
    watch_as(server, path, "application/json").await
}

/// As [`watch`], of a media type. It has begun when this returns.
pub async fn watch_as(
    server: &Running,
    path: &str,
    accept: &str,
) -> tokio::sync::mpsc::UnboundedReceiver<Value> {
    let mut stream = connect(server).await;
    stream.write_all(accepting(server, path, accept).as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    // Only with the answer's head has it begun: what is written from now on, it tells.
    while !lines.next_line().await.unwrap().unwrap_or_default().is_empty() {}
    let (send, receive) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            if let Ok(event @ Value::Object(_)) = serde_json::from_str(&line)
                && send.send(event).is_err()
            {
                return;
            }
        }
    });
    receive
}
