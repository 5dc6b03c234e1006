//! Calls under strace, which kills them or has system calls fail.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Output;

use super::{Call, Node};

/// The system calls of a call: each name with how often it was made.
pub fn system_calls(node: &Node, call: &Call) -> BTreeMap<String, usize> {
    let trace = node.data.path().join("trace");
    let output = trace.display().to_string();
    let traced = under_strace(call, &["-f", "-qq", "-o", &output]);
    assert!(traced.run().ok);
    let mut calls = BTreeMap::new();
    for line in fs::read_to_string(&trace).unwrap().lines() {
        // `PID name(arguments) = result`; what is resumed was counted when it began.
        let call = line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
        let Some((name, _)) = call.split_once('(') else { continue };
        let named = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !name.is_empty();
        if named && name != "execve" {
            *calls.entry(name.to_owned()).or_insert(0) += 1;
        }
    }
    assert!(calls.values().sum::<usize>() > 30, "{calls:?}");
    calls
}

/// The call, killed when it makes a system call for the nth time. Whether it was.
pub fn killed_at(call: &Call, name: &str, nth: usize) -> bool {
    let output = injected(call, &format!("{name}:signal=KILL:when={nth}"));
    // strace ends as what it traced ended.
    output.status.signal() == Some(9)
}

/// The call, in which system calls fail or end it: `NAME[,NAME]...:error=EIO[:when=N]`.
pub fn injected(call: &Call, what: &str) -> Output {
    let inject = format!("inject={what}");
    let traced = under_strace(call, &["-f", "-qq", "-o", "/dev/null", "-e", &inject]);
    traced.start().wait_with_output().unwrap()
}

fn under_strace(call: &Call, options: &[&str]) -> Call {
    let mut call = call.clone();
    let program = std::mem::replace(&mut call.program, "strace".into());
    call.arguments = options.iter().map(|&option| option.to_owned()).collect();
    call.arguments.push(program.display().to_string());
    call.env.insert("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    call
}
