//! The command line of the daemon: the flags of the reference, written as Go writes flags.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::ipam::dhcp::options::SOCKET;

/// Where the leases are on disk.
const DATA: &str = "/var/lib/cni/dhcp";

const USAGE: &str = "usage: dhcp daemon [FLAG]...
  -socketpath PATH         where to listen (/run/cni/dhcp.sock); a socket that systemd passes goes before
  -pidfile PATH            file for the number of this process
  -hostprefix PATH         where the node's root is seen: goes before the socket's and the namespaces' paths
  -datadir PATH            folder of the leases (/var/lib/cni/dhcp)
  -broadcast               servers are to answer by broadcast
  -timeout DURATION        longest first wait for a server's answer (10s)
  -resendmax DURATION      longest wait between messages to a server (62s)
  -resendtimeout DURATION  an ADD without a lease fails after this (3m28s)";

/// What the daemon was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flags {
    socket: PathBuf,
    prefix: String,
    data: PathBuf,
    pub(crate) pidfile: Option<PathBuf>,
    pub(crate) broadcast: bool,
    pub(crate) timeout: Duration,
    pub(crate) resend_max: Duration,
    pub(crate) resend_timeout: Duration,
}

impl Flags {
    /// Reads what comes after `daemon`.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Flags, String> {
        let mut flags = Flags {
            socket: SOCKET.into(),
            prefix: String::new(),
            data: DATA.into(),
            pidfile: None,
            broadcast: false,
            timeout: Duration::from_secs(10),
            resend_max: Duration::from_secs(62),
            resend_timeout: Duration::from_secs(208),
        };
        while let Some(argument) = arguments.next() {
            let wrong = |reason: &str| format!("{argument}: {reason}\n{USAGE}");
            let flag = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-'));
            let flag = flag.ok_or_else(|| wrong("this is no flag"))?;
            let (name, given) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            if name == "broadcast" {
                let value = given.as_deref().unwrap_or("true");
                flags.broadcast = boolean(value).ok_or_else(|| wrong("it is true or false"))?;
                continue;
            }
            let value = given.or_else(|| arguments.next());
            let value = value.ok_or_else(|| wrong("its value is missing"))?;
            let time =
                || duration(&value).ok_or_else(|| wrong("its value is no duration such as 10s or 1m30s"));
            match name {
                "socketpath" if value.is_empty() => {}
                "socketpath" => flags.socket = value.into(),
                "pidfile" if value.is_empty() => {}
                "pidfile" if !Path::new(&value).is_absolute() => {
                    return Err(wrong("the path is not absolute"));
                }
                "pidfile" => flags.pidfile = Some(value.into()),
                "hostprefix" => flags.prefix = value,
                "datadir" => flags.data = value.into(),
                "timeout" => flags.timeout = time()?,
                "resendmax" => flags.resend_max = time()?,
                "resendtimeout" => flags.resend_timeout = time()?,
                _ => return Err(wrong("there is no such flag")),
            }
        }
        Ok(flags)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.on_node(&self.socket.to_string_lossy())
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.on_node(&self.data.to_string_lossy())
    }

    /// A path of the node as this process sees it.
    pub(crate) fn on_node(&self, path: &str) -> PathBuf {
        format!("{}{path}", self.prefix).into()
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A duration as Go writes it: numbers with units, `1m30s`, `1.5h`, `300ms`.
fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut total) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(unit_at);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        total = total.checked_add(part)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Flags, String> {
        Flags::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn flags_are_written_as_go_writes_them() {
        let flags =
            parse("-hostprefix /host --socketpath=/run/x.sock -broadcast -timeout 1m1.5s -pidfile /p")
                .unwrap();
        assert_eq!((flags.socket(), flags.broadcast), (PathBuf::from("/host/run/x.sock"), true));
        assert_eq!(flags.timeout, Duration::from_millis(61_500));
        assert_eq!(flags.data(), PathBuf::from("/host/var/lib/cni/dhcp"));
        assert!(!parse("-broadcast=false").unwrap().broadcast);
        assert_eq!(parse("-socketpath=").unwrap().socket(), PathBuf::from(SOCKET));
    }

    #[test]
    fn what_is_no_flag_is_named() {
        for wrong in ["-pidfile p", "-timeout 5", "-timeout", "-nothing 1", "stray", "-broadcast=maybe"] {
            let error = parse(wrong).unwrap_err();
            assert!(
                error.starts_with(wrong.split(' ').next().unwrap()) && error.contains("usage"),
                "{error}"
            );
        }
    }
}
