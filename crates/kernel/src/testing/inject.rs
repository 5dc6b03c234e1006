//! System calls that fail.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;

/// Does `work` while system calls of the calling thread fail: of those named in `calls`, with commas between, the
/// ones that strace's `when` means (`2`: the second, `1+`: all) with this error. Says how many failed.
pub fn failing<T>(calls: &str, error: &str, when: &str, work: impl FnOnce() -> T) -> (T, usize) {
    let thread = rustix::thread::gettid();
    let mut strace = Command::new("strace")
        .args(["-p", &thread.as_raw_nonzero().to_string(), "-e", &format!("trace={calls}")])
        .args(["-e", &format!("inject={calls}:error={error}:when={when}")])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("strace: scripts/install-deps.sh test");
    let said = BufReader::new(strace.stderr.take().unwrap());
    let (attached, is_attached) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut failed = 0;
        for line in said.lines().map_while(Result::ok) {
            if line.ends_with(" attached") {
                attached.send(()).ok();
            }
            failed += usize::from(line.contains("(INJECTED)"));
        }
        failed
    });
    is_attached.recv().expect("strace cannot attach");
    let done = work();
    let id = rustix::process::Pid::from_child(&strace);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    strace.wait().unwrap();
    (done, reader.join().unwrap())
}
