//! Every kind's list and watch, in one queue.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::key::Key;
use crate::registry::Registry;
use crate::resource::Resource;
use crate::storage::{EventKind, Object};

/// News that may wait before the watches wait themselves.
const QUEUE: usize = 1024;

/// What a watch brought.
pub(super) enum News {
    /// The whole kind, as it was at a version.
    All(Arc<Resource>, Vec<(Key, Arc<Object>)>, u64),
    /// The object is so now.
    Put(Key, Arc<Object>),
    /// The object is gone; this was its last state.
    Gone(Key, Arc<Value>),
}

/// The watches.
pub(super) struct Feeds {
    registry: Registry,
    queue: mpsc::Sender<News>,
    news: mpsc::Receiver<News>,
    kinds: HashMap<String, Arc<Resource>>,
    tasks: JoinSet<()>,
}

impl Feeds {
    pub(super) fn new(registry: Registry) -> Self {
        let (queue, news) = mpsc::channel(QUEUE);
        Feeds { registry, queue, news, kinds: HashMap::new(), tasks: JoinSet::new() }
    }

    /// The next news. May be dropped and called again without losing any.
    pub(super) async fn next(&mut self) -> News {
        match self.news.recv().await {
            Some(news) => news,
            // It has a sender itself, so the queue never ends.
            None => std::future::pending().await,
        }
    }

    /// The next news, if there is some already.
    pub(super) fn try_next(&mut self) -> Option<News> {
        self.news.try_recv().ok()
    }

    /// Watches the kinds that are not watched yet, and returns how many are.
    pub(super) fn refresh(&mut self) -> usize {
        for kind in self.registry.kinds() {
            let name = kind.qualified();
            // Nobody acts on events, and nobody owns by them.
            if kind.kind == "Event" || kind.review || self.kinds.contains_key(&name) {
                continue;
            }
            self.kinds.insert(name, kind.clone());
            self.tasks.spawn(follow(self.registry.clone(), kind, self.queue.clone()));
        }
        self.kinds.len()
    }

    /// A kind by its qualified plural.
    pub(super) fn kind(&self, name: &str) -> Option<Arc<Resource>> {
        let other = || self.registry.kinds().into_iter().find(|kind| kind.qualified() == name);
        self.kinds.get(name).cloned().or_else(other)
    }
}

async fn follow(registry: Registry, kind: Arc<Resource>, queue: mpsc::Sender<News>) {
    let name: Arc<str> = kind.qualified().into();
    loop {
        let (objects, version) = registry.list_stored(&kind, None);
        let objects =
            objects.into_iter().map(|(key, object)| (Key::stored(name.clone(), &key), object)).collect();
        if queue.send(News::All(kind.clone(), objects, version)).await.is_err() {
            return;
        }
        // A watch that fell behind the history ends; the next list brings what it missed.
        let Ok(mut watch) = registry.watch(&kind, None, version) else { continue };
        while let Ok(event) = watch.next().await {
            let key = Key::stored(name.clone(), &event.key);
            let news = match event.kind {
                EventKind::Deleted => News::Gone(key, event.object.parse()),
                EventKind::Added | EventKind::Modified => News::Put(key, event.object.clone()),
            };
            if queue.send(news).await.is_err() {
                return;
            }
        }
        tokio::task::yield_now().await;
    }
}
