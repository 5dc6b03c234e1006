//! A process of a test: it ends with the value, and with the test.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context;

/// A running process; killed when dropped, or when the thread that started it ends.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: std::path::PathBuf,
}

impl Process {
    /// Starts a program with its output in `log`.
    pub fn start(program: &Path, arguments: &[String], log: &Path) -> anyhow::Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
        // A killed test runs no destructor: the kernel ends what it started.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context("cannot start setpriv (Debian: util-linux)")?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Its process ID.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to end in order, and waits for that.
    pub fn end(mut self) -> anyhow::Result<()> {
        let told = Command::new("kill").arg(self.id().to_string()).status().context("cannot start kill")?;
        anyhow::ensure!(told.success(), "process {} cannot be told to end", self.id());
        self.child.wait().context("cannot wait for a process")?;
        Ok(())
    }

    /// Fails with the end of its log if it has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(15)..].join("\n");
        anyhow::bail!("a process ended with {status}; {} ends:\n{tail}", self.log.display())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
