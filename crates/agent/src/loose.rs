//! The kernel's check of sources (`rp_filter`): loose while the backend is being changed, since a peer may
//! send by one backend what this node would send by the other, and then as it was.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use weft_kernel::sysctl;

use crate::files;

const STRICT: &str = "1";
const LOOSE: &str = "2";

fn name(link: &str) -> String {
    format!("net/ipv4/conf/{link}/rp_filter")
}

/// Makes the check loose on those of `links` where it is strict. What they had is kept in the file
/// first: whoever is killed here leaves what puts it back. Returns how many were changed.
pub(crate) fn loosen<'a>(links: impl Iterator<Item = &'a str>, file: &Path) -> Result<usize> {
    let strict = |link: &str| sysctl::get(&name(link)).is_ok_and(|value| value == STRICT);
    let all = strict("all");
    // The stricter of a link's own value and that of all counts.
    let links: Vec<&str> = links.filter(|link| all || strict(link)).collect();
    let mut before = read(file)?;
    let mut changed = 0;
    for link in links {
        let Ok(now) = sysctl::get(&name(link)) else { continue };
        if now == LOOSE {
            continue;
        }
        before.entry(link.to_owned()).or_insert(now);
        files::ensure(file, &serde_json::to_vec(&before)?)?;
        sysctl::set(&name(link), LOOSE)?;
        tracing::info!("set {} to {LOOSE} (loose) while the backend is being changed", name(link));
        changed += 1;
    }
    Ok(changed)
}

/// Puts back what [`loosen`] changed, where nobody has changed it since. Returns how many were changed.
pub(crate) fn restore(file: &Path) -> Result<usize> {
    let mut changed = 0;
    for (link, before) in read(file)? {
        // A link that is gone took its value with it.
        if sysctl::get(&name(&link)).is_ok_and(|value| value == LOOSE) {
            sysctl::set(&name(&link), &before)?;
            tracing::info!("set {} back to {before}: the backend is changed", name(&link));
            changed += 1;
        }
    }
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", file.display()))
        }
        _ => Ok(changed),
    }
}

/// The values before by link. A file that makes no sense has none.
fn read(file: &Path) -> Result<BTreeMap<String, String>> {
    match std::fs::read(file) {
        Ok(text) => Ok(serde_json::from_slice(&text).unwrap_or_default()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error).with_context(|| format!("read {}", file.display())),
    }
}
