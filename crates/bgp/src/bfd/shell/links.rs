//! The interfaces, by what the kernel tells of them.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use weft_kernel::{Event, Link, Monitor, Netlink};

/// What has become of an interface.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It carries nothing.
    Down(Arc<str>),
    /// What is bound to one of its name is bound to another one.
    Other(Arc<str>),
}

#[derive(Debug)]
pub(super) struct Links {
    monitor: Monitor,
    names: HashMap<u32, Arc<str>>,
}

impl Links {
    /// Those of the calling thread's namespace.
    pub(super) fn open() -> weft_kernel::Result<Links> {
        let mut links = Links { monitor: Monitor::of_links()?, names: HashMap::new() };
        links.read(&mut Vec::new())?;
        Ok(links)
    }

    pub(super) fn name(&self, index: u32) -> Option<&Arc<str>> {
        self.names.get(&index)
    }

    /// What has changed.
    pub(super) fn news(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        loop {
            match self.monitor.try_next() {
                Ok(Some(Event::Link { new, link })) => self.take(new, &link, &mut news),
                Ok(Some(Event::Overrun)) => {
                    let before = std::mem::take(&mut self.names);
                    // What cannot be read now is read when something changes; sessions fall by their timers.
                    let _ = self.read(&mut news);
                    let gone = before.into_iter().filter(|(index, name)| self.names.get(index) != Some(name));
                    news.extend(gone.flat_map(|(_, name)| [News::Down(name.clone()), News::Other(name)]));
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return news,
            }
        }
    }

    fn read(&mut self, news: &mut Vec<News>) -> weft_kernel::Result<()> {
        for link in Netlink::open()?.links()? {
            self.take(true, &link, news);
        }
        Ok(())
    }

    fn take(&mut self, new: bool, link: &Link, news: &mut Vec<News>) {
        let before = self.names.remove(&link.index);
        let renamed = before.clone().filter(|before| !new || **before != *link.name);
        let name = before.filter(|_| renamed.is_none()).unwrap_or_else(|| link.name.as_str().into());
        if !new || !link.running {
            news.push(News::Down(name.clone()));
        }
        news.extend(renamed.map(News::Other));
        if new {
            self.names.insert(link.index, name);
        }
    }
}

impl AsFd for Links {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.monitor.as_fd()
    }
}
