//! One line of JSON for each write: who did what to what, and how it ended.

use std::io::{BufWriter, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use http::request::Parts;
use http::{StatusCode, header};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Attributes, User, Wanted};
use crate::strategy::random_uid;

/// Lines that may wait for the disk before requests wait.
const QUEUE: usize = 4096;
/// An URI or a user agent longer than this is cut, in characters.
const LONGEST: usize = 2048;

/// Where the lines go.
#[derive(Debug, Clone)]
pub struct AuditConfig {
    /// The file; `-` is standard output.
    pub path: PathBuf,
    /// A file of this size, in bytes, is put away under the time's name.
    pub max_size: u64,
    /// How many such files are kept.
    pub max_backups: usize,
}

/// The log; the last to drop it ends its writer when all is written.
#[derive(Clone)]
pub(crate) struct Audit {
    lines: mpsc::Sender<Vec<u8>>,
}

/// One write, as it is told.
pub(crate) struct Line<'a> {
    pub(crate) parts: &'a Parts,
    pub(crate) address: IpAddr,
    pub(crate) user: &'a User,
    pub(crate) acting: &'a User,
    pub(crate) asked: &'a Attributes,
    pub(crate) version: &'a str,
    pub(crate) code: StatusCode,
    pub(crate) received: Timestamp,
}

impl Audit {
    pub(crate) fn open(config: AuditConfig) -> std::io::Result<Self> {
        let (lines, mut waiting) = mpsc::channel::<Vec<u8>>(QUEUE);
        let mut file = File::open(config)?;
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || {
            let mut failed = false;
            while let Some(line) = waiting.blocking_recv() {
                let written = file
                    .write(&line)
                    .and_then(|()| if waiting.is_empty() { file.out.flush() } else { Ok(()) });
                // Told once, since a full disk fails every line.
                if let (Err(error), false) = (&written, failed) {
                    tracing::error!(%error, "the audit log cannot be written");
                }
                failed = written.is_err();
            }
        })?;
        Ok(Self { lines })
    }

    /// Tells of a write; waits when the disk is far behind.
    pub(crate) async fn tell(&self, line: &Line<'_>) {
        let mut text = line.event().to_string().into_bytes();
        text.push(b'\n');
        // The writer ends with the server only.
        let _ = self.lines.send(text).await;
    }
}

impl Line<'_> {
    /// Whether a request is told of.
    pub(crate) fn wanted(asked: &Attributes) -> bool {
        !matches!(asked.verb.as_str(), "get" | "list" | "watch" | "head" | "options")
    }

    /// The `Event` of audit.k8s.io/v1, without bodies.
    fn event(&self) -> Value {
        let cut = |text: &str| text.chars().take(LONGEST).collect::<String>();
        let time = |t: Timestamp| t.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        let agent = self.parts.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok());
        let forbidden = self.code == StatusCode::FORBIDDEN;
        let mut event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": random_uid(),
            "stage": "ResponseComplete", "requestURI": cut(&self.parts.uri.to_string()),
            "verb": self.asked.verb, "user": self.user.info(), "sourceIPs": [self.address],
            "userAgent": cut(agent.unwrap_or_default()),
            "responseStatus": {"metadata": {}, "code": self.code.as_u16()},
            "requestReceivedTimestamp": time(self.received), "stageTimestamp": time(Timestamp::now()),
        });
        // Nothing was decided about somebody who is not known.
        if self.code != StatusCode::UNAUTHORIZED {
            let decision = if forbidden { "forbid" } else { "allow" };
            event["annotations"] = json!({"authorization.k8s.io/decision": decision});
        }
        if self.user != self.acting {
            event["impersonatedUser"] = self.acting.info();
        }
        if let Wanted::Object(place) = &self.asked.wanted {
            let mut object = json!({"resource": place.resource, "apiVersion": self.version});
            let fields = [
                ("namespace", &place.namespace),
                ("name", &place.name),
                ("apiGroup", &place.group),
                ("subresource", &place.part),
            ];
            for (field, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
                object[field] = json!(value);
            }
            event["objectRef"] = object;
        }
        event
    }
}

/// The file, with its size.
struct File {
    config: AuditConfig,
    out: BufWriter<Box<dyn Write + Send>>,
    size: u64,
}

impl File {
    fn open(config: AuditConfig) -> std::io::Result<Self> {
        let (out, size): (Box<dyn Write + Send>, u64) = if config.path == Path::new("-") {
            (Box::new(std::io::stdout()), 0)
        } else {
            let file =
                std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&config.path)?;
            let size = file.metadata()?.len();
            (Box::new(file), size)
        };
        Ok(Self { config, out: BufWriter::new(out), size })
    }

    fn write(&mut self, line: &[u8]) -> std::io::Result<()> {
        let more = line.len() as u64;
        if self.size > 0 && self.size + more > self.config.max_size && self.config.path != Path::new("-") {
            self.out.flush()?;
            put_away(&self.config)?;
            *self = Self::open(self.config.clone())?;
        }
        self.size += more;
        self.out.write_all(line)
    }
}

/// Gives the full file the time's name, and removes the oldest of those.
fn put_away(config: &AuditConfig) -> std::io::Result<()> {
    let stem = config.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let end = config.path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
    let time = Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S.%6f");
    std::fs::rename(&config.path, config.path.with_file_name(format!("{stem}-{time}{end}")))?;
    let dir = config.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let ours = |name: &str| {
        let middle = name.strip_prefix(&format!("{stem}-")).and_then(|rest| rest.strip_suffix(&end));
        middle.is_some_and(|m| m.starts_with("20") && m.contains('T'))
    };
    let names = std::fs::read_dir(dir)?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| ours(name)).collect();
    names.sort();
    let surplus = names.len().saturating_sub(config.max_backups);
    names[..surplus].iter().try_for_each(|name| std::fs::remove_file(dir.join(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_bounded_in_size_and_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let mut file = File::open(AuditConfig { path: path.clone(), max_size: 100, max_backups: 2 }).unwrap();
        for n in 0..50 {
            file.write(format!("{n:029}\n").as_bytes()).unwrap();
        }
        file.out.flush().unwrap();
        let sizes: Vec<u64> =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).collect();
        assert_eq!(sizes.len(), 3, "the file and two backups");
        assert!(sizes.iter().all(|size| *size <= 100), "{sizes:?}");
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("49\n"));
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
