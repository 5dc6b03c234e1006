//! iptables' own programs.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use weft_kernel::nft::Family;
use weft_kernel::xtables::Variant;

use super::tables::Table;
use crate::Error;

/// For how many seconds a program waits while another holds iptables' lock. The node's agent may stand still
/// so long, not longer.
const WAIT: &str = "5";
/// What programs of the legacy variant end with when the lock is not theirs in time.
const RESOURCE_PROBLEM: i32 = 4;
/// Chains that kubelet makes with the iptables that the host uses.
const HINTS: [&str; 2] = ["KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"];

/// Which iptables the host uses: the one with which kubelet made its chains; without those the one that is
/// installed under that name.
pub(super) fn detect() -> Variant {
    let found = Variant::find();
    let hinted = [false, true].into_iter().find(|legacy| {
        let variant = Variant { legacy: *legacy, ..found.clone() };
        // To ask the legacy programs is to make their tables.
        (!legacy || has_legacy_tables())
            && [Family::Ip, Family::Ip6].iter().any(|family| {
                let programs = Programs { variant: variant.clone(), family: *family };
                HINTS.iter().any(|chain| programs.rules(Table::Mangle, chain).is_some())
            })
    });
    match hinted {
        Some(legacy) => Variant { legacy, ..found },
        None => found,
    }
}

fn has_legacy_tables() -> bool {
    ["ip_tables_names", "ip6_tables_names"].iter().any(|list| {
        std::fs::read_to_string(format!("/proc/thread-self/net/{list}"))
            .is_ok_and(|names| names.lines().any(|name| name == Table::Mangle.name()))
    })
}

/// The programs of one family.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    pub(super) variant: Variant,
    pub(super) family: Family,
}

impl Programs {
    /// All tables.
    pub(super) fn save(&self) -> Result<String, Error> {
        let program = self.variant.program(self.family, "-save");
        let named = program.display().to_string();
        let output = Command::new(&program).output();
        let output = output.map_err(|e| Error::Program { program: named.clone(), said: e.to_string() })?;
        succeeded(&named, &output)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The rules of one chain; none where there is no such chain.
    pub(super) fn rules(&self, table: Table, chain: &str) -> Option<String> {
        let program = self.variant.program(self.family, "");
        let output =
            Command::new(program).args(["-w", WAIT, "-t", table.name(), "-S", chain]).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Does a script, each table's part whole or not at all.
    pub(super) fn restore(&self, script: &str) -> Result<(), Error> {
        let program = self.variant.program(self.family, "-restore");
        let named = format!("{} --noflush -w {WAIT}", program.display());
        let failed = |e: std::io::Error| Error::Program { program: named.clone(), said: e.to_string() };
        let mut child = Command::new(&program)
            .args(["--noflush", "-w", WAIT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut input) = child.stdin.take() {
            // A program that refuses a line may end before it has read the rest.
            input.write_all(script.as_bytes()).ok();
        }
        succeeded(&named, &child.wait_with_output().map_err(failed)?)
    }
}

fn succeeded(program: &str, output: &Output) -> Result<(), Error> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.code() == Some(RESOURCE_PROBLEM) && said.contains("xtables lock") {
        return Err(Error::IptablesLocked);
    }
    Err(Error::Program { program: program.to_owned(), said: format!("{said} ({})", output.status) })
}
