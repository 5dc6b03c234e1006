use std::time::Duration;

use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use kube::client::Body;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::timeout;

use crate::Error;
use crate::api::{causes, silent, unreachable};

/// The longest event that is read, in bytes. Kubernetes refuses objects over 1.5 MiB.
const EVENT_LIMIT: usize = 8 << 20;

/// What a watch event says about its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum EventKind {
    /// The object is new.
    Added,
    /// The object changed.
    Modified,
    /// The object is gone; the event has its last state.
    Deleted,
    /// Nothing happened up to the object's resourceVersion.
    Bookmark,
    /// The watch failed; the object is a Status.
    Error,
}

/// One event of a watch, its object still in JSON.
#[derive(Debug, Deserialize)]
pub struct Event {
    /// What happened.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// To what.
    pub object: Box<RawValue>,
}

impl Event {
    /// The object as a JSON tree.
    pub fn value(&self) -> Value {
        serde_json::from_str(self.object.get()).unwrap_or_default()
    }
}

/// A running watch: a stream of events that ends when the server ends it.
pub struct Watch {
    request: String,
    body: Body,
    silence: Duration,
    /// Changes when all connections are given up.
    given_up: tokio::sync::watch::Receiver<u64>,
    buffer: BytesMut,
    /// Bytes at the start of `buffer` that hold no line end.
    searched: usize,
}

impl Watch {
    pub(crate) fn new(
        request: String,
        body: Body,
        silence: Duration,
        given_up: tokio::sync::watch::Receiver<u64>,
    ) -> Self {
        Watch { request, body, silence, given_up, buffer: BytesMut::new(), searched: 0 }
    }

    /// The next event; `None` when the server ended the stream between two events, or
    /// [`Api::reconnect`](crate::Api::reconnect) gave its connection up. A
    /// stream torn inside an event, or silent for longer than a watch runs, is an error.
    /// Cancel safe.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.buffered()? {
                return Ok(Some(event));
            }
            let frame = tokio::select! {
                frame = timeout(self.silence, self.body.frame()) => frame,
                Ok(()) = self.given_up.changed() => return Ok(None),
            };
            let frame = match frame {
                Err(_) => return Err(silent(&self.request, self.silence)),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(e))) => return Err(unreachable(&self.request, causes(&e))),
                Ok(None) if self.buffer.iter().all(u8::is_ascii_whitespace) => return Ok(None),
                Ok(None) => return Err(self.malformed("it ends inside an event")),
            };
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }

    /// Takes the first whole line out of the buffer.
    fn buffered(&mut self) -> Result<Option<Event>, Error> {
        while let Some(end) = self.buffer[self.searched..].iter().position(|b| *b == b'\n') {
            let line = self.buffer.split_to(self.searched + end);
            self.buffer.advance(1);
            self.searched = 0;
            if !line.iter().all(u8::is_ascii_whitespace) {
                return serde_json::from_slice(&line).map(Some).map_err(|e| self.malformed(e));
            }
        }
        self.searched = self.buffer.len();
        if self.searched > EVENT_LIMIT {
            return Err(self.malformed(format!("an event is longer than {} MiB", EVENT_LIMIT >> 20)));
        }
        Ok(None)
    }

    fn malformed(&self, reason: impl ToString) -> Error {
        Error::Malformed { request: self.request.clone(), reason: reason.to_string() }
    }
}
