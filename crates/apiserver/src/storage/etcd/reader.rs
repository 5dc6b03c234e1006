//! Which revision the last write has: asked once for all who ask at the same time.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use super::client::Client;
use super::keys::{Keys, revision};

/// Questions that may wait; more callers wait for a place.
const QUEUE: usize = 1024;

type Answer = Result<u64, Status>;

/// Where to ask.
pub(super) struct Reader {
    queue: mpsc::Sender<oneshot::Sender<Answer>>,
}

impl Reader {
    /// The revision of the last write that was acknowledged before this call, by any server.
    pub(super) async fn tip(&self) -> Answer {
        let (reply, answer) = oneshot::channel();
        let closed = || Status::unavailable("the store is closed");
        self.queue.send(reply).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

/// The place to ask, and the task that answers.
pub(super) fn start(client: Arc<Client>, tip: Vec<u8>) -> (Reader, impl Future<Output = ()>) {
    let (queue, mut questions) = mpsc::channel(QUEUE);
    let answering = async move {
        let mut waiting = Vec::new();
        // Only those that asked before the request to etcd starts have its answer.
        while questions.recv_many(&mut waiting, QUEUE).await > 0 {
            let range = client.range(Keys::one(tip.clone())).await;
            let tip = range.map(|found| found.kvs.first().map_or(0, |kv| revision(kv.mod_revision)));
            waiting.drain(..).for_each(|reply: oneshot::Sender<Answer>| drop(reply.send(tip.clone())));
        }
    };
    (Reader { queue }, answering)
}
