//! Answers that a client of HTTP/2 leaves: it may read the connection, and so be no silent one, and still
//! grant no room for an answer.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use crate::http::Reply;

/// Bytes handed over at once; no more are held for a client once its answer is all handed over.
const PIECE: usize = 64 * 1024;

/// Since when a piece is handed over, or the answer begun, and no more was asked for.
type Since = Mutex<Option<Instant>>;

/// The answers of one connection that are not handed over yet.
#[derive(Clone, Default)]
pub(super) struct Answers(Arc<Mutex<Vec<Weak<Since>>>>);

impl Answers {
    /// The same answer, in pieces that are counted.
    pub(super) fn follow(&self, reply: Reply) -> Reply {
        let since = Arc::new(Mutex::new(Some(Instant::now())));
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|answer| answer.strong_count() > 0);
        all.push(Arc::downgrade(&since));
        reply.map(|body| Paced { body, rest: Bytes::new(), since }.boxed_unsync())
    }

    /// Whether the client has left one of them for this long.
    pub(super) fn are_left(&self, limit: Duration) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = all.iter().filter_map(Weak::upgrade);
        open.any(|since| {
            since.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|since| since.elapsed() >= limit)
        })
    }
}

struct Paced {
    body: UnsyncBoxBody<Bytes, Infallible>,
    rest: Bytes,
    since: Arc<Since>,
}

impl Paced {
    fn waits(&self, since: Option<Instant>) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        this.waits(None);
        if this.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end),
            };
            match frame.into_data() {
                Ok(data) => this.rest = data,
                Err(other) => return Poll::Ready(Some(Ok(other))),
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(PIECE));
        this.waits(Some(Instant::now()));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.body.size_hint(), u64::try_from(self.rest.len()).unwrap_or(u64::MAX));
        let mut all = SizeHint::new();
        all.set_lower(inner.lower().saturating_add(rest));
        if let Some(upper) = inner.upper() {
            all.set_upper(upper.saturating_add(rest));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{Full, StreamBody};

    use super::*;

    #[tokio::test]
    async fn who_asks_for_more_is_not_behind() {
        let answers = Answers::default();
        let left = || answers.are_left(Duration::ZERO);
        let text = vec![7; 2 * PIECE + 1];
        let full = answers.follow(Reply::new(Full::new(Bytes::from(text.clone())).boxed_unsync()));
        assert!(left(), "it is not asked for yet");
        let mut body = full.into_body();
        assert_eq!(body.size_hint().exact(), Some(text.len() as u64));
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first.len(), PIECE);
        assert!(left() && !answers.are_left(Duration::from_secs(3600)));
        assert_eq!(body.size_hint().exact(), Some(PIECE as u64 + 1));
        let rest = body.collect().await.unwrap().to_bytes();
        assert_eq!([first, rest].concat(), text);
        assert!(!left(), "it is handed over");

        let (send, events) = tokio::sync::mpsc::unbounded_channel();
        let stream = futures_util::stream::unfold(events, async |mut events| {
            let event: Bytes = events.recv().await?;
            Some((Ok::<_, Infallible>(Frame::data(event)), events))
        });
        let mut watch = answers.follow(Reply::new(StreamBody::new(stream).boxed_unsync())).into_body();
        let mut next = Box::pin(watch.frame());
        let asked = std::future::poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx).is_pending())).await;
        assert!(asked);
        assert!(!left(), "there is nothing to tell");
        send.send(Bytes::from_static(b"event")).unwrap();
        assert!(next.await.is_some());
        assert!(left(), "there is, and nobody asks");
    }
}
