//! Kubernetes objects as a component lists and watches them: enough of an API server for one whose objects a
//! test makes up, in the namespace of the thread that starts it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use serde_json::{Value, json};

/// Where the objects of a resource are: `/api/v1/services`.
type Path = &'static str;

/// Serves objects until it is dropped.
#[derive(Debug)]
pub struct Objects {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// By path, then by namespace and name.
    now: BTreeMap<Path, BTreeMap<String, Value>>,
    /// Every event there was; how many there are is the resource version.
    log: Vec<(Path, Value)>,
    ended: bool,
}

impl Objects {
    /// Listens on a port of 127.0.0.1 in the calling thread's network namespace.
    pub fn serve() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on 127.0.0.1")?;
        let (address, shared) = (listener.local_addr()?, Arc::new(Shared::default()));
        let of_server = shared.clone();
        std::thread::Builder::new().spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if of_server.lock().ended {
                    return;
                }
                let shared = of_server.clone();
                // A client that goes away ends its thread with an error that concerns nobody.
                std::thread::spawn(move || shared.converse(stream).ok());
            }
        })?;
        Ok(Self { address, shared })
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes an object be, or be as given; `path` is that of its resource.
    pub fn put(&self, path: Path, mut object: Value) {
        let mut state = self.shared.lock();
        object["metadata"]["resourceVersion"] = json!((state.log.len() + 1).to_string());
        let before = state.now.entry(path).or_default().insert(key(&object), object.clone());
        let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
        state.log.push((path, json!({"type": kind, "object": object})));
        self.shared.changed.notify_all();
    }

    /// Removes the object of that namespace and name.
    pub fn remove(&self, path: Path, object: &Value) {
        let mut state = self.shared.lock();
        if let Some(mut gone) = state.now.entry(path).or_default().remove(&key(object)) {
            gone["metadata"]["resourceVersion"] = json!((state.log.len() + 1).to_string());
            state.log.push((path, json!({"type": "DELETED", "object": gone})));
            self.shared.changed.notify_all();
        }
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
        // Wakes the listener; a namespace that is gone has none to be woken.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn converse(&self, stream: TcpStream) -> anyhow::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut stream = stream;
        while let Some(target) = request(&mut reader)? {
            let (path, query) = target.split_once('?').unwrap_or((&target, ""));
            let asked = |name: &str| {
                query
                    .split('&')
                    .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
                    .map(str::to_owned)
            };
            if asked("watch").is_some_and(|value| value == "true" || value == "1") {
                let initial = asked("sendInitialEvents").is_some_and(|value| value == "true");
                let since = asked("resourceVersion").and_then(|text| text.parse().ok()).filter(|_| !initial);
                return self.watch(&mut stream, path, since);
            }
            let (code, body) = self.get(path);
            let body = body.to_string();
            write!(
                stream,
                "HTTP/1.1 {code}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )?;
        }
        Ok(())
    }

    /// A list, or one object; an unknown path is one without objects.
    fn get(&self, path: &str) -> (&'static str, Value) {
        let state = self.lock();
        let version = state.log.len().to_string();
        if let Some(objects) = state.now.get(path) {
            let items: Vec<&Value> = objects.values().collect();
            return ("200 OK", json!({"metadata": {"resourceVersion": version}, "items": items}));
        }
        let one =
            path.rsplit_once('/').and_then(|(parent, name)| state.now.get(parent)?.get(&format!("/{name}")));
        match one {
            Some(object) => ("200 OK", object.clone()),
            None => (
                "404 Not Found",
                json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound"}),
            ),
        }
    }

    /// Events after a resource version, or all objects first, until the client goes.
    fn watch(&self, stream: &mut TcpStream, path: &str, since: Option<usize>) -> anyhow::Result<()> {
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )?;
        let mut state = self.lock();
        let mut next = since.unwrap_or(state.log.len());
        let mut events: Vec<Value> = Vec::new();
        if since.is_none() {
            let objects = state.now.get(path).into_iter().flat_map(BTreeMap::values);
            events.extend(objects.map(|object| json!({"type": "ADDED", "object": object})));
            events.push(
                json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": next.to_string(),
                "annotations": {"k8s.io/initial-events-end": "true"}}}}),
            );
        }
        loop {
            let new = state.log.get(next..).unwrap_or_default();
            events.extend(new.iter().filter(|(of, _)| *of == path).map(|(_, event)| event.clone()));
            next = state.log.len();
            drop(state);
            for event in events.drain(..) {
                let line = format!("{event}\n");
                write!(stream, "{:x}\r\n{line}\r\n", line.len())?;
            }
            state = self.lock();
            while state.log.len() == next && !state.ended {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.ended {
                return Ok(());
            }
        }
    }
}

/// Reads one request, its body too; what it asks for, or none at the connection's end.
fn request(reader: &mut impl BufRead) -> anyhow::Result<Option<String>> {
    let (mut first, mut length) = (String::new(), 0);
    if reader.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    loop {
        let mut line = String::new();
        anyhow::ensure!(reader.read_line(&mut line)? > 0, "a request without end");
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse()?
            }
            Some(_) => {}
            None => break,
        }
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
    let target = first.split_ascii_whitespace().nth(1).context("a request for nothing")?;
    Ok(Some(target.to_owned()))
}

fn key(object: &Value) -> String {
    let part = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
    format!("{}/{}", part("namespace"), part("name"))
}
