//! Room in the neighbour table, which is one for the whole machine.

use weft_kernel::sysctl;

/// What the kernel's collection begins at, hastens at and refuses at, in entries. The kernel's own
/// 128, 512 and 1,024 are fewer than the peers on one segment and the pods of one node can be.
const LEAST: [(&str, u64); 3] = [("gc_thresh1", 4096), ("gc_thresh2", 8192), ("gc_thresh3", 16_384)];

/// Raises the table's limits of both families where they are lower. Only the machine's own
/// namespace shows them: anywhere else they are not this agent's to change.
pub(crate) fn make_room() {
    for family in ["ipv4", "ipv6"] {
        for (name, least) in LEAST {
            let name = format!("net/{family}/neigh/default/{name}");
            let Some(now) = sysctl::get(&name).ok().and_then(|value| value.parse().ok()) else { continue };
            let Some(value) = raised(now, least) else { continue };
            match sysctl::set(&name, &value) {
                Ok(()) => tracing::info!("raised {name} from {now} to {value}"),
                Err(error) => tracing::warn!("{error}: peers may be forgotten when the table is full"),
            }
        }
    }
}

/// What to set a limit to that is `now`; none where it is high enough.
fn raised(now: u64, least: u64) -> Option<String> {
    (now < least).then(|| least.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_raised_and_never_lowered() {
        assert_eq!(raised(1024, 16_384).as_deref(), Some("16384"));
        assert_eq!(raised(16_384, 16_384), None);
        assert_eq!(raised(80_000, 16_384), None);
    }
}
