//! Where prefixes lead as BGP has it, for a reader that may be busy meanwhile.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use tokio::sync::Notify;

/// What is new since it was last taken.
#[derive(Debug, Default, PartialEq)]
pub struct News {
    /// Nothing of before holds: BGP is not spoken here any more.
    pub over: bool,
    /// Next hops by prefix, the best first; nowhere without.
    pub routes: BTreeMap<IpNet, Vec<IpAddr>>,
    /// All is told that there is to tell.
    pub settled: bool,
}

/// The newest of it.
#[derive(Debug, Default)]
pub struct Learnt {
    state: Mutex<State>,
    told: Notify,
}

#[derive(Debug, Default)]
struct State {
    news: News,
    is_new: bool,
    /// All is not told yet, whatever the speaker says.
    held: bool,
}

impl Learnt {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut News)) {
        let mut state = self.lock();
        change(&mut state.news);
        state.is_new = true;
        drop(state);
        self.told.notify_one();
    }

    /// Takes in where prefixes lead now.
    pub fn tell(&self, routes: impl IntoIterator<Item = (IpNet, Vec<IpAddr>)>, settled: Option<bool>) {
        self.change(|news| {
            news.routes.extend(routes);
            news.settled = settled.unwrap_or(news.settled);
        });
    }

    /// BGP is not spoken here any more.
    pub fn end(&self) {
        self.change(|news| *news = News { over: true, ..News::default() });
    }

    /// Until this is taken back, all is not told.
    pub(super) fn hold(&self, held: bool) {
        self.lock().held = held;
        self.change(|_| {});
    }

    /// Waits for news. Cancel safe.
    pub async fn changed(&self) {
        self.told.notified().await;
    }

    /// What is new.
    pub fn take(&self) -> Option<News> {
        let mut state = self.lock();
        let settled = state.news.settled;
        let State { news, is_new, held } = &mut *state;
        let taken =
            std::mem::take(is_new).then(|| std::mem::replace(news, News { settled, ..News::default() }))?;
        Some(News { settled: settled && !*held, ..taken })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_waits_once_and_an_end_passes_over_what_was() {
        let learnt = Learnt::default();
        assert_eq!(learnt.take(), None);
        let route = |prefix: &str, hop: &str| (prefix.parse().unwrap(), vec![hop.parse().unwrap()]);
        learnt.tell([route("10.0.0.0/8", "192.0.2.1")], None);
        learnt.tell([route("10.0.0.0/8", "192.0.2.2")], Some(true));
        let news = learnt.take().unwrap();
        assert_eq!(news.routes, [route("10.0.0.0/8", "192.0.2.2")].into());
        assert!(news.settled && !news.over && learnt.take().is_none());
        learnt.hold(true);
        assert!(!learnt.take().unwrap().settled);
        learnt.hold(false);
        assert!(learnt.take().unwrap().settled);
        learnt.tell([route("11.0.0.0/8", "192.0.2.2")], None);
        learnt.end();
        assert_eq!(learnt.take(), Some(News { over: true, ..News::default() }));
    }
}
