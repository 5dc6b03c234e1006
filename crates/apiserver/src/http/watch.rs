//! Watches: one JSON event a line, for as long as the client listens.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Response, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::watch as signal;
use tokio::time::Instant;

use super::options::Start;
use super::path::Target;
use super::selector::Selector;
use super::{Call, Reply, accept, list, reply, table};
use crate::error::ApiError;
use crate::resource::Resource;
use crate::storage::{Event, EventKind, Object, Slice, Watch};

/// Between bookmarks: what a client must replay at most after it was cut off.
const BOOKMARK: Duration = Duration::from_secs(30);
/// A watch without `timeoutSeconds` ends after this, so that clients spread again.
const LONGEST: Duration = Duration::from_secs(3600);
/// Bytes gathered into one frame when many events wait.
const FRAME: usize = 64 * 1024;

/// What tells a client that it has seen all that was there when it began.
const END_OF_STATE: &str = "k8s.io/initial-events-end";

/// GET with `watch`.
pub(super) async fn answer(call: &Call, r: &Resource, target: &Target) -> Result<Reply, ApiError> {
    let start = Start::parse(&call.query)?;
    let selector = list::selector(call, r, target)?;
    let timeout = match call.query.number("timeoutSeconds")?.map(u64::try_from) {
        None | Some(Ok(0)) => LONGEST,
        Some(seconds) => Duration::from_secs(seconds.unwrap_or(0)).min(LONGEST * 24),
    };
    let render = Render {
        r: r.clone(),
        version: r.api_version(),
        table: table::wanted(call),
        metadata: accept::metadata(&call.headers),
        selector,
    };
    // Not as the answer's own status: clients list again only when the stream says so.
    let begun = match begin(call, r, target, &render, start).await {
        Ok(begun) => begun,
        // The store is away: the client may go on later from where it is.
        Err(error) if error.code == 503 => return Err(error),
        Err(error) => {
            let mut first = Vec::new();
            line("ERROR", &error.to_status(), &mut first);
            return Ok(reply::bytes(200, "application/json", first));
        }
    };
    let now = Instant::now();
    let state = Stream {
        watch: begun.watch,
        render,
        first: begun.first.into_iter(),
        marked: begun.marked,
        deadline: now + timeout,
        bookmarks: call.query.flag("allowWatchBookmarks"),
        bookmark_at: now + BOOKMARK,
        ending: call.app.ending.clone(),
        done: false,
    };
    let frames = stream::unfold(state, |mut state| async move {
        let bytes = state.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(bytes)), state))
    });
    let mut reply = Response::new(StreamBody::new(frames).boxed_unsync());
    reply.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(reply)
}

/// A watch, and what is sent before its events.
struct Begun {
    first: Vec<Arc<Object>>,
    /// The version of the bookmark after them.
    marked: Option<u64>,
    watch: Watch,
}

async fn begin(
    call: &Call,
    r: &Resource,
    target: &Target,
    render: &Render,
    start: Start,
) -> Result<Begun, ApiError> {
    // A server that is cut off from its store begins no watch: who watches shall know.
    let current = call.registry.current().await?;
    let (first, from, marked) = match start {
        Start::After(from) => (Vec::new(), from, false),
        Start::Now => (Vec::new(), current, false),
        Start::State { least, marked } => {
            call.registry.reach(least).await?;
            let slice = Slice { node: render.selector.node(), ..Slice::default() };
            let wanted = render.selector.filter();
            let page = call.registry.page(r, target.ns(), slice, wanted.as_ref().map(|f| f as _))?;
            (page.objects, page.rv, marked)
        }
    };
    let watch = call.registry.watch(r, target.ns(), from)?;
    Ok(Begun { first, marked: marked.then_some(from), watch })
}

struct Stream {
    watch: Watch,
    render: Render,
    /// What is sent before the first event.
    first: std::vec::IntoIter<Arc<Object>>,
    /// The version of the bookmark that follows it.
    marked: Option<u64>,
    deadline: Instant,
    bookmarks: bool,
    bookmark_at: Instant,
    ending: signal::Receiver<bool>,
    done: bool,
}

impl Stream {
    /// The next bytes to send; None at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        while out.len() < FRAME
            && let Some(object) = self.first.next()
        {
            self.render.send("ADDED", &object, &mut out);
        }
        if self.first.len() == 0
            && let Some(rv) = self.marked.take()
        {
            self.render.bookmark(rv, json!({END_OF_STATE: "true"}), &mut out);
        }
        while !self.done && out.is_empty() {
            let wake = self.deadline.min(self.bookmark_at);
            tokio::select! {
                event = self.watch.next() => self.take(event.map(Some), &mut out),
                () = tokio::time::sleep_until(wake) => self.tick(&mut out),
                () = ended(&mut self.ending) => self.done = true,
            }
        }
        (!out.is_empty()).then(|| Bytes::from(out))
    }

    /// Writes an event, and those that wait behind it.
    fn take(&mut self, mut event: Result<Option<Arc<Event>>, ApiError>, out: &mut Vec<u8>) {
        loop {
            match event {
                Ok(Some(event)) => self.render.event(&event, out),
                Ok(None) => return,
                Err(error) => {
                    self.done = true;
                    return line("ERROR", &error.to_status(), out);
                }
            }
            if out.len() > FRAME {
                return;
            }
            event = self.watch.try_next();
        }
    }

    /// A bookmark is due, or the end.
    fn tick(&mut self, out: &mut Vec<u8>) {
        let now = Instant::now();
        self.done = now >= self.deadline;
        self.bookmark_at = now + BOOKMARK;
        if !self.bookmarks {
            return;
        }
        if let Ok(Some(rv)) = self.watch.bookmark() {
            self.render.bookmark(rv, Value::Null, out);
        }
    }
}

/// Waits for the server's end.
async fn ended(ending: &mut signal::Receiver<bool>) {
    // An error means that the server is gone already.
    let _ = ending.wait_for(|ending| *ending).await;
}

struct Render {
    r: Resource,
    version: String,
    table: Option<table::Wish>,
    /// Metadata alone, in this version of meta.k8s.io.
    metadata: Option<String>,
    selector: Selector,
}

impl Render {
    /// Writes an event as this client's selector sees it: an object may enter or leave what it selects.
    fn event(&self, event: &Event, out: &mut Vec<u8>) {
        let selects = |object: &Object| self.selector.selects(&event.key, object);
        let before = event.previous.as_ref().is_some_and(|o| selects(o));
        let after = selects(&event.object);
        match (event.kind, before, after) {
            (EventKind::Deleted, false, _) | (_, false, false) => {}
            (EventKind::Deleted, true, _) => self.send("DELETED", &event.object, out),
            (_, true, false) => self.left(event, out),
            (_, false, true) => self.send("ADDED", &event.object, out),
            (_, true, true) => self.send("MODIFIED", &event.object, out),
        }
    }

    /// Writes that an object is none of the selected ones any more: as it was when it was, at this version.
    fn left(&self, event: &Event, out: &mut Vec<u8>) {
        let last = event.previous.as_ref().and_then(|o| o.at(&event.key, event.object.rv()).ok());
        self.send("DELETED", last.as_ref().unwrap_or(&event.object), out);
    }

    /// Writes a resourceVersion up to which the client has seen everything.
    fn bookmark(&self, rv: u64, annotations: Value, out: &mut Vec<u8>) {
        let (kind, version) = match &self.metadata {
            Some(version) => ("PartialObjectMetadata", format!("meta.k8s.io/{version}")),
            None => (&*self.r.kind, self.version.clone()),
        };
        let mut meta = json!({"resourceVersion": rv.to_string(), "creationTimestamp": null});
        if !annotations.is_null() {
            meta["annotations"] = annotations;
        }
        let object = json!({"kind": kind, "apiVersion": version, "metadata": meta});
        match &self.table {
            Some(wish) => {
                let metadata = json!({"resourceVersion": rv.to_string()});
                line("BOOKMARK", &table::render(&self.r, &[], wish, &metadata, false), out);
            }
            None => line("BOOKMARK", &object, out),
        }
    }

    fn send(&self, kind: &str, object: &Object, out: &mut Vec<u8>) {
        if let Some(wish) = &self.table {
            let object = object.parse();
            let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
            return line(kind, &table::render(&self.r, &[&*object], wish, &metadata, true), out);
        }
        out.extend_from_slice(format!("{{\"type\":\"{kind}\",\"object\":").as_bytes());
        match &self.metadata {
            Some(version) => accept::write_partial(object, version, out),
            None => list::write_object(&self.r, &self.version, object, out),
        }
        out.extend_from_slice(b"}\n");
    }
}

fn line(kind: &str, object: &Value, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{{\"type\":\"{kind}\",\"object\":").as_bytes());
    let start = out.len();
    if serde_json::to_writer(&mut *out, object).is_err() {
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
    out.extend_from_slice(b"}\n");
}
