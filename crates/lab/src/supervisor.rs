//! Child processes that are started again when they end, and end with the lab.

use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use rustix::process::Signal;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use weft_kernel::Netns;
use weft_kernel::process::Process;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Who ran this long did not fail at once.
const RAN_WELL: Duration = Duration::from_secs(10);
/// How long a child may take to end when asked.
const PATIENCE: Duration = Duration::from_secs(2);

/// The children of the lab's keeper.
pub(crate) struct Supervisor {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Default for Supervisor {
    fn default() -> Self {
        Supervisor { stop: watch::Sender::new(false), tasks: JoinSet::new() }
    }
}

impl Supervisor {
    /// Keeps a process running, in `netns` where one is given; `command` makes it anew.
    pub(crate) fn start(
        &mut self,
        name: &str,
        netns: Option<Netns>,
        command: impl Fn() -> anyhow::Result<Command> + Send + 'static,
    ) {
        let (name, mut stop) = (name.to_owned(), self.stop.subscribe());
        self.tasks.spawn(async move {
            let mut pause = FIRST_PAUSE;
            while !*stop.borrow() {
                let started = Instant::now();
                match spawn(netns.as_ref(), &command) {
                    Ok(child) => run(&name, child, &mut stop).await,
                    Err(error) => tracing::error!("{name}: {error:#}"),
                }
                pause = if started.elapsed() > RAN_WELL { FIRST_PAUSE } else { pause };
                tokio::select! { _ = sleep(pause) => {}, _ = stopped(&mut stop) => {} }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        });
    }

    /// Ends all, at most two seconds each, together.
    pub(crate) async fn stop(&mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Starts a process in a namespace: it inherits the calling thread's.
fn spawn(netns: Option<&Netns>, make: &dyn Fn() -> anyhow::Result<Command>) -> anyhow::Result<Child> {
    let mut command = tokio::process::Command::from(make()?);
    let _guard = netns.map(Netns::guard).transpose()?;
    command.kill_on_drop(true).spawn().context("cannot be started")
}

async fn run(name: &str, mut child: Child, stop: &mut watch::Receiver<bool>) {
    let ended = tokio::select! {
        ended = child.wait() => Some(ended),
        _ = stopped(stop) => None,
    };
    match ended {
        Some(Ok(status)) => tracing::warn!("{name} ended ({status}); it is started again"),
        Some(Err(error)) => tracing::error!("{name}: cannot wait for it: {error}"),
        None => terminate(&mut child).await,
    }
}

async fn terminate(child: &mut Child) {
    let process = child.id().and_then(|pid| Process::open(i32::try_from(pid).ok()?).ok());
    // Who cannot be asked is killed when dropped.
    let asked = process.is_some_and(|process| process.signal(Signal::TERM.as_raw()).is_ok());
    if asked && timeout(PATIENCE, child.wait()).await.is_ok() {
        return;
    }
    let _ = child.kill().await;
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The sender gone means the same.
    let _ = stop.wait_for(|stop| *stop).await;
}
