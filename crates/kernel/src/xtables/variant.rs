//! Which iptables this machine has, found without starting it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::nft::Family;

/// Where programs for the administrator are, besides PATH.
const DIRECTORIES: [&str; 6] =
    ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin"];

/// The kind of iptables whose rules count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variant {
    /// The `iptables` program, if one is installed.
    pub program: Option<PathBuf>,
    /// Whether its rules are the kernel's older ones and not nf_tables.
    pub legacy: bool,
}

impl Variant {
    /// What this machine has: `iptables` of PATH or the usual folders.
    pub fn find() -> Variant {
        let path = env::var_os("PATH").unwrap_or_default();
        let dirs = env::split_paths(&path).chain(DIRECTORIES.map(PathBuf::from));
        let program =
            dirs.filter(|dir| dir.is_absolute()).map(|dir| dir.join("iptables")).find(|p| p.is_file());
        let legacy = program.as_deref().is_some_and(is_legacy);
        Variant { program, legacy }
    }

    /// The program of this variant for `family` with a name's end such as `-restore`, or none.
    pub fn program(&self, family: Family, end: &str) -> PathBuf {
        let name = if family == Family::Ip6 { "ip6tables" } else { "iptables" };
        let beside = self.program.as_deref().and_then(Path::parent).unwrap_or(Path::new("/usr/sbin"));
        let exact = beside.join(format!("{name}-{}{end}", if self.legacy { "legacy" } else { "nft" }));
        if exact.exists() { exact } else { beside.join(format!("{name}{end}")) }
    }
}

/// By the name of the file that it is in the end. One that does not tell, such as a script that
/// chooses: the older tables count if the kernel has any.
fn is_legacy(program: &Path) -> bool {
    let file = fs::canonicalize(program).unwrap_or_default();
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if name.contains("nft") {
        return false;
    }
    if name.contains("legacy") || name == "xtables-multi" {
        return true;
    }
    [Family::Ip, Family::Ip6].iter().any(|family| !older_tables(*family).is_empty())
}

/// The tables of the legacy variant that the calling thread's network namespace has: asking the
/// program would make them.
pub fn older_tables(family: Family) -> Vec<String> {
    let list = if family == Family::Ip6 { "ip6_tables_names" } else { "ip_tables_names" };
    let names = fs::read_to_string(Path::new("/proc/thread-self/net").join(list)).unwrap_or_default();
    names.lines().map(str::to_owned).collect()
}
