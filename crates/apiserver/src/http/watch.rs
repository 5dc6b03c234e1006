//! Watches: one JSON event a line, for as long as the client listens.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Response, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::watch as signal;
use tokio::time::Instant;

use super::path::Target;
use super::selector::Selector;
use super::{Call, Reply, list, reply, table};
use crate::error::{ApiError, FieldError};
use crate::resource::Resource;
use crate::storage::{Event, EventKind, Object, Slice, Watch};

/// Between bookmarks: what a client must replay at most after it was cut off.
const BOOKMARK: Duration = Duration::from_secs(30);
/// A watch without `timeoutSeconds` ends after this, so that clients spread again.
const LONGEST: Duration = Duration::from_secs(3600);
/// Bytes gathered into one frame when many events wait.
const FRAME: usize = 64 * 1024;

/// GET with `watch`.
pub(super) async fn answer(call: &Call, r: &Resource, target: &Target) -> Result<Reply, ApiError> {
    refuse_initial_events(call, r)?;
    let selector = list::selector(call, r, target)?;
    let timeout = call.query.number("timeoutSeconds")?.map_or(LONGEST, Duration::from_secs).min(LONGEST * 24);
    let asked = call.query.number("resourceVersion")?.unwrap_or(0);
    let mut first = Vec::new();
    let render = Render { r: r.clone(), version: r.api_version(), table: table::wanted(call), selector };
    let mut from = asked;
    call.registry.current().await?;
    if asked == 0 {
        let slice = Slice { node: render.selector.node(), ..Slice::default() };
        let wanted = render.selector.filter();
        let page = call.registry.page(r, target.ns(), slice, wanted.as_ref().map(|f| f as _))?;
        page.objects.iter().for_each(|object| render.send("ADDED", object, &mut first));
        from = page.rv;
    }
    let watch = match call.registry.watch(r, target.ns(), from) {
        Ok(watch) => watch,
        // Not as the answer's own status: clients list again only when the stream says so.
        Err(error) => {
            line("ERROR", &error.to_status(), &mut first);
            return Ok(reply::bytes(200, "application/json", first));
        }
    };
    let now = Instant::now();
    let bookmarks = call.query.flag("allowWatchBookmarks");
    let state = Stream {
        watch,
        render,
        first,
        deadline: now + timeout,
        bookmarks,
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

/// As a kube-apiserver without the WatchList feature answers, so that clients fall back to a list.
fn refuse_initial_events(call: &Call, r: &Resource) -> Result<(), ApiError> {
    if call.query.get("sendInitialEvents").is_none() {
        return Ok(());
    }
    let why = "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
    let mut error = ApiError::invalid(r, "", &[FieldError::forbidden("sendInitialEvents", why)]);
    error.message = format!("ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: {why}");
    Err(error)
}

struct Stream {
    watch: Watch,
    render: Render,
    /// What is sent before the first event.
    first: Vec<u8>,
    deadline: Instant,
    bookmarks: bool,
    bookmark_at: Instant,
    ending: signal::Receiver<bool>,
    done: bool,
}

impl Stream {
    /// The next bytes to send; None at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.first.is_empty() {
            return Some(Bytes::from(std::mem::take(&mut self.first)));
        }
        let mut out = Vec::new();
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
    fn take(&mut self, mut event: Result<Option<std::sync::Arc<Event>>, ApiError>, out: &mut Vec<u8>) {
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
            let r = &self.render.r;
            let object = json!({"kind": r.kind, "apiVersion": r.api_version(),
                "metadata": {"resourceVersion": rv.to_string(), "creationTimestamp": null}});
            match &self.render.table {
                Some(wish) => line(
                    "BOOKMARK",
                    &table::render(r, &[], wish, &json!({"resourceVersion": rv.to_string()}), false),
                    out,
                ),
                None => line("BOOKMARK", &object, out),
            }
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
            (EventKind::Deleted, true, _) | (_, true, false) => self.send("DELETED", &event.object, out),
            (_, false, true) => self.send("ADDED", &event.object, out),
            (_, true, true) => self.send("MODIFIED", &event.object, out),
        }
    }

    fn send(&self, kind: &str, object: &Object, out: &mut Vec<u8>) {
        if let Some(wish) = &self.table {
            let object = object.parse();
            let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
            return line(kind, &table::render(&self.r, &[&*object], wish, &metadata, true), out);
        }
        out.extend_from_slice(format!("{{\"type\":\"{kind}\",\"object\":").as_bytes());
        list::write_object(&self.r, &self.version, object, out);
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
