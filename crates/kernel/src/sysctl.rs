//! Kernel parameters under `/proc/sys`. Those below `net` are the calling thread's namespace's.

use std::fs;
use std::path::PathBuf;

use crate::{Error, Result};

/// The value of `name` (`net.ipv4.ip_forward`), without the newline at its end. A slash works as
/// separator too, so that an interface with a dot in its name can be given:
/// `net/ipv4/conf/eth0.100/rp_filter`.
pub fn get(name: &str) -> Result<String> {
    let value = fs::read_to_string(path(name)?).map_err(|e| Error::sys("read sysctl", name, e))?;
    Ok(value.trim_end().to_owned())
}

/// Sets `name` to `value`.
pub fn set(name: &str, value: &str) -> Result<()> {
    fs::write(path(name)?, value).map_err(|e| Error::sys("set sysctl", format!("{name}={value}"), e))
}

/// Sets `name` to `value` unless it has it already; says whether it was changed.
pub fn ensure(name: &str, value: &str) -> Result<bool> {
    if get(name)? == value {
        return Ok(false);
    }
    set(name, value)?;
    Ok(true)
}

fn path(name: &str) -> Result<PathBuf> {
    let relative = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    let plain = relative.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if !plain {
        let invalid = std::io::Error::from(std::io::ErrorKind::InvalidInput);
        return Err(Error::sys("use sysctl name", name, invalid));
    }
    Ok(PathBuf::from("/proc/sys").join(relative))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_proc_sys() {
        for bad in ["", "net/../../etc/passwd", "/etc/passwd", "net..ipv4", "net/./x"] {
            assert!(path(bad).is_err(), "{bad}");
        }
        assert_eq!(path("net.ipv4.ip_forward").unwrap(), PathBuf::from("/proc/sys/net/ipv4/ip_forward"));
        let dotted = path("net/ipv4/conf/eth0.100/rp_filter").unwrap();
        assert_eq!(dotted, PathBuf::from("/proc/sys/net/ipv4/conf/eth0.100/rp_filter"));
    }
}
