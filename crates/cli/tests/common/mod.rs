//! Labs for end-to-end tests: each in a folder of its own, always taken down, even after a panic.
#![allow(dead_code, reason = "each test binary uses a part of the harness")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The user that the tests without root run as (Debian's `nobody`).
const NOBODY: u32 = 65534;

/// A place where labs of one test live; dropping it takes them all down.
pub struct Labs {
    dir: TempDir,
    user: Option<u32>,
}

impl Labs {
    /// Labs of root.
    pub fn new() -> Labs {
        assert!(rustix_is_root(), "the end-to-end tests need root: run them with sudo");
        Labs { dir: TempDir::new().unwrap(), user: None }
    }

    /// Labs of an ordinary user: the executables are copied to where that user may read them.
    pub fn unprivileged() -> Labs {
        let mut labs = Labs::new();
        fs::set_permissions(labs.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["weft", "weft-cni"] {
            fs::copy(built(name), labs.dir.path().join(name)).unwrap();
        }
        let home = labs.path("labs");
        fs::create_dir(&home).unwrap();
        chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
        labs.user = Some(NOBODY);
        labs
    }

    /// A path in the test's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The state folder of a lab.
    pub fn state(&self, name: &str) -> PathBuf {
        self.path("labs").join(name)
    }

    /// Writes a file into the test's folder.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// `weft` with arguments, ready to run.
    pub fn weft(&self, args: &[&str]) -> Command {
        let mut command = match self.user {
            Some(user) => {
                let mut command = Command::new(self.path("weft"));
                command.uid(user).gid(user).current_dir("/");
                command
            }
            None => Command::new(built("weft")),
        };
        command.args(args).stdin(Stdio::null());
        command.env("WEFT_LAB_DIR", self.path("labs")).env("NO_COLOR", "1").env_remove("XDG_RUNTIME_DIR");
        command
    }

    /// Runs `weft` and returns what came out of it.
    pub fn run(&self, args: &[&str]) -> Output {
        self.weft(args).output().unwrap()
    }

    /// Runs `weft`, which must exit with `code`; returns standard output and error together.
    pub fn expect(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "weft {}\n{text}", args.join(" "));
        text
    }

    /// Runs `weft`, which must exit with 0, and reads its standard output as JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.run(args);
        assert!(
            output.status.success(),
            "weft {}\n{}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Runs a shell line in a node of lab `lab`; its standard output.
    pub fn on_node(&self, lab: &str, node: &str, line: &str) -> String {
        let target = format!("node/{node}");
        let output = self.run(&["lab", "exec", "--name", lab, &target, "--", "sh", "-c", line]);
        assert!(output.status.success(), "on {node}: {line}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The pods of a lab, as `lab status` reports them.
    pub fn pods(&self, lab: &str) -> Vec<Value> {
        let status = self.json(&["lab", "status", "--name", lab, "-o", "json"]);
        status["pods"].as_array().unwrap().clone()
    }

    /// The process IDs of a lab's children whose command line holds all of `words`.
    pub fn processes(&self, words: &[&str]) -> Vec<i32> {
        let mark = self.path("labs").to_str().unwrap().to_owned();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(&mark) && words.iter().all(|word| line.contains(word)) {
                found.push(pid);
            }
        }
        found
    }
}

impl Drop for Labs {
    fn drop(&mut self) {
        let output = self.run(&["lab", "down", "--all"]);
        if !output.status.success() && !std::thread::panicking() {
            panic!("lab down --all: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

fn rustix_is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}

/// An executable of this build.
pub fn built(name: &str) -> PathBuf {
    let weft = Path::new(env!("CARGO_BIN_EXE_weft"));
    let path = weft.with_file_name(name);
    assert!(path.exists(), "{} is missing: cargo build -p weft-cni", path.display());
    path
}

/// An example of the repository.
pub fn example(name: &str) -> String {
    format!("{}/../../examples/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Sends a signal by name (`KILL`, `TERM`).
pub fn signal(pid: i32, name: &str) {
    Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().unwrap();
}

/// Waits until `condition` holds; panics after `limit` with what was waited for.
pub fn eventually(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The machine's own network configuration, as text to compare.
pub fn machine_dump() -> String {
    let mut all = String::new();
    for line in [
        "ip -d link",
        "ip route show table all",
        "ip -6 route show table all",
        "ip rule",
        "ip -6 rule",
        "nft list ruleset",
        "sysctl -a -r '^net\\.' 2>/dev/null | grep -vE 'nf_conntrack_count|hash_stats'",
    ] {
        let output = Command::new("sh").args(["-c", line]).output().unwrap();
        all += &format!("# {line}\n{}", String::from_utf8_lossy(&output.stdout));
    }
    all
}
