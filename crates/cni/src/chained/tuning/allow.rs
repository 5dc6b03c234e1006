//! The administrator's list of kernel parameters that networks may set.

use std::io::ErrorKind;

use regex_lite::RegexBuilder;

use crate::chained::tuning::keys::Sysctl;
use crate::protocol::config::invalid;
use crate::protocol::error::{CniError, code};

/// The file, as the reference has it: a regular expression on each line, matched against any part
/// of a name as the configuration has it. Without the file everything below `net` may be set.
const FILE: &str = "/etc/cni/tuning/allowlist.conf";
/// No expression compiles to more bytes.
const LARGEST: usize = 1 << 20;

/// All of them are allowed.
pub(super) fn check(sysctls: &[Sysctl]) -> Result<(), CniError> {
    if sysctls.is_empty() {
        return Ok(());
    }
    match std::fs::read_to_string(FILE) {
        Ok(list) => check_against(&list, sysctls),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(()),
        Err(error) => Err(CniError::new(code::IO, format!("cannot read {FILE}: {error}"))),
    }
}

fn check_against(list: &str, sysctls: &[Sysctl]) -> Result<(), CniError> {
    let lines = list.lines().map(str::trim).filter(|line| !line.is_empty());
    let compile = |line: &str| {
        let wrong = |error| invalid(&format!("{FILE}: {line:?} is no regular expression: {error}"));
        RegexBuilder::new(line).size_limit(LARGEST).build().map_err(wrong)
    };
    let allowed = lines.map(compile).collect::<Result<Vec<_>, _>>()?;
    match sysctls.iter().find(|sysctl| !allowed.iter().any(|regex| regex.is_match(&sysctl.key))) {
        Some(sysctl) => Err(invalid(&format!("sysctl: {FILE} does not allow {:?}", sysctl.key))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_one(list: &str, key: &str) -> Result<(), CniError> {
        check_against(list, &[Sysctl { key: key.into(), path: String::new(), value: String::new() }])
    }

    #[test]
    fn a_line_that_matches_allows() {
        let list = "^net\\.ipv4\\.conf\\.IFNAME\\.[a-z_]*$\n\n  somaxconn \r\n";
        for good in ["net.ipv4.conf.IFNAME.log_martians", "net.core.somaxconn"] {
            check_one(list, good).unwrap();
        }
        for bad in ["net.ipv4.conf.IFNAME.log_martians2", "net.ipv4.ip_forward"] {
            assert!(check_one(list, bad).unwrap_err().message.contains(bad));
        }
        assert!(check_one("", "net.x").is_err(), "an empty list allows nothing");
        assert!(check_one("(", "net.x").unwrap_err().message.contains("regular expression"));
        assert!(check_one("(a{1000}){1000}", "net.x").is_err());
    }
}
