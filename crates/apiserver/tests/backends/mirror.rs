//! A client's view, kept from events alone.

use std::collections::BTreeMap;

use serde_json::Value;
use weft_apiserver::{Event, EventKind, Registry, Watch, kinds};

/// The ConfigMaps of the namespace default.
#[derive(Default)]
pub(crate) struct Mirror {
    pub(crate) objects: BTreeMap<String, Value>,
    /// Every event: its resourceVersion and the object's name.
    pub(crate) seen: Vec<(u64, String)>,
}

impl Mirror {
    pub(crate) fn take(&mut self, event: &Event) {
        let last = self.seen.last().map_or(0, |(rv, _)| *rv);
        assert!(event.rv > last, "events come once and in order");
        let object = (*event.object.parse()).clone();
        assert_eq!(object["metadata"]["resourceVersion"], event.rv.to_string());
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        self.seen.push((event.rv, name.clone()));
        let known = match event.kind {
            EventKind::Deleted => self.objects.remove(&name),
            _ => self.objects.insert(name, object),
        };
        assert_eq!(known.is_none(), event.kind == EventKind::Added);
        assert_eq!(known, event.previous.as_ref().map(|o| (*o.parse()).clone()));
    }

    /// Follows until the object `end` was written.
    pub(crate) async fn follow(mut self, mut watch: Watch, end: &str) -> Self {
        loop {
            let event = watch.next().await.unwrap();
            self.take(&event);
            if self.seen.last().is_some_and(|(_, name)| name == end) {
                return self;
            }
        }
    }
}

pub(crate) fn watch(registry: &Registry, from: u64) -> Watch {
    registry.watch(&kinds::CONFIG_MAPS, Some("default"), from).unwrap()
}
