//! `lab up`, in the caller's process: claims the lab's folder, starts its daemon and relays
//! what the daemon says until the lab is ready.

use std::fs;
use std::io::{BufRead, BufReader, PipeReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::config::LabConfig;
use crate::down;
use crate::error::Error;
use crate::progress::{Message, Progress};
use crate::state::{LabInfo, LabState, Lock};

/// Makes the lab and returns when it is ready for pods. What was left of a lab of this name
/// whose processes are gone is removed first. A lab that cannot be made leaves nothing.
pub fn up(config: &LabConfig, tell: &mut dyn FnMut(&Progress)) -> anyhow::Result<LabState> {
    config.validate().map_err(Error::Config)?;
    let state = LabState::open(&config.name)?;
    let plugin = plugin_binary()?;
    let lock = claim(&state)?;
    if state.is_alive() {
        bail!(Error::AlreadyUp { lab: config.name.clone() });
    }
    if down::clear(&state)? {
        tell(&Progress::new("leftovers", "removed what was left of a lab whose processes are gone"));
    }
    let started = prepare(&state, config, &plugin).and_then(|listener| start(&state, listener));
    drop(lock);
    let outcome = started.and_then(|messages| relay(messages, &state, tell));
    if let Err(error) = outcome {
        // The error that is told is the first one.
        let _ = down::down(&config.name);
        return Err(error);
    }
    Ok(state)
}

/// Makes the lab's folder and takes hold of it.
fn claim(state: &LabState) -> anyhow::Result<Lock> {
    loop {
        state.create_dir()?;
        match state.lock(Duration::from_secs(10)) {
            // A weft lab down removed it just now.
            Err(error) if error.is_missing() => {}
            lock => return Ok(lock?),
        }
    }
}

fn plugin_binary() -> anyhow::Result<PathBuf> {
    let weft = std::env::current_exe().context("cannot find out where weft itself is")?;
    let plugin = weft.with_file_name("weft-cni");
    if !plugin.is_file() {
        bail!("there is no weft-cni beside {}: build it with cargo build -p weft-cni", weft.display());
    }
    Ok(plugin)
}

/// Makes the lab's files and the socket that the machine reaches its API server by.
fn prepare(state: &LabState, config: &LabConfig, plugin: &Path) -> anyhow::Result<TcpListener> {
    let make = |dir: PathBuf| fs::create_dir_all(&dir).map_err(|e| Error::file("make the folder", &dir, e));
    for dir in [state.log_dir(), state.bin_dir(), state.api_dir(), state.pod_dir(), state.dir().join("netns")]
    {
        make(dir)?;
    }
    for name in weft_cni::names() {
        let link = state.bin_dir().join(name);
        std::os::unix::fs::symlink(plugin, &link).map_err(|e| Error::file("link", &link, e))?;
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on 127.0.0.1")?;
    let api_port = listener.local_addr().context("cannot read the port listened on")?.port();
    let created = jiff::Timestamp::now().to_string();
    state.write_info(&LabInfo { process: None, relay: None, config: config.clone(), api_port, created })?;
    Ok(listener)
}

/// Starts the daemon; it has noted its process in `lab.json` when this returns.
fn start(state: &LabState, listener: TcpListener) -> anyhow::Result<PipeReader> {
    let log = state.log_dir().join("daemon.log");
    let log = fs::File::create(&log).map_err(|e| Error::file("make", &log, e))?;
    let (messages, teller) = std::io::pipe().context("cannot make a pipe")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("lab-daemon").arg("--state").arg(state.dir());
    // Standard input and output carry descriptors across exec without unsafe code.
    command.stdin(Stdio::from(OwnedFd::from(listener))).stdout(teller).stderr(log);
    let mut child = command.spawn().context("cannot start the lab's daemon")?;
    drop(command);
    child.wait().context("cannot wait for the lab's daemon")?;
    Ok(messages)
}

fn relay(messages: PipeReader, state: &LabState, tell: &mut dyn FnMut(&Progress)) -> anyhow::Result<()> {
    for line in BufReader::new(messages).lines() {
        let line = line.context("cannot read what the lab's daemon says")?;
        match serde_json::from_str(&line) {
            Ok(Message::Progress(progress)) => tell(&progress),
            Ok(Message::Ready) => return Ok(()),
            Ok(Message::Failed(why)) => bail!(why),
            Err(_) => {}
        }
    }
    let log = log_tail(&state.log_dir().join("daemon.log"));
    bail!("the lab ended before it was ready: weft lab down stopped it, or its daemon failed{log}")
}

/// The last lines of the log, to be put behind a message; nothing when there is none.
fn log_tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(8)..].join("\n");
    if tail.is_empty() { tail } else { format!("; its log ends:\n{tail}") }
}
