//! `weft lab-daemon`: the processes behind a lab, each the same executable in another role.
//!
//! ```text
//! lab up ─▶ outer: enters new namespaces, starts ▼, notes it in lab.json, ends
//!             init: number 1 inside; collects orphans; when it ends, all of the lab ends
//!               └─ keeper: the underlay, the nodes, the pods' life, and
//!                    ├─ weft apiserver, or the way to another one: see `relay`
//!                    └─ weft agent, one a node, in the node's network namespace
//! ```
//!
//! Standard input carries the API server's socket on the machine's loopback, standard output
//! the pipe that `lab up` reads, standard error the log.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};
use weft_kernel::{descriptors, sandbox};

use crate::keeper;
use crate::liveness::ProcessId;
use crate::progress::{Message, Teller};
use crate::relay;
use crate::state::LabState;

/// Which role a process of the daemon has; unset for the first one.
pub(crate) const ROLE: &str = "WEFT_LAB_ROLE";

/// Plays the role this process was started for. To be called before the process has a second
/// thread or a runtime.
pub fn main(state_dir: &Path) -> anyhow::Result<()> {
    let state = LabState::at(state_dir)?;
    match std::env::var(ROLE).as_deref() {
        Err(_) => outer(&state),
        Ok("init") => init(&state),
        Ok("keeper") => keeper::main(&state),
        Ok("relay") => relay::main(&state),
        Ok("apiserver") => crate::apiserver::become_server(&state),
        Ok(other) => bail!("unknown role {other:?} in {ROLE}"),
    }
}

/// This executable in another role.
pub(crate) fn in_role(state: &LabState, role: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(executable()?);
    command.arg("lab-daemon").arg("--state").arg(state.dir()).env(ROLE, role);
    Ok(command)
}

/// The path of this executable.
pub(crate) fn executable() -> anyhow::Result<OsString> {
    Ok(std::env::current_exe().context("cannot find out where weft itself is")?.into())
}

fn outer(state: &LabState) -> anyhow::Result<()> {
    // A descriptor leaked by a shell or make would keep its pipe open for the lab's life.
    descriptors::close_on_exec_from(3)?;
    let teller = Teller::beside_stdout()?;
    enter_namespaces(state).inspect_err(|error| teller.say(&Message::Failed(format!("{error:#}"))))
}

fn enter_namespaces(state: &LabState) -> anyhow::Result<()> {
    rustix::process::setsid().context("cannot leave the terminal's session")?;
    let _hold = relay::start(state)?;
    sandbox::unshare_lab(!rustix::process::geteuid().is_root())
        .context("cannot make the lab's own namespaces")?;
    let mut child = in_role(state, "init")?.spawn().context("cannot start the lab's first process")?;
    let noted = note_process(state, child.id());
    if noted.is_err() {
        // The folder was removed meanwhile: this lab is not wanted any more.
        let _ = child.kill();
        let _ = child.wait();
    }
    noted
}

fn note_process(state: &LabState, pid: u32) -> anyhow::Result<()> {
    let mut info = state.info()?.context("the lab was removed while it was made")?;
    info.process = Some(ProcessId::of(i32::try_from(pid)?)?);
    Ok(state.write_info(&info)?)
}

/// Process 1 of the lab.
fn init(state: &LabState) -> anyhow::Result<()> {
    // Found now: the path of this executable is lost with the outer process's mounts.
    let mut keeper = in_role(state, "keeper")?;
    // Mounts of its own, because the outer process still reads the machine's /proc.
    sandbox::unshare_mounts().context("cannot make the lab's mount namespace")?;
    sandbox::mount_proc().context("cannot mount /proc for the lab")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut children = signal(SignalKind::child())?;
        let keeper = keeper.spawn().context("cannot start the lab's keeper")?;
        release_stdio()?;
        let keeper = i32::try_from(keeper.id())?;
        loop {
            tokio::select! {
                _ = children.recv() => if collect(keeper)? { return Ok(()) },
                _ = terminate.recv() => weft_kernel::process::Process::open(keeper)?.signal(15)?,
            }
        }
    })
}

/// Collects every child that has ended; says whether the keeper was among them.
fn collect(keeper: i32) -> anyhow::Result<bool> {
    loop {
        match rustix::process::wait(rustix::process::WaitOptions::NOHANG) {
            Ok(Some((pid, _))) if pid.as_raw_nonzero().get() == keeper => return Ok(true),
            Ok(Some(_)) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(false),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot collect ended processes"),
        }
    }
}

/// Lets go of the pipe and the socket, which are the keeper's now.
pub(crate) fn release_stdio() -> anyhow::Result<()> {
    let null = std::fs::File::open("/dev/null").context("cannot open /dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
    Ok(())
}

/// Standard input, output and error of a child that is spoken to in no way but its log.
pub(crate) fn quiet(command: &mut Command, log: &Path) -> anyhow::Result<()> {
    let file = std::fs::File::options().create(true).append(true).open(log);
    let file = file.with_context(|| format!("cannot open {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    Ok(())
}
