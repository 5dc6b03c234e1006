//! What is printed where: results to standard output, progress and complaints to standard error.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How long a step may be silent.
const SILENCE: Duration = Duration::from_millis(700);
/// The time between two progress lines that nobody watches.
const PAUSE: Duration = Duration::from_secs(5);

/// Whether to colour what goes to a stream: a terminal, and nobody asked not to (no-color.org).
pub(crate) fn colour(stream: &impl IsTerminal) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Prints a result. A reader that has left (`| head`) is no error.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// Prints a result and ends its line.
pub(crate) fn line(text: &str) {
    print(&format!("{text}\n"));
}

/// Says on standard error what went wrong.
pub(crate) fn complain(text: &str) {
    let prefix = if colour(&std::io::stderr()) { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
    note(&format!("{prefix} {text}"));
}

/// Says something on standard error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// What a long step says while it runs: on a terminal one line that changes, elsewhere a line
/// every few seconds; nothing of what is done within a moment.
pub(crate) struct Progress {
    started: Instant,
    last: Instant,
    terminal: bool,
    shown: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Progress { started: now, last: now, terminal: std::io::stderr().is_terminal(), shown: false }
    }

    /// Says how far it is, unless something was said just now.
    pub(crate) fn say(&mut self, text: impl FnOnce() -> String) {
        let pause = match (self.terminal, self.shown) {
            (true, true) => Duration::from_millis(100),
            (true, false) => SILENCE,
            (false, _) => PAUSE,
        };
        if self.last.elapsed() < pause {
            return;
        }
        self.last = Instant::now();
        let seconds = self.started.elapsed().as_secs();
        let text = text();
        let _ = if self.terminal {
            self.shown = true;
            write!(std::io::stderr().lock(), "\r\x1b[K{text} ({seconds} s)")
        } else {
            writeln!(std::io::stderr().lock(), "{text} ({seconds} s)")
        };
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }
}
