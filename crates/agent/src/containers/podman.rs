//! The labels of podman's containers, by its service. They are nowhere else to be had: podman gives
//! CNI the container's name alone, and what it keeps on disk (a locked BoltDB or SQLite file below a
//! storage root that only podman's command line knows) is a form of its own that changes.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// How long the service may take: it waits for the container's lock, which `podman run` holds.
const PATIENCE: Duration = Duration::from_secs(10);
/// More than podman tells of any container.
const LARGEST: u64 = 4 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    config: Config,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    labels: Option<HashMap<String, String>>,
}

/// The labels of a container; none where podman does not serve or does not know it.
pub(super) async fn labels(socket: &Path, container_id: &str) -> Result<Option<HashMap<String, String>>> {
    // Podman's IDs are such, and nothing else may become a part of the path.
    if !socket.exists() || container_id.len() != 64 || !container_id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let answer = tokio::time::timeout(PATIENCE, get(socket, container_id)).await;
    let answer = answer.context("it did not answer").flatten();
    let (head, body) = answer.with_context(|| format!("ask podman at {}", socket.display()))?;
    match head.split(' ').nth(1) {
        Some("200") => {}
        Some("404") => return Ok(None),
        _ => bail!("podman at {} answered {:?}", socket.display(), head.lines().next().unwrap_or_default()),
    }
    let container: Container = serde_json::from_str(&body).context("read podman's answer")?;
    Ok(Some(container.config.labels.unwrap_or_default()))
}

/// The head and the body of the answer. HTTP/1.0, so that its end is the connection's.
async fn get(socket: &Path, container_id: &str) -> Result<(String, String)> {
    let mut stream = UnixStream::connect(socket).await.context("connect")?;
    let request =
        format!("GET /v4.0.0/libpod/containers/{container_id}/json HTTP/1.0\r\nHost: podman\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LARGEST).read_to_end(&mut answer).await?;
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("it is no answer of HTTP")?;
    Ok((head.to_owned(), body.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn asked(answer: &'static str, id: &str) -> Result<Option<HashMap<String, String>>> {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("podman.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 1024];
            let length = stream.read(&mut asked).unwrap();
            stream.write_all(answer.as_bytes()).ok();
            String::from_utf8_lossy(&asked[..length]).into_owned()
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let labels = runtime.block_on(labels(&socket, id));
        // Whoever did not ask is asked for: the thread ends.
        std::os::unix::net::UnixStream::connect(&socket).ok();
        let said = served.join().unwrap();
        assert!(said.is_empty() || said.starts_with(&format!("GET /v4.0.0/libpod/containers/{id}/json ")));
        labels
    }

    #[test]
    fn only_an_answer_about_the_container_has_labels() {
        let id = "0a".repeat(32);
        let good = "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{\"Config\": {\"Labels\": {\"tier\": \"front\"}}}";
        assert_eq!(asked(good, &id).unwrap().unwrap(), HashMap::from([("tier".into(), "front".into())]));
        let bare = "HTTP/1.0 200 OK\r\n\r\n{\"Config\": {\"Labels\": null}}";
        assert_eq!(asked(bare, &id).unwrap(), Some(HashMap::new()));
        assert_eq!(asked("HTTP/1.0 404 Not Found\r\n\r\n{}", &id).unwrap(), None);
        assert_eq!(asked("", "../../x").unwrap(), None);
        for bad in ["", "HTTP/1.0 500 Oops\r\n\r\n{}", "HTTP/1.0 200 OK\r\n\r\n[", "nonsense"] {
            assert!(asked(bad, &id).is_err(), "{bad}");
        }
    }
}
